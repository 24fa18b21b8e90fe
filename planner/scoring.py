"""How a predicted state becomes the score of a node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..interfaces import ForethoughtError, Prediction, Score
from .settling import judge
from .tree import finite_rows


@dataclass(frozen=True, eq=False)
class Judgement:
    """Scores of M predicted states.

    Attributes:
        own: value − λ·spread − weight·disagreement, ``float64 [M]``; −inf where disqualified.
        value: The same with the end mixed in, worth 1, ``float64 [M]``; −inf where disqualified.
        spread: The reward model's spread, ``float64 [M]``.
        done: Probability that the episode ended in success on the way, ``float64 [M]``.
        disagreement: The world model's, ``float64 [M]``.
        qualified: Whether everything was finite, ``bool [M]``.
        ended: Whether nothing can be searched below, ``bool [M]``.
    """

    own: np.ndarray
    value: np.ndarray
    spread: np.ndarray
    done: np.ndarray
    disagreement: np.ndarray
    qualified: np.ndarray
    ended: np.ndarray


@dataclass(frozen=True)
class Scoring:
    """How a predicted state becomes the score of a node.

    Attributes:
        pessimism: λ in value − λ·spread of the reward model.
        disagreement: Weight of the world model's disagreement, subtracted as well.
        discount: γ per control step; a chunk of H steps discounts by γ^H.
        terminal: Done-probability from which a node counts as the end: nothing is searched below it.
    """

    pessimism: float = 1.0
    disagreement: float = 0.0
    discount: float = 0.98
    terminal: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 < self.discount <= 1.0:
            raise ForethoughtError(
                f"discount is per control step and must lie in (0, 1]; got {self.discount}."
            )

    def judge(self, prediction: Prediction, score: Score) -> Judgement:
        """Scores of the predicted states. Numbers that are not finite disqualify their state alone."""
        count = len(prediction.latent)
        spread, disagreement = _flat(score.spread, count), _flat(prediction.disagreement, count)
        own, value, done, qualified, ended = judge(
            _flat(score.value, count),
            spread,
            disagreement,
            _flat(prediction.done, count),
            finite_rows(prediction.latent),
            (float(self.pessimism), float(self.disagreement), float(self.terminal)),
        )
        return Judgement(own, value, spread, done, disagreement, qualified, ended)


def _flat(numbers: np.ndarray, count: int) -> np.ndarray:
    """As ``float64 [count]``. Compiled loops do not look where an array ends, so that this must."""
    flat = np.ascontiguousarray(numbers, np.float64).reshape(-1)
    return flat if flat.size == count else np.array(np.broadcast_to(flat, (count,)))
