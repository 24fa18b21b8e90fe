"""Object poses from the simulator as targets of an encoder: privileged supervision, in training only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...text import text_features
from ...world_models.encoder import (
    PROPRIOCEPTION_FEATURES,
    ObservationEncoder,
    privileged_features,
    proprioception_features,
    random_shift,
)
from .dataset import EpisodeSet
from .layout import near_weight
from .loop import Loss, mixed_precision

PoseError: TypeAlias = Callable[[Tensor, np.ndarray | Tensor], Tensor]
"""From latents ``[B, D]`` of frames ``int64 [B]`` to the mean error of their poses."""


def physical_states(data: EpisodeSet) -> Tensor:
    """Proprioception and object features of every state in physical units, ``[S, 29]``."""
    assert data.privileged is not None
    body = torch.from_numpy(data.proprioception)
    objects = privileged_features(body, torch.from_numpy(data.privileged))
    return torch.cat([proprioception_features(body), objects], dim=-1)


def standardise_poses(encoder: ObservationEncoder, data: EpisodeSet, poses: slice) -> None:
    """Gives the encoder mean and scale of the poses' numbers."""
    objects = physical_states(data)[:, PROPRIOCEPTION_FEATURES:]
    floor = torch.tensor([0.02] * 3 + [0.2] * 6).repeat(2)
    encoder.mean[poses] = objects.mean(0)
    encoder.std[poses] = torch.maximum(objects.std(0), floor)


def pose_targets(encoder: ObservationEncoder, data: EpisodeSet, poses: slice) -> Tensor:
    """Standardised poses of every frame, ``[F, 18]``."""
    objects = physical_states(data)[torch.from_numpy(data.frame_state), PROPRIOCEPTION_FEATURES:]
    return (objects - encoder.mean[poses]) / encoder.std[poses]


def pose_error(encoder: ObservationEncoder, data: EpisodeSet, poses: slice) -> PoseError:
    """Smooth L1 of the poses in a latent, weighted by number and by how near the first object is."""
    target = pose_targets(encoder, data, poses)
    objects = physical_states(data)[torch.from_numpy(data.frame_state), PROPRIOCEPTION_FEATURES:]
    weight = near_weight(objects[:, :3])
    column = torch.tensor(([3.0] * 3 + [0.5] * 6) * 2)

    def error(latent: Tensor, frames: np.ndarray | Tensor) -> Tensor:
        apart = F.smooth_l1_loss(latent[:, poses].float(), target[frames], beta=0.05, reduction="none")
        return (apart * column * weight[frames, None]).mean()

    return error


def pose_loss(data: EpisodeSet, encoder: ObservationEncoder, poses: slice, batch: int, shift: int) -> Loss:
    """Loss of an encoder that tells poses and nothing else."""
    error = pose_error(encoder, data, poses)
    body = torch.from_numpy(data.proprioception[data.frame_state])
    words = text_features(data.instructions)[data.instruction[data.episode[data.frame_state]]]
    images = {name: torch.from_numpy(image) for name, image in data.images.items()}

    def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
        pick = torch.randint(len(body), (batch,), generator=generator)
        seen = {name: image[pick] for name, image in images.items()}
        if shift:
            seen = {name: random_shift(image, generator, shift) for name, image in seen.items()}
        with mixed_precision():
            latent = module(seen, body[pick], words[pick])
        return error(latent, pick)

    return loss
