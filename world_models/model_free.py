"""No world model: a chunk is considered in the state where it would start, and nothing is predicted.

The planner's usual parts then re-rank candidates by a value of state and chunk (``reward.chunk_value``): what
search is worth without imagination, everything else being equal. Only depth 1 makes sense, since no state
follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..interfaces import ForethoughtError, ImaginationCost, Latent, Observation, Prediction
from . import latent as learned
from .latent import LatentWorldModel


@dataclass(frozen=True, eq=False)
class Considered:
    """One latent: a state, and the chunk that is considered there.

    Attributes:
        embedding: Latent of the state, ``float32 [D]``: what a retrieval memory looks up.
        chunk: ``float32 [H, A]``, environment units; None in a state as it is seen.
    """

    embedding: np.ndarray
    chunk: np.ndarray | None = None


class ModelFree:
    """The latent world model's encoder behind the ``WorldModel`` protocol, without its dynamics. Latents are
    object arrays ``[M]`` of ``Considered``.

    Args:
        model: Whose encoder sees.

    Attributes:
        privileged_supervision: Whether simulator state supervised the training of the encoder.
        cameras: Cameras an observation must have.
        horizon: Chunk length H that the value was trained on.
        action_size: A.
        cost: The cheapest tier.
    """

    cost = ImaginationCost("vector")

    def __init__(self, model: LatentWorldModel) -> None:
        self.model = model
        self.privileged_supervision = model.privileged_supervision
        self.cameras, self.horizon, self.action_size = model.cameras, model.horizon, model.action_size

    def encode(self, observation: Observation) -> Latent:
        """States ``[B]`` without a chunk.

        Raises:
            ForethoughtError: See ``LatentWorldModel.encode``.
        """
        # All particles of an encoded observation are the same.
        embeddings = torch.as_tensor(self.model.encode(observation))[:, 0].float().cpu().numpy()
        return _as_array([Considered(embedding) for embedding in embeddings])

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """The states ``[M]`` with the chunks ``[M, H, A]`` beside them; nothing disagrees, nothing is done.

        Raises:
            ForethoughtError: The states have a chunk already, or the chunks another shape than in training.
        """
        states: list[Any] = list(latent)
        if any(state.chunk is not None for state in states):
            raise ForethoughtError(
                "Without a world model no state follows a chunk, so a second chunk cannot be considered. "
                "Search at depth 1 (planner.depth=1), or choose a world model that predicts "
                "(world_model=latent)."
            )
        if chunks.shape != (len(states), self.horizon, self.action_size):
            raise ForethoughtError(
                f"The value was trained on chunks [M, {self.horizon}, {self.action_size}]; got "
                f"{list(chunks.shape)} for M={len(states)} states. "
                "Plan with the chunk length that the models were trained on."
            )
        nothing = np.zeros(len(states), np.float32)
        following = [replace(state, chunk=chunk) for state, chunk in zip(states, chunks, strict=True)]
        return Prediction(_as_array(following), nothing, nothing)


def _as_array(states: Sequence[Considered]) -> np.ndarray:
    array = np.empty(len(states), object)
    array[:] = states
    return array


def load(folder: str | Path, device: str = "cpu") -> ModelFree:
    """The encoder of the latent world model in a models folder.

    Raises:
        ForethoughtError: The file is missing or holds something else.
    """
    return ModelFree(learned.load(folder, device))
