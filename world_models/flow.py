"""The velocity of a flow from noise to the coming frames: a small diffusion transformer.

Frames are patches of latents; every frame's patches are modulated by the actions that lead up to it, through
adaptive layer norms (adaLN-Zero: Peebles and Xie 2023, arXiv 2212.09748; one modulation for each frame:
IRASim, Zhu et al. 2024, arXiv 2406.14540). All parts of a block are diffusers'.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..interfaces import ForethoughtError
from .encoder import CONTEXT_SIZE, PROPRIOCEPTION_FEATURES
from .optional import require


class FrameBlock(nn.Module):
    """Attention over all tokens of all frames, and a perceptron; both modulated for each frame."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        for name in ("attention", "attention_processor", "normalization"):
            require(f"diffusers.models.{name}", "The video world model", "'forethought[video]'")
        from diffusers.models.attention import FeedForward
        from diffusers.models.attention_processor import Attention
        from diffusers.models.normalization import AdaLayerNormZero

        self.before = AdaLayerNormZero(width)
        self.attention = Attention(width, heads=heads, dim_head=width // heads, bias=True)
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.perceptron = FeedForward(width, activation_fn="gelu-approximate")
        nn.init.zeros_(self.before.linear.weight)
        nn.init.zeros_(self.before.linear.bias)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """``tokens`` is ``[B, F, P, W]``, ``condition`` is ``[B, F, W]``."""
        batch, frames = tokens.shape[:2]
        flat = tokens.flatten(0, 1)
        seen, gate, shift, scale, gate_after = self.before(flat, emb=condition.flatten(0, 1))
        attended = self.attention(seen.unflatten(0, (batch, frames)).flatten(1, 2))
        flat = flat + gate[:, None] * attended.unflatten(1, tokens.shape[1:3]).flatten(0, 1)
        thought = self.perceptron(self.norm(flat) * (1 + scale[:, None]) + shift[:, None])
        return (flat + gate_after[:, None] * thought).unflatten(0, (batch, frames))


class FrameTransformer(nn.Module):
    """Velocity of the coming frames' change, given the present frame and the chunk.

    A frame is a latent picture ``[C, h, w]`` and the robot's own state ``[11]`` (see
    ``encoder.proprioception_features``); both flow together, the second as a token of its own.

    Attributes:
        frames: Frames F of a chunk.
        horizon: Chunk length H, a multiple of F.
        action_size: A.
        grid: Size ``(C, h, w)`` of a latent picture.
        shape: The constructor's arguments, for whoever saves it.
    """

    places: Tensor
    picture_scale: Tensor
    body_scale: Tensor

    def __init__(
        self,
        grid: tuple[int, int, int],
        horizon: int,
        action_size: int,
        frames: int = 1,
        width: int = 192,
        blocks: int = 4,
        heads: int = 4,
        patch: int = 1,
    ) -> None:
        super().__init__()
        channels, height, length = grid
        if horizon % frames or height % patch or length % patch or width % (2 * heads):
            raise ForethoughtError(
                f"The video model's sizes do not fit: chunks of {horizon} in frames={frames}, a grid of "
                f"{height}x{length} in patches of {patch}, width={width} in heads={heads}; "
                "each must divide."
            )
        self.grid, self.frames, self.patch = (channels, height, length), frames, patch
        self.horizon, self.action_size = horizon, action_size
        self.shape: dict[str, Any] = {"grid": list(grid), "horizon": horizon, "action_size": action_size}
        self.shape |= {"frames": frames, "width": width, "blocks": blocks, "heads": heads, "patch": patch}
        require("diffusers", "The video world model", "'forethought[video]'")
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps, get_2d_sincos_pos_embed
        from diffusers.models.normalization import AdaLayerNormContinuous

        self.patches = nn.Conv2d(2 * channels, width, patch, stride=patch)
        self.body = nn.Linear(2 * PROPRIOCEPTION_FEATURES, width)
        cells = get_2d_sincos_pos_embed(width, (height // patch, length // patch), output_type="pt")
        self.register_buffer("places", cells.float(), persistent=False)
        self.time = nn.Sequential(Timesteps(width, True, 0), TimestepEmbedding(width, width))
        self.actions = nn.Sequential(
            nn.Linear(horizon // frames * action_size, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.context = nn.Linear(PROPRIOCEPTION_FEATURES + CONTEXT_SIZE, width)
        self.order = nn.Parameter(0.02 * torch.randn(frames, width))
        self.blocks = nn.ModuleList(FrameBlock(width, heads) for _ in range(blocks))
        self.last = AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6)
        self.to_picture = nn.Linear(width, channels * patch * patch)
        self.to_body = nn.Linear(width, PROPRIOCEPTION_FEATURES)
        for head in (self.to_picture, self.to_body):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.register_buffer("picture_scale", torch.ones(channels, 1, 1))
        self.register_buffer("body_scale", torch.ones(PROPRIOCEPTION_FEATURES))

    def forward(
        self,
        noisy: tuple[Tensor, Tensor],
        now: tuple[Tensor, Tensor],
        context: Tensor,
        chunk: Tensor,
        sigma: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Velocity (noise less data) of pictures ``[B, F, C, h, w]`` and robot states ``[B, F, 11]``.

        Args:
            noisy: Pictures ``[B, F, C, h, w]`` and robot states ``[B, F, 11]`` on their way.
            now: The present ones, ``[B, C, h, w]`` and ``[B, 11]``, standardised.
            context: The instruction, ``[B, 16]``, see ``encoder.instruction_context``.
            chunk: ``[B, H, A]``, environment units.
            sigma: Share of noise, ``[B]``, from 1 (noise) to 0.
        """
        picture, body = noisy
        batch, frames = picture.shape[:2]
        present, self_now = now
        held = present[:, None].expand(-1, frames, -1, -1, -1)
        seen = self.patches(torch.cat([picture, held], dim=2).flatten(0, 1)).flatten(2).transpose(1, 2)
        own = self.body(torch.cat([body, self_now[:, None].expand(-1, frames, -1)], dim=-1))
        tokens = torch.cat([own[:, :, None], (seen + self.places).unflatten(0, (batch, frames))], dim=2)
        condition = self.order + self.actions(chunk.reshape(batch, frames, -1))
        condition = condition + self.context(torch.cat([self_now, context], dim=-1))[:, None]
        condition = condition + self.time(1000 * sigma)[:, None]
        for block in self.blocks:
            tokens = block(tokens, condition)
        tokens = self.last(tokens.flatten(0, 1), condition.flatten(0, 1))
        cells = self.to_picture(tokens[:, 1:]).transpose(1, 2)
        _, height, length = self.grid
        picture = nn.functional.fold(cells, (height, length), self.patch, stride=self.patch)
        return (
            picture.unflatten(0, (batch, frames)),
            self.to_body(tokens[:, 0]).unflatten(0, (batch, frames)),
        )
