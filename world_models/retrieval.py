"""A memory of what worked: action chunks that successful episodes executed, found by the state they were
executed in.

The planner centres kernels on the chunks of the nearest states, so that its proposals contain what the
policy would never sample. Keys are world-model latents, looked up with scikit-learn among entries of the
same instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from ..interfaces import ForethoughtError, Latent
from ..weights import load_weights, save_weights

FILE = "memory.safetensors"


class RetrievalMemory:
    """Chunks of successful offline states.

    Attributes:
        keys: Latents of the states, ``float32 [n, D]``.
        chunks: What was executed there, ``float32 [n, H, A]``, environment units.
        task: Index into ``instructions`` of each entry, ``int64 [n]``.
        instructions: The instructions that the memory knows.
        weights: Weight of each latent number in the distance, ``float32 [D]``.
    """

    def __init__(
        self,
        keys: np.ndarray,
        chunks: np.ndarray,
        task: np.ndarray,
        instructions: Sequence[str],
        weights: np.ndarray,
    ) -> None:
        if not len(keys) or len({len(keys), len(chunks), len(task)}) != 1 or keys.shape[1:] != weights.shape:
            raise ForethoughtError(
                "A retrieval memory needs keys [n, D], chunks [n, H, A], task [n] and weights [D] with "
                "n > 0; got "
                f"{keys.shape}, {chunks.shape}, {task.shape}, {weights.shape}."
            )
        self.keys, self.chunks = np.asarray(keys, np.float32), np.asarray(chunks, np.float32)
        self.task, self.weights = np.asarray(task, np.int64), np.asarray(weights, np.float32)
        self.instructions = tuple(instructions)
        self._rows = {
            text: np.flatnonzero(self.task == index) for index, text in enumerate(self.instructions)
        }
        self._indices: dict[str, NearestNeighbors] = {}

    def nearest(self, latent: Latent, instruction: Sequence[str], k: int) -> np.ndarray:
        """Chunks of the k nearest states with the same instruction, nearest first.

        An instruction that the memory does not know searches all entries; with fewer than k entries the
        nearest repeat.

        Args:
            latent: ``[B, D]``, ``[B, E, D]`` (particles are averaged), or simulator states with an
                ``embedding``.
            instruction: B instructions.
            k: How many.

        Returns:
            ``float32 [B, k, H, A]``, environment units.
        """
        query = _vectors(latent)
        found = np.empty((len(query), k, *self.chunks.shape[1:]), np.float32)
        for row, text in enumerate(instruction):
            rows = self._rows.get(text)
            if rows is None or not len(rows):
                text, rows = "", np.arange(len(self.keys))
            if text not in self._indices:
                self._indices[text] = NearestNeighbors(algorithm="brute").fit(self.keys[rows] * self.weights)
            count = min(k, len(rows))
            near = self._indices[text].kneighbors(
                query[row : row + 1] * self.weights, count, return_distance=False
            )[0]
            found[row] = self.chunks[rows[near[np.arange(k) % count]]]
        return found

    def all_chunks(self) -> np.ndarray:
        """Every chunk of the memory, ``float32 [n, H, A]``: the paper's state-independent offline set."""
        return self.chunks

    def save(self, folder: Path) -> None:
        """Writes ``memory.safetensors``."""
        header = {"instructions": list(self.instructions)}
        tensors = {
            "keys": torch.from_numpy(self.keys),
            "chunks": torch.from_numpy(self.chunks),
            "task": torch.from_numpy(self.task),
            "weights": torch.from_numpy(self.weights),
        }
        save_weights(folder / FILE, "retrieval", header, tensors)


def _vectors(latent: Latent) -> np.ndarray:
    if isinstance(latent, np.ndarray) and latent.dtype == object:
        return np.stack([state.embedding for state in latent]).astype(np.float32)
    vectors = torch.as_tensor(latent).float().cpu().numpy()
    return vectors.mean(axis=1) if vectors.ndim == 3 else vectors


def load(folder: str | Path) -> RetrievalMemory:
    """The memory in a models folder.

    Raises:
        ForethoughtError: The file is missing or holds something else.
    """
    header, state = load_weights(Path(folder) / FILE, "retrieval")
    arrays = {name: tensor.numpy() for name, tensor in state.items() if name != "task"}
    return RetrievalMemory(task=state["task"].numpy(), instructions=header["instructions"], **arrays)
