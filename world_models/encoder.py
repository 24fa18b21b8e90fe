"""From what the robot sees to a latent: cameras, proprioception and instruction in, one vector out.

The latent of this room is ``[proprioception features | visual features]``, every number standardised. The
first part is copied, never learned: position, rotation (as the first two columns of its matrix, which unlike
an axis-angle has no jump at half a turn) and fingers stay exact. The visual part comes from a convolutional
network that the instruction modulates, so that it describes the objects that the task is about.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..interfaces import ForethoughtError, Observation
from ..text import TEXT_SIZE, text_features

PROPRIOCEPTION_FEATURES = 11
CONTEXT_SIZE = 16
PRIVILEGED_FEATURES = 18
WAY_FEATURES = 6
"""Numbers of the ways from the gripper to two places."""


@lru_cache(maxsize=1)
def _projection() -> Tensor:
    return torch.randn(TEXT_SIZE, CONTEXT_SIZE, generator=torch.Generator().manual_seed(0))


def instruction_context(text: Tensor) -> Tensor:
    """A fixed random projection of hashed instructions, ``[..., TEXT_SIZE]`` to ``[..., CONTEXT_SIZE]``.

    The part of a latent that never changes: what a grasp does depends on which object the task is about.
    """
    return text @ _projection().to(text)


def rotation_matrix(axis_angle: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` of axis-angle vectors ``[..., 3]`` in radians (Rodrigues'
    formula)."""
    angle = axis_angle.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    x, y, z = (axis_angle / angle).unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    sine, cosine = angle.sin().unsqueeze(-1), angle.cos().unsqueeze(-1)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sine * skew + (1 - cosine) * (skew @ skew)


def proprioception_features(proprioception: Tensor) -> Tensor:
    """``[B, 8]`` (position 3, axis-angle 3, fingers 2) to ``[B, 11]`` (position, first two rotation columns,
    fingers)."""
    columns = rotation_matrix(proprioception[..., 3:6])[..., :, :2].transpose(-1, -2).flatten(-2)
    return torch.cat([proprioception[..., :3], columns, proprioception[..., 6:8]], dim=-1)


def privileged_features(proprioception: Tensor, privileged: Tensor) -> Tensor:
    """Simulator state as the pose-supervised encoder should see it, ``[B, 18]``.

    Args:
        proprioception: ``[B, 8]``, see ``proprioception_features``.
        privileged: ``[B, 18]``, for each of two objects of interest its world position (m) and rotation (6).

    Returns:
        The same with positions relative to the end effector, still in metres.
    """
    objects = privileged.unflatten(-1, (2, 9))
    relative = objects[..., :3] - proprioception[..., None, :3]
    return torch.cat([relative, objects[..., 3:]], dim=-1).flatten(-2)


class ImageTower(nn.Module):
    """One camera: strided convolutions over colour and coordinates, modulated by the instruction (FiLM)."""

    grid: Tensor
    cells: Tensor

    def __init__(
        self, image_size: int, text_size: int, widths: Sequence[int] = (32, 64, 96, 128), out: int = 192
    ) -> None:
        super().__init__()
        channels = [5, *widths]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in itertools.pairwise(channels)
        )
        self.modulations = nn.ModuleList(nn.Linear(text_size, 2 * width) for width in widths)
        side = image_size // 2 ** len(widths)
        self.keypoints = nn.Conv2d(widths[-2], 32, 1)
        self.head = nn.Linear(widths[-1] * side * side + 64, out)
        axis = torch.linspace(-1, 1, image_size)
        self.register_buffer("grid", torch.stack(torch.meshgrid(axis, axis, indexing="ij")), persistent=False)
        axis = torch.linspace(-1, 1, 2 * side)
        cells = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1)
        self.register_buffer("cells", cells, persistent=False)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """``image`` is ``[B, 3, size, size]`` in [-1, 1], ``text`` is ``[B, T]``; returns ``[B, out]``."""
        grid = self.grid.to(image.dtype).expand(image.shape[0], -1, -1, -1)
        hidden = torch.cat([image, grid], dim=1).contiguous(memory_format=torch.channels_last)
        points = None
        for depth, (convolution, modulation) in enumerate(
            zip(self.convolutions, self.modulations, strict=True)
        ):
            scale, shift = modulation(text)[:, :, None, None].chunk(2, dim=1)
            hidden = F.silu(convolution(hidden) * (1 + scale) + shift)
            if depth == len(self.convolutions) - 2:
                attention = (4 * self.keypoints(hidden)).flatten(2).softmax(-1)
                points = torch.einsum("bkc,dc->bkd", attention, self.cells.to(attention.dtype)).flatten(1)
        assert points is not None
        return self.head(torch.cat([hidden.flatten(1), points], dim=1))


