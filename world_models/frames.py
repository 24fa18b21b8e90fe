"""Pictures to latents and back: a tiny autoencoder (TAESD's architecture, https://github.com/madebyollin/taesd,
as ``AutoencoderTiny`` of diffusers) over all cameras side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..interfaces import ForethoughtError
from .optional import require


class FrameCodec(nn.Module):
    """Encodes the cameras' pictures, stood side by side, to standardised latents ``[B, C, h, w]``.

    Attributes:
        cameras: Camera names, from left to right.
        image_size: Side of each picture, pixels; others are resized (area).
        grid: Size ``(C, h, w)`` of a latent.
        shape: The constructor's arguments, for whoever saves it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        cameras: Sequence[str],
        image_size: int = 64,
        channels: int = 4,
        width: int = 32,
        halvings: int = 3,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        if image_size % 2**halvings or not cameras:
            raise ForethoughtError(
                f"A frame codec needs cameras and an image size that can be halved {halvings} times; got "
                f"{list(cameras)} and image_size={image_size}."
            )
        self.cameras, self.image_size = tuple(cameras), image_size
        side = image_size // 2**halvings
        self.grid = (channels, side, side * len(self.cameras))
        self.shape: dict[str, Any] = {"cameras": list(self.cameras), "image_size": image_size}
        self.shape |= {"channels": channels, "width": width, "halvings": halvings, "blocks": blocks}
        diffusers = require("diffusers", "The video world model", "'forethought[video]'")
        widths, inner = (width,) * (halvings + 1), (blocks,) * halvings
        self.autoencoder = diffusers.AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            latent_channels=channels,
            num_encoder_blocks=(1, *inner),
            num_decoder_blocks=(*inner, 1),
        )
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def mosaic(self, images: Mapping[str, Tensor]) -> Tensor:
        """``uint8 [B, h, w, 3]`` by camera to one picture ``[B, 3, size, size · cameras]`` in [-1, 1]."""
        parts = []
        for name in self.cameras:
            pixels = images[name].permute(0, 3, 1, 2).float() / 127.5 - 1
            if pixels.shape[-2:] != (self.image_size, self.image_size):
                pixels = F.interpolate(pixels, size=(self.image_size, self.image_size), mode="area")
            parts.append(pixels)
        return torch.cat(parts, dim=-1)

    def encode(self, mosaic: Tensor) -> Tensor:
        """Standardised latents ``[B, C, h, w]`` of pictures."""
        return (self.autoencoder.encode(mosaic, return_dict=False)[0] - self.mean) / self.std

    def decode(self, latent: Tensor) -> Tensor:
        """Pictures ``[B, 3, size, size · cameras]`` in about [-1, 1]."""
        return self.autoencoder.decode(latent * self.std + self.mean, return_dict=False)[0]

    def pictures(self, mosaic: Tensor) -> dict[str, np.ndarray]:
        """Pictures as people and verifiers take them: ``uint8 [B, size, size, 3]`` by camera."""
        pixels = ((mosaic.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        pixels = pixels.permute(0, 2, 3, 1).cpu().numpy()
        parts = np.split(pixels, len(self.cameras), axis=2)
        return {name: np.ascontiguousarray(part) for name, part in zip(self.cameras, parts, strict=True)}

    def standardise(self, mosaics: Tensor) -> None:
        """Sets mean and deviation of the channels from some pictures."""
        self.mean.zero_()
        self.std.fill_(1.0)
        with torch.no_grad():
            latent = self.encode(mosaics)
        self.mean.copy_(latent.mean(dim=(0, 2, 3)).view(-1, 1, 1))
        self.std.copy_(latent.std(dim=(0, 2, 3)).clamp_min(1e-3).view(-1, 1, 1))
