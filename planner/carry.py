"""What one decision leaves to the next: the rest of its best sequences, where the world went as imagined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..interfaces import Latent


@dataclass(frozen=True, eq=False)
class Leftover:
    """The best sequences of one row's decision, and what its chosen chunk was expected to do.

    Attributes:
        rest: Chunks after the first, ``float32 [c, d-1, H, A]``.
        before: Latent at the decision, ``[1, ...]``.
        expected: Latent after the chunk that was decided on, ``[1, ...]``.
        instruction: The task.
    """

    rest: np.ndarray
    before: Latent
    expected: Latent
    instruction: str

    def continues(self, latent: Latent, instruction: str, tolerance: float) -> bool:
        """Whether the next decision, at a latent ``[1, ...]``, goes on from here: the same instruction, and
        the error of the prediction is at most ``tolerance`` times the motion that was predicted, root mean
        square.

        A new episode jumps further from the prediction than one chunk moves, so two episodes do not mix.
        Latents that are not arrays of numbers cannot be compared: nothing continues.
        """
        before, expected, observed = (_numbers(state) for state in (self.before, self.expected, latent))
        if instruction != self.instruction or before is None or expected is None or observed is None:
            return False
        if observed.shape != expected.shape:
            return False
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.sqrt(((observed - expected) ** 2).mean())
            motion = np.sqrt(((expected - before) ** 2).mean())
            return bool(error <= tolerance * motion + 1e-9)


@dataclass(eq=False)
class Carried:
    """What every row left, by the row's name.

    Attributes:
        rows: Leftovers by name.
        batch: Rows of the last batch without names; 0 before one.
    """

    rows: dict[int, Leftover] = field(default_factory=dict)
    batch: int = 0

    def forget(self, names: Sequence[int] | None = None) -> None:
        """Drop what all rows left, or what some did."""
        for name in list(self.rows) if names is None else names:
            self.rows.pop(int(name), None)

    def same_rows(self, batch: int) -> None:
        """Batches of another size hold other rows."""
        if batch != self.batch:
            self.forget()
        self.batch = batch

    def taken(
        self, names: Sequence[int], latent: Latent, instruction: Sequence[str], tolerance: float
    ) -> list[np.ndarray | None]:
        """What the named rows go on with at latents ``[B, ...]``, ``float32 [c, d-1, H, A]`` or None each.
        They leave it for good."""
        rests: list[np.ndarray | None] = [None] * len(names)
        for row, name in enumerate(names):
            left = self.rows.pop(name, None)
            if left is not None and left.continues(latent[np.array([row])], instruction[row], tolerance):
                rests[row] = left.rest
        return rests


def _numbers(latent: Latent) -> np.ndarray | None:
    """A latent as ``float64``, or None where it is an object."""
    if not isinstance(latent, np.ndarray):
        latent = latent.detach().double().cpu().numpy()
    return None if latent.dtype == object else latent.astype(np.float64)