class ObservationEncoder(nn.Module):
    """Cameras, proprioception and instruction to a standardised latent ``[B, latent_size]``.

    Attributes:
        cameras: Camera names, in the order in which their towers stand.
        image_size: Side of the square images the towers see; others are resized (area).
        features: Size of the learned part of the latent.
        backbone: The pretrained image model whose patch tokens the towers read instead of pixels (see
            ``backbone.load_backbone``), or None for towers learned from scratch.
        places: Whether the first seven learned numbers are the ways from the gripper to two places, and the
            probability that what is at the first is in the hand. The network then tells where the places are,
            which does not change with the gripper; the ways follow from the gripper's position.
        place_mean: Mean of the places in training, metres ``[6]``, with ``place_std`` their scale.
    """

    mean: Tensor
    std: Tensor
    place_mean: Tensor
    place_std: Tensor

    def __init__(
        self,
        cameras: Sequence[str],
        image_size: int = 64,
        features: int = PRIVILEGED_FEATURES,
        backbone: str | None = None,
        places: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.places = places
        self.cameras = tuple(cameras)
        self.image_size = image_size
        self.features = features
        self.text = nn.Linear(TEXT_SIZE, 64)
        if backbone is None:
            self.towers = nn.ModuleList(ImageTower(image_size, 64) for _ in self.cameras)
        else:
            from .backbone import FrozenTower, load_backbone

            eyes = load_backbone(backbone, image_size)
            self.towers = nn.ModuleList(FrozenTower(eyes, 64) for _ in self.cameras)
        self.head = nn.Sequential(
            nn.Linear(192 * len(self.cameras) + PROPRIOCEPTION_FEATURES + 64, 384),
            nn.LayerNorm(384),
            nn.SiLU(),
            nn.Linear(384, 256),
            nn.SiLU(),
            nn.Linear(256, features),
        )
        self.register_buffer("mean", torch.zeros(PROPRIOCEPTION_FEATURES + features))
        self.register_buffer("std", torch.ones(PROPRIOCEPTION_FEATURES + features))
        if places:
            self.register_buffer("place_mean", torch.zeros(WAY_FEATURES))
            self.register_buffer("place_std", torch.ones(WAY_FEATURES))

    @property
    def latent_size(self) -> int:
        """D: copied proprioception features and learned features."""
        return PROPRIOCEPTION_FEATURES + self.features

    def standardise(self, features: Tensor) -> Tensor:
        """``[..., D]`` in physical units to latent units."""
        return (features - self.mean) / self.std

    def pixels(self, image: Tensor) -> Tensor:
        """``uint8 [B, h, w, 3]`` to ``float [B, 3, size, size]`` in [-1, 1]; tokens ``[B, P, W]`` stay."""
        if image.dim() == 3:
            return image
        pixels = image.permute(0, 3, 1, 2).float() / 127.5 - 1
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            pixels = F.interpolate(pixels, size=(self.image_size, self.image_size), mode="area")
        return pixels

    def forward(self, images: Mapping[str, Tensor], proprioception: Tensor, text: Tensor) -> Tensor:
        """Latents ``[B, D]`` of ``uint8 [B, h, w, 3]`` images, ``[B, 8]`` proprioception, ``[B, TEXT_SIZE]``
        text."""
        words = self.text(text)
        body = proprioception_features(proprioception)
        body = (body - self.mean[:PROPRIOCEPTION_FEATURES]) / self.std[:PROPRIOCEPTION_FEATURES]
        seen = [
            tower(self.pixels(images[name]), words)
            for name, tower in zip(self.cameras, self.towers, strict=True)
        ]
        visual = self.head(torch.cat([*seen, body, words], dim=-1).float())
        if self.places:
            visual = self._ways(visual.float(), proprioception[..., :3])
        return torch.cat([body, visual], dim=-1)

    def _ways(self, visual: Tensor, gripper: Tensor) -> Tensor:
        """The learned numbers ``[B, features]`` from what the head says, places in place of ways; what is in
        the hand is no way off."""
        apart = self.place_mean + self.place_std * visual[..., :WAY_FEATURES] - gripper.repeat(1, 2)
        held = torch.sigmoid(visual[..., WAY_FEATURES : WAY_FEATURES + 1])
        apart = torch.cat([(1 - held) * apart[..., :3], apart[..., 3:]], dim=-1)
        scale = self.std[PROPRIOCEPTION_FEATURES : PROPRIOCEPTION_FEATURES + WAY_FEATURES]
        return torch.cat([apart / scale, held, visual[..., WAY_FEATURES + 1 :]], dim=-1)


def random_shift(image: Tensor, generator: torch.Generator, pixels: int = 2) -> Tensor:
    """Images ``uint8 [B, h, w, 3]`` moved by up to ``pixels``, borders repeated: augmentation for small
    data."""
    batch, height, width, _ = image.shape
    padded = (
        F.pad(image.permute(0, 3, 1, 2).float(), [pixels] * 4, mode="replicate")
        .to(image.dtype)
        .permute(0, 2, 3, 1)
    )
    offset = torch.randint(0, 2 * pixels + 1, (batch, 2), generator=generator)
    rows = (offset[:, :1] + torch.arange(height))[:, :, None]
    columns = (offset[:, 1:] + torch.arange(width))[:, None, :]
    return padded[torch.arange(batch)[:, None, None], rows, columns]


def model_inputs(
    observation: Observation, cameras: Sequence[str], device: torch.device
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What a learned world model reads of an observation, on its device: images by camera, proprioception
    ``float32 [B, 8]`` and hashed instructions ``[B, TEXT_SIZE]``.

    Raises:
        ForethoughtError: A camera is missing, or the proprioception has another size than in training.
    """
    missing = [name for name in cameras if name not in observation.images]
    if missing:
        raise ForethoughtError(
            f"The world model was trained on cameras {list(cameras)}; the observation has "
            f"{list(observation.images)}. Add {missing}, or train models for the cameras that you have."
        )
    if observation.proprioception.shape[-1] != 8:
        raise ForethoughtError(
            "The world model reads proprioception [B, 8] (position 3, axis-angle 3, fingers 2); "
            f"got {list(observation.proprioception.shape)}."
        )
    images = {name: image.to(device) for name, image in as_tensors(observation.images, cameras).items()}
    body = torch.from_numpy(np.asarray(observation.proprioception, np.float32)).to(device)
    return images, body, text_features(observation.instruction).to(device)


def as_tensors(images: Mapping[str, np.ndarray], cameras: Sequence[str]) -> dict[str, Tensor]:
    """Images of the named cameras as tensors that share the arrays' memory where they can."""
    return {name: torch.from_numpy(np.ascontiguousarray(images[name])) for name in cameras}
