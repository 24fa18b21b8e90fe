"""A learned world model that is told where everything is, in place of looking.

Between the learned model and the simulator as world model: perception without error, dynamics as learned. It
is told what no robot knows: a measurement of where success is lost, not of what a robot would do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..interfaces import ForethoughtError, ImaginationCost, Latent, Observation, Prediction
from . import latent as learned


class State(Protocol):
    """The part of an environment that tells its state."""

    def proprioception(self) -> np.ndarray:
        """``float32 [P]``."""
        ...

    def privileged_state(self) -> np.ndarray:
        """``float32 [S]``."""
        ...


class ToldWorldModel:
    """The latent world model ``inner``, its first latent from the attached environment's state (B = 1).

    Attributes:
        inner: Imagines.
        privileged_supervision: As ``inner``'s.
        cost: That of ``inner``.

    Raises:
        ForethoughtError: The model's latent holds more than poses.
    """

    def __init__(self, inner: learned.LatentWorldModel) -> None:
        if not inner.reads_states:
            raise ForethoughtError(
                "A simulator state says only part of what this model's latent holds, so it cannot be told. "
                "Use models trained with privileged_supervision=true in_hindsight=false."
            )
        self.inner = inner
        self.cameras, self.horizon, self.action_size = inner.cameras, inner.horizon, inner.action_size
        self.privileged_supervision = inner.privileged_supervision
        self.cost: ImaginationCost = inner.cost
        self._state: State | None = None

    def attach(self, env: State) -> None:
        """Be told this environment's state from now on. Whoever runs the episode calls it once per
        environment."""
        self._state = env

    def encode(self, observation: Observation) -> Latent:
        """The attached environment's latent ``[1, E, D]``; the observation only gives the instruction."""
        if self._state is None:
            raise ForethoughtError(
                "This world model has no environment to be told the state of; call attach(env) with the "
                "environment of the running episode before planning."
            )
        if observation.batch != 1:
            raise ForethoughtError(
                f"One environment tells its state, and the observation shows {observation.batch}. Plan one "
                "environment at a time (B = 1)."
            )
        body, state = self._state.proprioception()[None], self._state.privileged_state()[None]
        told = torch.from_numpy(self.inner.embed_state(body, state, observation.instruction))
        return self.inner.particles(told.to(self.inner.device))

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """What ``inner`` imagines."""
        return self.inner.step(latent, chunks)


def load(folder: str | Path, device: str = "cpu") -> ToldWorldModel:
    """The latent world model in a models folder, to be told what it would otherwise see."""
    return ToldWorldModel(learned.load(folder, device))
