"""Imitation by nearest neighbours: the mean of what was done in the most similar recorded states.

A policy without a policy network (VINN; Pari et al. 2021, arXiv 2112.01511), on the same encoder and memory
that search draws proposals from. Beside a planner with retrieved proposals it tells how much of the success
is the memory's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation
from ...planner import running_averages
from ..models import Models, find_folder, load_models


class NeighboursPolicy:
    """Executes the mean over the nearest successful states; further samples are single neighbours' chunks.

    Deterministic: seeds change nothing.

    Attributes:
        action_spec: What the numbers of an action mean.
        horizon: Chunk length H in control steps.
        cameras: Cameras that an observation must have.
        neighbours: How many chunks are averaged.
    """

    def __init__(self, models: Models, action_spec: ActionSpec, horizon: int, neighbours: int = 16) -> None:
        if neighbours < 1:
            raise ForethoughtError(f"neighbours must be at least 1; got {neighbours}.")
        self.action_spec, self.horizon, self.neighbours = action_spec, horizon, neighbours
        self.cameras = models.cameras
        self._encoder, self._memory = models.world_model, models.memory

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        """N chunks per row, ``[B, N, H, A]``; see ``Policy.propose``."""
        del seeds
        most = max(self.neighbours, n - 1)
        found = self._memory.nearest(self._encoder.encode(observation), observation.instruction, most)
        mean = running_averages(found, self.action_spec)[:, self.neighbours - 1, None]
        return ActionSamples(chunks=np.concatenate([mean, self.action_spec.clip(found)], axis=1)[:, :n])

    def act(self, observation: Observation) -> np.ndarray:
        """The chunk to execute, ``float32 [B, H, A]``."""
        return self.propose(observation, 1, np.zeros(observation.batch, np.int64)).chunks[:, 0]


def load(folder: str | Path, neighbours: int = 16) -> NeighboursPolicy:
    """The policy on encoder and memory of a models folder.

    Args:
        folder: Where ``forethought train models`` wrote them, or the name of a shipped folder.
        neighbours: How many chunks are averaged.

    Raises:
        ForethoughtError: The folder has no memory, or does not say what its actions mean.
    """
    models = load_models(folder)
    if models.memory is None or models.action_spec is None or models.horizon is None:
        raise ForethoughtError(
            f"{find_folder(folder)} holds no retrieval memory, or does not say what its chunks mean (action, "
            "horizon in config.json). Give a folder that `forethought train models` wrote."
        )
    return NeighboursPolicy(models, models.action_spec, models.horizon, neighbours)
