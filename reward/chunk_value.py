"""The value of a chunk in the state where it starts, with no prediction between them: how likely, and how
soon, an episode succeeds that begins there with this chunk.

It stands beside ``world_models.model_free`` to tell what the world model adds. Trained like the default
value (discounted success, failures included, cross-entropy, an ensemble) on recorded states and the chunks
that were executed there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interfaces import ForethoughtError, Latent, Score
from ..weights import load_weights, save_weights
from .value import ValueEnsemble, ValueModel

FILE = "chunk_value.safetensors"


def beside(latent: Tensor, chunk: Tensor) -> Tensor:
    """What the networks read: latents ``[..., D]`` and chunks ``[..., H, A]`` as ``[..., D + H·A]``."""
    return torch.cat([latent, chunk.flatten(-2)], dim=-1)


class ChunkValue:
    """A ``ValueEnsemble`` of ``beside`` as a ``RewardModel``.

    Args:
        network: Trained.
        scheme: Name of what it was trained by.
    """

    def __init__(self, network: ValueEnsemble, scheme: str) -> None:
        self.value, self.scheme = ValueModel(network, scheme), scheme

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        """See ``RewardModel.score``.

        Args:
            latent: Object array ``[M]`` of states with ``embedding [D]`` and ``chunk [H, A]``.
            instruction: M instructions.

        Raises:
            ForethoughtError: The states are others, have no chunk, or other sizes than in training.
        """
        objects = isinstance(latent, np.ndarray) and latent.dtype == object
        if not objects or any(not hasattr(state, "chunk") for state in latent):
            raise ForethoughtError(
                "A value of chunks scores a state with the chunk that starts there; this world model "
                "predicts what follows instead. Use world_model=model_free beside reward=chunk_value, or "
                "reward=value."
            )
        states: list[Any] = list(latent)
        if any(state.chunk is None for state in states):
            raise ForethoughtError(
                "A value of chunks cannot score a state alone, without a chunk. Leave gate_spread and "
                "gate_drop at null, and score what the world model's step returns."
            )
        embeddings = torch.from_numpy(np.stack([state.embedding for state in states]))
        inputs = beside(embeddings, torch.from_numpy(np.stack([state.chunk for state in states])))
        expected = self.value.network.shape["latent_size"]
        if inputs.shape[1] != expected:
            raise ForethoughtError(
                f"This value of chunks reads {expected} numbers; a latent of {embeddings.shape[1]} and a "
                f"chunk of {inputs.shape[1] - embeddings.shape[1]} were given. Take encoder and value from "
                "one models folder."
            )
        return self.value.score(inputs, instruction)

    def save(self, folder: Path) -> None:
        """Writes ``chunk_value.safetensors``."""
        network = self.value.network
        header = {"scheme": self.scheme, "shape": network.shape}
        save_weights(folder / FILE, "chunk_value", header, network.state_dict())


def load(folder: str | Path, file: str = FILE) -> ChunkValue:
    """The value of chunks in a models folder.

    Raises:
        ForethoughtError: The file is missing or holds something else.
    """
    path = Path(folder) / file
    if not path.is_file():
        raise ForethoughtError(
            f"No value of chunks at {path}. Train one: `forethought train models chunk_value=true` with the "
            "folder's other settings adds it."
        )
    header, state = load_weights(path, "chunk_value")
    network = ValueEnsemble(**header["shape"])
    network.load_state_dict(state)
    return ChunkValue(network, header["scheme"])
