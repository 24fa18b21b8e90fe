"""A learned value read at the simulator's own states: the reward model beside the simulator as world model.

Each state carries its embedding in the latent space on which the value was trained, so simulator and learned
model are judged by the same value. A state in which the simulator saw success is worth 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..interfaces import ForethoughtError, Latent, RewardModel, Score
from . import value as learned


class SimulatedValue:
    """``value`` on the ``embedding`` of simulator states, 1 where ``success`` holds."""

    def __init__(self, value: RewardModel) -> None:
        self.value = value

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        """See ``RewardModel.score``; ``latent`` is an object array ``[M]`` of states with ``embedding`` and
        ``success``."""
        states = list(np.asarray(latent, dtype=object))
        if any(getattr(state, "embedding", None) is None for state in states):
            raise ForethoughtError(
                "Simulator states carry no embedding, so a learned value cannot score them. Give "
                "SimulatorWorldModel "
                "an `embed` function (the latent world model's embed_state)."
            )
        score = self.value.score(
            torch.from_numpy(np.stack([state.embedding for state in states])), instruction
        )
        success = np.array([bool(state.success) for state in states])
        return Score(
            value=np.where(success, np.float32(1), score.value).astype(np.float32),
            spread=np.where(success, np.float32(0), score.spread).astype(np.float32),
        )


def load(folder: str | Path, file: str = "value.safetensors") -> SimulatedValue:
    """The value in a models folder, to be read at simulator states."""
    return SimulatedValue(learned.load(folder, file))
