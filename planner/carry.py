"""What one decision leaves to the next: the rest of its best sequences, where the world went as imagined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..interfaces import Latent


@dataclass(frozen=True, eq=False)
class Leftover:
    """The best sequences of a decision, and what its chosen chunk was expected to do.

    Attributes:
        rest: Chunks after the first, ``float32 [B, c, d-1, H, A]``.
        before: Latents at the decision, ``[B, ...]``.
        expected: Latents after the chunk that was decided on, ``[B, ...]``.
        instruction: B strings.
        valid: Rows that have something to carry, ``bool [B]``.
    """

    rest: np.ndarray
    before: Latent
    expected: Latent
    instruction: tuple[str, ...]
    valid: np.ndarray

    def rows(self, latent: Latent, instruction: tuple[str, ...], tolerance: float) -> np.ndarray:
        """Which rows the next decision continues, ``bool [B]``: the same instruction, and the error of the
        prediction is at most ``tolerance`` times the motion that was predicted, root mean square.

        A new episode jumps further from the prediction than one chunk moves, so two episodes do not mix.
        Latents that are not arrays of numbers cannot be compared: nothing continues.
        """
        batch = len(self.instruction)
        if len(instruction) != batch or len(latent) != batch:
            return np.zeros(len(latent), bool)
        before, expected, observed = (_numbers(state) for state in (self.before, self.expected, latent))
        if before is None or expected is None or observed is None:
            return np.zeros(batch, bool)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.sqrt(((observed - expected) ** 2).mean(axis=1))
            motion = np.sqrt(((expected - before) ** 2).mean(axis=1))
            near = error <= tolerance * motion + 1e-9
        same = np.array([old == new for old, new in zip(self.instruction, instruction)])
        return self.valid & same & near


def _numbers(latent: Latent) -> np.ndarray | None:
    """Latents as ``float64 [B, L]``, or None where they are objects."""
    if not isinstance(latent, np.ndarray):
        latent = latent.detach().double().cpu().numpy()
    if latent.dtype == object:
        return None
    return latent.astype(np.float64).reshape(len(latent), -1)
