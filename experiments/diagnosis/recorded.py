"""Recorded episodes as the models see them: latents and values at frames, and jumps between frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...interfaces import ForethoughtError, Latent, Observation, RewardModel, WorldModel
from ..training.dataset import EpisodeSet

BATCH = 256


@dataclass(frozen=True, eq=False)
class Recorded:
    """F frames of recorded episodes, and the P of them whose next chunk was recorded to its end.

    Attributes:
        data: The episodes.
        latent: State of each frame, ``[F, ...]``.
        value: Its value, ``float32 [F]``.
        start: Frame at which each jump starts, ``int64 [P]``.
        end: Frame one chunk later, ``int64 [P]``.
        chunks: What was executed between them, ``float32 [P, H, A]``.
    """

    data: EpisodeSet
    latent: Latent
    value: np.ndarray
    start: np.ndarray
    end: np.ndarray
    chunks: np.ndarray

    @property
    def episode(self) -> np.ndarray:
        """Episode of each frame, ``int64 [F]``."""
        return self.data.episode[self.data.frame_state]

    @property
    def step(self) -> np.ndarray:
        """Control step of each frame, ``int64 [F]``."""
        return self.data.step[self.data.frame_state]

    def instructions(self, frames: np.ndarray) -> list[str]:
        """Instruction of each of some frames."""
        return [self.data.instructions[index] for index in self.data.instruction[self.episode[frames]]]


def look(data: EpisodeSet, world_model: WorldModel, reward: RewardModel, horizon: int) -> Recorded:
    """Encodes and scores every frame.

    Raises:
        ForethoughtError: Episodes are all of one outcome, or no frame has another one a chunk later.
    """
    if data.success.all() or not data.success.any():
        raise ForethoughtError(
            f"All {len(data.length)} episodes {'succeeded' if data.success[0] else 'failed'}: whether a "
            "value tells success from failure can be measured on both only. Name rollouts of the policy, "
            "failures included."
        )
    frames = len(data.frame_state)
    episode = data.episode[data.frame_state]
    text = [data.instructions[index] for index in data.instruction[episode]]
    latents, values = [], []
    for first in range(0, frames, BATCH):
        rows = slice(first, min(first + BATCH, frames))
        latent = world_model.encode(
            Observation(
                images={name: image[rows] for name, image in data.images.items()},
                proprioception=data.proprioception[data.frame_state[rows]],
                instruction=tuple(text[rows]),
            )
        )
        latents.append(latent)
        values.append(np.asarray(reward.score(latent, text[rows]).value, np.float32))
    frame_of = np.full(len(data.step), -1)
    frame_of[data.frame_state] = np.arange(frames)
    after = frame_of[data.after(data.frame_state, horizon)]
    whole = data.step[data.frame_state] + horizon <= data.length[episode]
    start = np.flatnonzero((after >= 0) & whole)
    if not len(start):
        raise ForethoughtError(
            f"No frame of the episodes has another one {horizon} control steps later, which is what a jump "
            "of the world model needs. Collect with a frame every chunk: image_stride divides the "
            "horizon."
        )
    return Recorded(
        data=data,
        latent=join(latents),
        value=np.concatenate(values),
        start=start,
        end=after[start],
        chunks=data.chunks(data.frame_state[start], horizon),
    )


def join(parts: list[Any]) -> Any:
    """Latents one after another."""
    return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else np.concatenate(parts)


def vectors(latent: Latent) -> np.ndarray:
    """Latents as ``float64 [M, n]``; equal particles of an ensemble count once."""
    array = latent.detach().float().cpu().numpy() if isinstance(latent, torch.Tensor) else np.asarray(latent)
    if array.dtype == object:
        raise ForethoughtError(
            "The simulator as world model has no latent of numbers to look into; diagnose learned models."
        )
    array = np.asarray(array, np.float64)
    if array.ndim == 3 and np.array_equal(array, np.broadcast_to(array[:, :1], array.shape)):
        array = array[:, 0]
    return array.reshape(len(array), -1)
