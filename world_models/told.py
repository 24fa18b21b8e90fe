"""A learned world model that is told where everything is, in place of looking.

Between the learned model and the simulator as world model: perception without error, dynamics as learned. It
is told what no robot knows: a measurement of where success is lost, not of what a robot would do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..interfaces import ImaginationCost, Latent, Observation, Prediction
from . import latent as learned
from .simulator import Attached


class ToldWorldModel(Attached):
    """The latent world model ``inner``, its first latent from the attached environment's state (B = 1).

    Attributes:
        inner: Imagines.
        privileged_supervision: As ``inner``'s.
        cost: That of ``inner``.

    Raises:
        ForethoughtError: The model's latent holds more than poses.
    """

    def __init__(self, inner: learned.LatentWorldModel) -> None:
        inner.require_states()
        self.inner = inner
        self.cameras, self.horizon, self.action_size = inner.cameras, inner.horizon, inner.action_size
        self.privileged_supervision = inner.privileged_supervision
        self.cost: ImaginationCost = inner.cost

    def encode(self, observation: Observation) -> Latent:
        """The attached environment's latent ``[1, E, D]``; the observation only gives the instruction."""
        self._require_one(observation)
        simulator = self._attached()
        body, state = simulator.proprioception()[None], simulator.privileged_state()[None]
        told = torch.from_numpy(self.inner.embed_state(body, state, observation.instruction))
        return self.inner.particles(told.to(self.inner.device))

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """What ``inner`` imagines."""
        return self.inner.step(latent, chunks)


def load(folder: str | Path, device: str = "cpu") -> ToldWorldModel:
    """The latent world model in a models folder, to be told what it would otherwise see."""
    return ToldWorldModel(learned.load(folder, device))
