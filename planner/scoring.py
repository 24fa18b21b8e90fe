"""How a predicted state becomes the score of a node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..interfaces import ForethoughtError, Prediction, Score
from .settling import Said, judge
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
        numbers = np.array(self.said(prediction, score, len(prediction.latent)), np.float64)
        numbers[0, ~finite_rows(prediction.latent)] = np.nan
        own, scores, certain, qualified, ended = judge(numbers, self.weights)
        return Judgement(own, scores, numbers[1], certain, numbers[2], qualified, ended)

    @property
    def weights(self) -> tuple[float, float, float]:
        """Pessimism, the weight of the disagreement, and the done-probability that ends."""
        return float(self.pessimism), float(self.disagreement), float(self.terminal)

    @staticmethod
    def said(prediction: Prediction, score: Score, count: int) -> Said:
        """What the models said of so many states: their own arrays where compiled loops can read them, copies
        where not. Compiled loops do not look where an array ends; that there are as many is made sure of
        here."""
        value, spread = score.value, score.spread
        disagreement, done = prediction.disagreement, prediction.done
        said = value, spread, disagreement, done
        # All at once: a loop over the four takes half as long again.
        if (
            type(value) is type(spread) is type(disagreement) is type(done) is np.ndarray
            and value.dtype is spread.dtype is disagreement.dtype is done.dtype is FLOAT32
            and value.shape == spread.shape == disagreement.shape == done.shape == (count,)
            and value.flags.carray
            and spread.flags.carray
            and disagreement.flags.carray
            and done.flags.carray
        ):
            return said
        copies = np.empty((4, count))
        for copy, numbers in zip(copies, said):
            copy[:] = _flat(numbers)
        value, spread, disagreement, done = copies
        return value, spread, disagreement, done


FLOAT32 = np.dtype(np.float32)
"""That of native numbers is the one object."""


def _flat(numbers: np.ndarray) -> np.ndarray:
    """In one axis, or none."""
    return numbers if getattr(numbers, "ndim", 0) < 2 else numbers.reshape(-1)
