"""A latent learned from images and outcomes: encoder, one-member dynamics and value trained together.

Its first numbers are the ways to the next grasp and to the end of the task, which successful episodes tell in
hindsight; in the others these places at least stay where they are. The next says whether something is held.
With privileged supervision the poses of two objects follow. For the other numbers the encoder must make the
next latent predictable (joint embedding prediction), tell how the episode ends (value), and know which chunk
led from one latent to the next (inverse dynamics). A Gaussian sketch of them (after SIGReg, Balestriero and
LeCun 2025, arXiv 2511.08544) keeps them from collapsing.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...text import text_features
from ...world_models.dynamics import ChunkDynamics
from ...world_models.encoder import ObservationEncoder
from .dataset import EpisodeSet
from .hindsight import Hindsight
from .layout import Layout, near_weight
from .loop import Loss, mixed_precision
from .poses import pose_error


class JointModel(nn.Module):
    """Encoder with the heads that supervise it; only the encoder outlives training."""

    def __init__(self, encoder: ObservationEncoder, horizon: int, action_size: int) -> None:
        super().__init__()
        size = encoder.latent_size
        self.encoder = encoder
        self.dynamics = ChunkDynamics(size, 0, horizon, action_size, members=1)
        self.value = nn.Sequential(nn.Linear(size, 256), nn.SiLU(), nn.Linear(256, 1))
        self.inverse = nn.Sequential(
            nn.Linear(2 * size, 256), nn.SiLU(), nn.Linear(256, horizon * action_size)
        )


def gaussian_sketch(latent: Tensor, generator: torch.Generator, directions: int = 64) -> Tensor:
    """Epps-Pulley distance between random projections of ``latent [M, F]`` and the standard normal
    distribution."""
    axes = F.normalize(torch.randn(latent.shape[1], directions, generator=generator), dim=0)
    points = torch.linspace(-4, 4, 17)
    phase = (latent @ axes)[..., None] * points
    normal = torch.exp(-0.5 * points.square())
    gap = (phase.cos().mean(0) - normal).square() + phase.sin().mean(0).square()
    return (gap * normal).mean()


def standardise_ways(
    encoder: ObservationEncoder, data: EpisodeSet, layout: Layout, afterwards: Hindsight
) -> None:
    """Gives the encoder the scales of the ways and of the places that they lead to."""
    for column, place in enumerate(range(layout.ways.start, layout.ways.stop)):
        rows = np.flatnonzero(afterwards.known[:, column])
        way = afterwards.way[rows, column]
        where = data.proprioception[rows, column % 3] + way
        encoder.std[place] = max(float(way.std()), 0.02) if len(rows) else 0.1
        encoder.place_mean[column] = float(where.mean()) if len(rows) else 0.0
        encoder.place_std[column] = max(float(where.std()), 0.02) if len(rows) else 0.1


def place_drift(way: Tensor, gripper: Tensor, scale: Tensor) -> Tensor:
    """How far the places move from the first of two frames to the second, ``[B, 6]`` in latent units.

    Args:
        way: Ways to the places, latent units ``[2, B, 6]``.
        gripper: Where the gripper is, metres ``[2, B, 3]``.
        scale: Metres in a latent unit, ``[6]``.
    """
    return way[1] - way[0] + (gripper[1] - gripper[0]).repeat(1, 2) / scale


def joint_loss(
    data: EpisodeSet,
    encoder: ObservationEncoder,
    layout: Layout,
    afterwards: Hindsight,
    *,
    horizon: int,
    batch: int,
    discount: float,
) -> Loss:
    """Loss of a ``JointModel`` around ``encoder`` on pairs of frames one chunk apart.

    Where nothing is told, in episodes that failed, places are at least the same in both frames: that of the
    grasp while nothing is held, that of the end always.
    """
    frame_of = np.full(len(data.step), -1)
    frame_of[data.frame_state] = np.arange(len(data.frame_state))
    after = data.after(data.frame_state, horizon)
    first = np.flatnonzero((frame_of[after] >= 0) & data.complete(data.frame_state, horizon))
    episode = data.episode[data.frame_state]
    remaining = data.length[episode] - data.step[data.frame_state]
    label = torch.from_numpy((data.success[episode] * discount**remaining).astype(np.float32))
    words = text_features(data.instructions)[data.instruction[episode]]
    body = torch.from_numpy(data.proprioception[data.frame_state])
    images = {name: torch.from_numpy(image) for name, image in data.images.items()}
    chunks = torch.from_numpy(data.chunks(data.frame_state, horizon))
    way = torch.from_numpy(afterwards.way[data.frame_state])
    known = torch.from_numpy(afterwards.known[data.frame_state].astype(np.float32))
    column = torch.tensor([3.0] * 3 + [1.0] * 3)
    known = known * near_weight(way[:, :3])[:, None] * column
    held = torch.from_numpy(afterwards.held[data.frame_state].astype(np.float32))
    sure = torch.from_numpy(afterwards.sure[data.frame_state].astype(np.float32))
    empty = (held == 0) & (sure > 0)
    posed = None if layout.poses is None else pose_error(encoder, data, layout.poses)

    def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
        assert isinstance(module, JointModel)
        rows = first[torch.randint(len(first), (batch,), generator=generator).numpy()]
        following = frame_of[after[rows]]
        both = np.concatenate([rows, following])
        with mixed_precision():
            latent = module.encoder(
                {name: image[both] for name, image in images.items()}, body[both], words[both]
            )
        latent = latent.float()
        now, then = latent.chunk(2)
        predicted = module.dynamics(now[None], chunks[rows])[0][0]
        prediction = F.smooth_l1_loss(predicted, then, beta=0.1)
        outcome = F.binary_cross_entropy_with_logits(module.value(latent).squeeze(-1), label[both])
        imagined = F.binary_cross_entropy_with_logits(module.value(predicted).squeeze(-1), label[following])
        inverse = F.mse_loss(module.inverse(torch.cat([now, then], dim=-1)), chunks[rows].flatten(1))
        sketch = gaussian_sketch(latent[:, layout.free], generator)
        told = F.smooth_l1_loss(
            latent[:, layout.ways], way[both] / module.encoder.std[layout.ways], beta=0.05, reduction="none"
        )
        told = (told * known[both]).mean()
        holds = latent[:, layout.held].clamp(1e-4, 1 - 1e-4)
        told = told + (F.binary_cross_entropy(holds, held[both], reduction="none") * sure[both]).mean()
        pair = both.reshape(2, -1)
        drift = place_drift(
            latent[:, layout.ways].unflatten(0, (2, -1)), body[pair][..., :3], module.encoder.std[layout.ways]
        )
        resting = empty[pair].all(0)[:, None] | (column == 1.0)
        steady = F.smooth_l1_loss(drift, torch.zeros_like(drift), beta=0.05, reduction="none")
        steady = (steady * resting).mean()
        known_poses = torch.zeros(()) if posed is None else posed(latent, both)
        return prediction + outcome + imagined + 0.3 * inverse + 5 * sketch + told + steady + known_poses

    return loss
