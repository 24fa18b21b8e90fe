"""The memories of a committee's members as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..interfaces import ForethoughtError, Latent
from .retrieval import RetrievalMemory
from .retrieval import load as load_member


class CommitteeMemory:
    """Chunks of successful offline states, found by each member of a ``Committee`` in its own latent.

    Attributes:
        members: The memories, in the order of the committee.
    """

    def __init__(self, members: Sequence[RetrievalMemory]) -> None:
        if not members:
            raise ForethoughtError(
                "A memory of a committee needs the memory of one member at least; got none."
            )
        shapes = {memory.chunks.shape[1:] for memory in members}
        if len(shapes) > 1:
            raise ForethoughtError(
                f"The memories of a committee must hold chunks of one shape; got [H, A] {sorted(shapes)}. "
                "Train their models with the same horizon."
            )
        self.members = tuple(members)
        self._sizes = [memory.keys.shape[1] for memory in members]

    def nearest(self, latent: Latent, instruction: Sequence[str], k: int) -> np.ndarray:
        """Chunks ``[B, k, H, A]`` of nearest states with the same instruction: the nearest of each member,
        then the second of each, and so on. See ``RetrievalMemory.nearest``."""
        parts = torch.as_tensor(latent).split(self._sizes, dim=-1)
        each = -(-k // len(self.members))
        found = [
            memory.nearest(part, instruction, each) for memory, part in zip(self.members, parts, strict=True)
        ]
        rows, _, *chunk = found[0].shape
        return np.stack(found, axis=2).reshape(rows, each * len(found), *chunk)[:, :k]

    def all_chunks(self) -> np.ndarray:
        """Every chunk of every memory, ``float32 [n, H, A]``."""
        return np.concatenate([memory.all_chunks() for memory in self.members])


def load(folder: str | Path = ".", members: Sequence[str | Path] = ()) -> CommitteeMemory:
    """The memories in several models folders, in the order of the committee.

    Args:
        folder: What relative paths are relative to.
        members: Models folders.

    Raises:
        ForethoughtError: A folder holds no memory, or they do not fit together.
    """
    return CommitteeMemory([load_member(Path(folder) / member) for member in members])
