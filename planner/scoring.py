"""How a predicted state becomes the score of a node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..interfaces import ForethoughtError, Prediction, Score
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
        done = np.asarray(prediction.done, np.float64).reshape(-1)
        disagreement = np.asarray(prediction.disagreement, np.float64).reshape(-1)
        value = np.asarray(score.value, np.float64).reshape(-1)
        spread = np.asarray(score.spread, np.float64).reshape(-1)
        certain = np.clip(done, 0.0, 1.0)
        alive = value - self.pessimism * spread - self.disagreement * disagreement
        good = (
            np.isfinite(alive)
            & np.isfinite(done)
            & np.isfinite(disagreement)
            & finite_rows(prediction.latent)
        )
        return Judgement(
            own=np.where(good, alive, -np.inf),
            # The end is absorbing and worth 1: the done-probability mixes that in.
            value=np.where(good, certain + (1.0 - certain) * alive, -np.inf),
            spread=spread,
            done=np.where(good, certain, 0.0),
            disagreement=disagreement,
            qualified=good,
            ended=~good | (certain >= self.terminal),
        )
