"""What a video world model learns from: windows of recorded frames, and a loss for each of its parts."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...interfaces import ForethoughtError
from ...world_models.flow import FrameTransformer
from ...world_models.frames import FrameCodec
from ...world_models.video import VideoWorldModel
from .dataset import EpisodeSet
from .loop import Loss, mixed_precision

HELD_OUT = 10
"""Every tenth episode is only reported on."""

PURE_NOISE = 0.25
"""Share of training samples at the very beginning of the flow, which a single Euler step is all about."""


class Windows:
    """Frames from which a whole chunk of frames was recorded.

    Attributes:
        start: Frame at which each window begins, ``int64 [W]``.
        following: The frames of its chunk, ``int64 [W, F]``; past a success its last frame repeats.
        learn: Windows to learn from, ``int64``; the others are in ``judge``.
        episode: Episode of every *frame* of the data, ``int64``.
        horizon: Chunk length H, control steps.
    """

    def __init__(self, data: EpisodeSet, horizon: int, frames: int) -> None:
        if horizon % frames:
            raise ForethoughtError(
                f"A chunk of {horizon} steps cannot be cut into frames={frames} equal parts."
            )
        self.horizon = horizon
        frame_of = np.full(len(data.step), -1)
        frame_of[data.frame_state] = np.arange(len(data.frame_state))
        ahead = [horizon // frames * (index + 1) for index in range(frames)]
        following = np.stack([frame_of[data.after(data.frame_state, steps)] for steps in ahead], axis=1)
        usable = (following >= 0).all(axis=1) & data.complete(data.frame_state, horizon)
        left = data.length[data.episode[data.frame_state]] - data.step[data.frame_state]
        if not usable[left >= horizon].any():  # what is left then are frames that repeat the end
            usable[:] = False
        self.start = np.flatnonzero(usable)
        self.following = following[usable]
        self.episode = data.episode[data.frame_state]
        judged = self.episode[self.start] % HELD_OUT == HELD_OUT - 1
        if judged.all() or not judged.any():
            judged = np.arange(len(self.start)) % HELD_OUT == HELD_OUT - 1
        self.learn, self.judge = np.flatnonzero(~judged), np.flatnonzero(judged)
        if not len(self.learn) or not len(self.judge):
            raise ForethoughtError(
                f"The episodes hold {len(self.start)} chunks of {horizon} steps with a picture every "
                f"{horizon // frames}; a video model needs at least {HELD_OUT}. Set frames to horizon "
                "divided by the image_stride of the recording, or collect more."
            )


def _pick(pool: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    return pool[torch.randint(len(pool), (count,), generator=generator).numpy()]


def mosaics(codec: FrameCodec, data: EpisodeSet, frames: np.ndarray, device: str) -> Tensor:
    """Pictures of some frames as the codec takes them, ``[n, 3, size, size · cameras]``."""
    seen = {name: torch.from_numpy(image[frames]).to(device) for name, image in data.images.items()}
    return codec.mosaic(seen)


def codec_loss(data: EpisodeSet, batch: int, device: str) -> Loss:
    """Absolute and squared error; a little noise on the latents keeps near latents looking alike."""
    every = np.arange(len(data.frame_state))
    pool = every[np.isin(data.episode[data.frame_state] % HELD_OUT, [HELD_OUT - 1], invert=True)]
    pool = pool if len(pool) else every

    def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
        assert isinstance(module, FrameCodec)
        picture = mosaics(module, data, _pick(pool, batch, generator), device)
        with mixed_precision(device):
            latent = module.encode(picture)
            noise = torch.randn(latent.shape, generator=generator).to(latent.device)
            seen = module.decode(latent + 0.05 * latent.detach().std() * noise).float()
        return (
            (seen - picture).abs().mean() + (seen - picture).square().mean() + 1e-4 * latent.square().mean()
        )

    return loss


@torch.inference_mode()
def encode_pictures(codec: FrameCodec, data: EpisodeSet, device: str) -> Tensor:
    """Standardised latent pictures of all frames, ``float16 [F, C, h, w]``."""
    every = np.arange(len(data.frame_state))
    parts = [
        codec.encode(mosaics(codec, data, rows, device)).half().cpu()
        for rows in np.split(every, range(512, len(every), 512))
    ]
    return torch.cat(parts).clone()


def scale_changes(flow: FrameTransformer, windows: Windows, pictures: Tensor, own: Tensor) -> None:
    """The deviation of a change, so that what flows has about unit variance."""
    rows = windows.learn[:: max(1, len(windows.learn) // 2048)]
    last, first = windows.following[rows, -1], windows.start[rows]
    change = (pictures[last] - pictures[first]).float()
    flow.picture_scale.copy_(change.std(dim=(0, 2, 3)).clamp_min(0.05).view(-1, 1, 1))
    flow.body_scale.copy_((own[last] - own[first]).std(0).clamp_min(0.02))


def flow_loss(
    data: EpisodeSet,
    windows: Windows,
    pictures: Tensor,
    own: Tensor,
    context: Tensor,
    batch: int,
    device: str,
) -> Loss:
    """Flow matching: the network's velocity against noise less data, at a random share of noise."""
    chunks = torch.from_numpy(data.chunks(data.frame_state, windows.horizon))

    def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
        assert isinstance(module, FrameTransformer)
        rows = _pick(windows.learn, batch, generator)
        first, after = windows.start[rows], windows.following[rows]
        now = pictures[first].float().to(device), own[first].to(device)
        change = (
            (pictures[after].float().to(device) - now[0][:, None]) / module.picture_scale,
            (own[after].to(device) - now[1][:, None]) / module.body_scale,
        )
        noise = tuple(torch.randn(part.shape, generator=generator).to(device) for part in change)
        sigma = torch.randn(batch, generator=generator).sigmoid()
        sigma = torch.where(torch.rand(batch, generator=generator) < PURE_NOISE, 1.0, sigma).to(device)
        mixed = [
            torch.lerp(part, chance, sigma.view(-1, *[1] * (part.dim() - 1)))
            for part, chance in zip(change, noise, strict=True)
        ]
        with mixed_precision(device):
            velocity = module(
                (mixed[0], mixed[1]), now, context[first].to(device), chunks[first].to(device), sigma
            )
        errors = [
            F.mse_loss(guess.float(), chance - part)
            for guess, chance, part in zip(velocity, noise, change, strict=True)
        ]
        return errors[0] + 0.5 * errors[1]

    return loss


@torch.inference_mode()
def imagine(model: VideoWorldModel, vectors: Tensor, chunks: np.ndarray) -> Tensor:
    """What the model imagines at the end of chunks ``[n, H, A]`` from ``vectors [n, D]``: ``[n, D]``."""
    parts = []
    for some in np.split(np.arange(len(chunks)), range(256, len(chunks), 256)):
        latent = vectors[some].to(model.device)[:, None].expand(-1, len(model.noise[0]), -1)
        following, _, _ = model.jump(latent, torch.from_numpy(chunks[some]).to(model.device))
        parts.append(following[:, 0].cpu())
    return torch.cat(parts).clone()
