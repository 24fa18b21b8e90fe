"""Labels from the outcome of whole episodes, learned by cross-entropy: a scheme for each of ``labels.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from ..labels import SCHEMES as LABELS
from . import Batch, Moments, weighted_cross_entropy


@dataclass(frozen=True)
class Outcome:
    """Cross-entropy with a label that the episode's outcome gives each of its moments.

    Attributes:
        name: See ``Scheme``.
        uses_failures: See ``Scheme``.
        label: See ``LabelScheme``.
    """

    name: str
    uses_failures: bool
    label: Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]

    def learner(self, network: nn.Module) -> nn.Module:
        """See ``Scheme.learner``."""
        return network

    def loss(self, learner: nn.Module, batch: Batch) -> Tensor:
        """See ``Scheme.loss``."""
        return self.fit(learner, batch.moments, batch.discount)

    def fit(self, learner: nn.Module, moments: Moments, discount: float) -> Tensor:
        """The loss on some moments."""
        label = self.of(moments, discount)
        return weighted_cross_entropy(learner(moments.latent, moments.text), label, moments.weight)

    def of(self, moments: Moments, discount: float) -> np.ndarray:
        """Labels ``float32 [E, R]``."""
        return self.label(moments.step, moments.length, moments.success.astype(np.float32), discount)


SCHEMES = tuple(Outcome(item.name, item.uses_failures, item.label) for item in LABELS.values())

DISCOUNTED = next(scheme for scheme in SCHEMES if scheme.name == "success_discounted")
