"""The last look at an action chunk before a robot executes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError
from .checks import finite_rows


@dataclass(frozen=True, eq=False)
class GuardReport:
    """What the guard did to a batch of chunks.

    Attributes:
        chunk: ``float32 [B, H, A]``; a rejected row is left as it came.
        clipped: ``bool [B]``, whether a number was moved into the bounds from beyond the tolerance.
        rejected: ``bool [B]``, whether the row must not be executed.
        reason: One phrase per row, empty where there was nothing to say.
    """

    chunk: np.ndarray
    clipped: np.ndarray
    rejected: np.ndarray
    reason: tuple[str, ...]


class Guard:
    """Keeps chunks finite and inside the bounds of an action.

    Args:
        action_spec: The bounds, and which numbers are binary grippers.
        clip: Move numbers into the bounds. False rejects a chunk that leaves them.
        tolerance: How far outside, in environment units, still counts as inside (the rounding of a policy's
            own normalisation). Such numbers are moved to the bound without a word.
    """

    def __init__(self, action_spec: ActionSpec, *, clip: bool = True, tolerance: float = 1e-3) -> None:
        if not tolerance >= 0:
            raise ForethoughtError(
                f"The guard's tolerance must be 0 or more, in environment units; got {tolerance}."
            )
        self.action_spec = action_spec
        self.clip = clip
        self.tolerance = tolerance

    def check(self, chunks: np.ndarray) -> GuardReport:
        """Report on chunks ``[B, H, A]``."""
        spec = self.action_spec
        broken = ~finite_rows(chunks)
        inside = (chunks >= spec.low - self.tolerance) & (chunks <= spec.high + self.tolerance)
        outside = ~broken & ~inside.reshape(len(chunks), -1).all(axis=-1)
        rejected = broken if self.clip else broken | outside
        checked = np.array(chunks, np.float32)
        checked[~rejected] = spec.clip(checked[~rejected])
        reason = np.full(len(chunks), "", dtype=object)
        reason[broken] = "NaN or infinity in the action"
        reason[outside] = "clipped to the action bounds" if self.clip else "outside the action bounds"
        return GuardReport(checked, outside & ~rejected, rejected, tuple(reason))
