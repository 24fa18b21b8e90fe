"""How the values of children become the value of their parent. All three see the same arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..interfaces import ForethoughtError


class Backup(Protocol):
    """A parent's value from its own score and its children."""

    def __call__(
        self, own: np.ndarray, child_value: np.ndarray, child_visits: np.ndarray, discount: float
    ) -> np.ndarray:
        """Values ``float64 [R]``.

        Args:
            own: The parents' own scores V(s), ``[R]``, finite.
            child_value: v of the children, ``[R, C]``; −inf where not evaluated or disqualified.
            child_visits: Evaluations below each child, ``[R, C]``; 0 where not evaluated or disqualified.
            discount: γ^k of one chunk of k steps.
        """
        ...


@dataclass(frozen=True)
class TemporalDifferenceMix:
    """v(s) = (1−β)·V(s) + β·γ^k·max_a v(s, a): the value network checks the tree and the tree the network.

    Attributes:
        beta: Weight β of the tree, in [0, 1].
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.beta <= 1.0:
            raise ForethoughtError(
                f"beta weighs the tree against the value and must lie in [0, 1]; got {self.beta}."
            )

    def __call__(
        self, own: np.ndarray, child_value: np.ndarray, child_visits: np.ndarray, discount: float
    ) -> np.ndarray:
        best = child_value.max(axis=1)
        seen = np.isfinite(best)
        return np.where(seen, (1.0 - self.beta) * own + self.beta * discount * np.where(seen, best, 0.0), own)


@dataclass(frozen=True)
class MaximumBackup:
    """v(s) = γ^k·max_a v(s, a): exact dynamic programming once the tree is complete."""

    def __call__(
        self, own: np.ndarray, child_value: np.ndarray, child_visits: np.ndarray, discount: float
    ) -> np.ndarray:
        best = child_value.max(axis=1)
        seen = np.isfinite(best)
        return np.where(seen, discount * np.where(seen, best, 0.0), own)


@dataclass(frozen=True)
class MeanBackup:
    """v(s) = mean of V(s) and of the discounted scores of all evaluations below it: UCT's average."""

    def __call__(
        self, own: np.ndarray, child_value: np.ndarray, child_visits: np.ndarray, discount: float
    ) -> np.ndarray:
        total = discount * np.where(child_visits > 0, child_value, 0.0) * child_visits
        return (own + total.sum(axis=1)) / (1.0 + child_visits.sum(axis=1))


BACKUPS: dict[str, Backup] = {
    "td_mix": TemporalDifferenceMix(),
    "max": MaximumBackup(),
    "mean": MeanBackup(),
}
"""Backups by name, with their defaults."""
