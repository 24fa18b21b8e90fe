"""Labels for a value, from the outcome of whole episodes.

``T`` is the length of the episode in control steps, ``t`` the step of a state in it, both measured on the
policy's own rollouts. A scheme that leaves failures out cannot tell them apart;
``success_discounted`` is the default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelScheme:
    """How good a state was, in hindsight.

    Attributes:
        name: What configurations call it.
        uses_failures: Whether failed episodes are trained on at all.
        label: Maps (step ``t``, length ``T``, ``success``, discount γ) arrays of one shape to labels in [0,
            1].
    """

    name: str
    uses_failures: bool
    label: Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]


def _discounted(step: np.ndarray, length: np.ndarray, success: np.ndarray, discount: float) -> np.ndarray:
    return (success * discount ** np.maximum(length - step, 0)).astype(np.float32)


def _progress(step: np.ndarray, length: np.ndarray, success: np.ndarray, discount: float) -> np.ndarray:
    del discount
    return (success * np.clip(step / np.maximum(length, 1), 0, 1)).astype(np.float32)


SCHEMES: dict[str, LabelScheme] = {
    scheme.name: scheme
    for scheme in (
        # y = 1[success] γ^(T-t): Monte-Carlo return of a sparse reward at the end.
        LabelScheme("success_discounted", True, _discounted),
        # The same, blind to failures.
        LabelScheme("success_discounted_successes_only", False, _discounted),
        # y = 1[success] t/T.
        LabelScheme("progress", True, _progress),
        # y = t/T on successes only: VLA-Reasoner (arXiv 2509.22643), section on the offline reward.
        LabelScheme("progress_successes_only", False, _progress),
    )
}
