"""Something to imagine PushT with: the finger goes where it is told, and should come to the middle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from forethought import ActionSpec, Models, Observation, Prediction, Score


class Finger:
    """The latent is where the finger is, in pixels of the table, ``[M, 2]``."""

    def encode(self, observation: Observation) -> np.ndarray:
        return observation.proprioception[:, :2]

    def step(self, latent: Any, chunks: np.ndarray) -> Prediction:
        zeros = np.zeros(len(chunks), np.float32)
        return Prediction(chunks[:, -1].astype(np.float32), zeros, zeros)


class Middle:
    """The nearer to the middle, the better."""

    def score(self, latent: Any, instruction: Sequence[str]) -> Score:
        value = np.exp(-np.linalg.norm(np.asarray(latent) - 256.0, axis=-1) / 100.0).astype(np.float32)
        return Score(value, np.zeros_like(value))


def load() -> Models:
    spec = ActionSpec(low=np.zeros(2), high=np.full(2, 512.0), position=(0, 1))
    return Models(Finger(), Middle(), horizon=8, cameras=("image",), action_spec=spec)
