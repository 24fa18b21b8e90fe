"""The memories of a committee's members as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..interfaces import ForethoughtError, Latent
from ..weights import load_weights
from .retrieval import FILE, RetrievalMemory
from .retrieval import load as load_member

VALUE_FILE = "value.safetensors"


class CommitteeMemory:
    """Chunks of successful offline states, found by each member of a ``Committee`` in its own latent.

    Args:
        members: The memories, in the order of the committee; None for a member without one.
        sizes: Numbers of each member's latent; None: they are those of the memories' keys.

    Raises:
        ForethoughtError: There is no memory, they hold chunks of several shapes, or a size is not known.
    """

    def __init__(self, members: Sequence[RetrievalMemory | None], sizes: Sequence[int] | None = None) -> None:
        self.members = tuple(members)
        self._some = [memory for memory in members if memory is not None]
        if not self._some:
            raise ForethoughtError(
                "A memory of a committee needs the memory of one member at least; got none."
            )
        shapes = {memory.chunks.shape[1:] for memory in self._some}
        if len(shapes) > 1:
            raise ForethoughtError(
                f"The memories of a committee must hold chunks of one shape; got [H, A] {sorted(shapes)}. "
                "Train their models with the same horizon."
            )
        if sizes is None and len(self._some) < len(self.members):
            raise ForethoughtError("A committee with a member that has no memory needs the sizes of latents.")
        self._sizes = [memory.keys.shape[1] for memory in self._some] if sizes is None else list(sizes)

    def nearest(self, latent: Latent, instruction: Sequence[str], k: int) -> np.ndarray:
        """Chunks ``[B, k, H, A]`` of nearest states with the same instruction: the nearest of each member,
        then the second of each, and so on. See ``RetrievalMemory.nearest``."""
        parts = torch.as_tensor(latent).split(self._sizes, dim=-1)
        each = -(-k // len(self._some))
        found = [
            memory.nearest(part, instruction, each)
            for memory, part in zip(self.members, parts, strict=True)
            if memory is not None
        ]
        rows, _, *chunk = found[0].shape
        return np.stack(found, axis=2).reshape(rows, each * len(found), *chunk)[:, :k]

    def all_chunks(self) -> np.ndarray:
        """Every chunk of every memory, ``float32 [n, H, A]``."""
        return np.concatenate([memory.all_chunks() for memory in self._some])


def load(folder: str | Path = ".", members: Sequence[str | Path] = ()) -> CommitteeMemory:
    """The memories in several models folders, in the order of the committee. A folder without one is passed
    over; its value then says how long its latents are.

    Args:
        folder: What relative paths are relative to.
        members: Models folders.

    Raises:
        ForethoughtError: No folder holds a memory, or they do not fit together.
    """
    memories, sizes = [], []
    for member in members:
        path = Path(folder) / member
        memory = load_member(path) if (path / FILE).is_file() else None
        memories.append(memory)
        if memory is None:
            sizes.append(int(load_weights(path / VALUE_FILE, "value")[0]["shape"]["latent_size"]))
        else:
            sizes.append(memory.keys.shape[1])
    return CommitteeMemory(memories, sizes)
