"""Actions as the last words of a language model's vocabulary (RT-2, arXiv 2307.15818; OpenVLA, 2406.09246).

Each number of an action, normalised to [-1, 1], falls into one of 255 bins; bin i is the token ``vocabulary -
1 - i``. One further token stands for the last bin too, and their probabilities add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..interfaces import ForethoughtError


@dataclass(frozen=True, eq=False)
class ActionTokens:
    """Tokens of normalised numbers.

    Attributes:
        vocabulary: Number of words, without what pads the embedding.
        centres: Middle of each bin, ``[C]``.
        unnormalise: From ``[..., A]`` in [-1, 1] to the policy's own units, number by number and linear.
    """

    vocabulary: int
    centres: np.ndarray
    unnormalise: Callable[[np.ndarray], np.ndarray]

    def log_probability(self, logits: Any) -> np.ndarray:
        """Log-probability of each bin, ``float64 [..., C]``, given that the next word is an action.

        Args:
            logits: Tensor ``[..., V]``.
        """
        first = self.vocabulary - 1 - len(self.centres)
        if logits.shape[-1] < self.vocabulary or first < 0:
            raise ForethoughtError(
                f"Expected logits over at least {self.vocabulary} words; got {list(logits.shape)}."
            )
        words = logits[..., first : self.vocabulary].detach().double().cpu().numpy()[..., ::-1]
        words = words - words.max(axis=-1, keepdims=True)
        words = words - np.log(np.exp(words).sum(axis=-1, keepdims=True))
        last = np.logaddexp(words[..., -2], words[..., -1])
        return np.concatenate([words[..., :-2], last[..., None]], axis=-1)

    def tokens(self, bins: np.ndarray) -> np.ndarray:
        """The word of each bin, ``int64``."""
        return self.vocabulary - 1 - bins

    def actions(self, bins: np.ndarray) -> np.ndarray:
        """Bins ``[..., A]`` in the policy's own units."""
        return self.unnormalise(self.centres[bins])

    def bins(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bins of actions ``[..., A]`` in the policy's units, and which of the A numbers can differ at all,
        ``bool [A]``."""
        low = np.asarray(self.unnormalise(np.full(actions.shape[-1], -1.0)), np.float64)
        high = np.asarray(self.unnormalise(np.full(actions.shape[-1], 1.0)), np.float64)
        moves = high > low + 1e-7
        normalised = 2.0 * (actions - low) / np.where(moves, high - low, 1.0) - 1.0
        return np.abs(normalised[..., None] - self.centres).argmin(axis=-1), moves


def drawn(log_probability: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Bins ``[...]`` from log-probabilities ``[..., C]`` and uniform numbers ``[...]`` (inverse of the
    distribution)."""
    cumulated = np.cumsum(np.exp(log_probability), axis=-1)
    below = cumulated < uniform[..., None] * cumulated[..., -1:]
    return np.minimum(below.sum(axis=-1), log_probability.shape[-1] - 1)


def taken(log_probability: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """The entries of ``[..., C]`` at bins ``[...]``."""
    return np.take_along_axis(log_probability, bins[..., None], axis=-1)[..., 0]
