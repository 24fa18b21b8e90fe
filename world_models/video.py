"""The video world model: imagines the frames of a chunk in the latents of a tiny autoencoder.

A search stays in the latents; ``decode`` and ``film`` are for people and for verifiers that look at pictures.
Frames are drawn by flow matching (Lipman et al. 2022, arXiv 2210.02747; straight paths: Liu et al. 2022,
arXiv 2209.03003) in a few Euler steps. What flows is the *change* of each frame from the present one, in
standardised units, so that a model that knows nothing predicts that nothing moves.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interfaces import ForethoughtError, ImaginationCost, Latent, Observation, Prediction
from ..weights import load_weights, save_weights
from .encoder import (
    CONTEXT_SIZE,
    PROPRIOCEPTION_FEATURES,
    instruction_context,
    model_inputs,
    proprioception_features,
)
from .flow import FrameTransformer
from .frames import FrameCodec
from .optional import require

FILE = "video_model.safetensors"
STEPS = (1, 16)
"""Euler steps that make sense."""


class VideoWorldModel:
    """Frame codec and frame transformer behind the ``WorldModel`` protocol.

    Latents are ``float32 [M, S, D]``, S samples of a future each with the noise of its own; every candidate
    of every decision starts from the same S noises, so that two candidates differ by their chunks alone. A
    vector of D is ``[robot state 11 | picture C·h·w | instruction 16]``, standardised. The model does not say
    whether an episode ended (``done`` is 0): the value of a solved state does.

    Attributes:
        codec: Pictures to latents and back.
        dynamics: The transformer.
        cameras: Cameras an observation must have.
        horizon: Chunk length H of one step.
        action_size: A.
        particle_count: S.
        latent_size: D.
        steps: Euler steps, 1 to 16; 1 predicts the mean.
        privileged_supervision: False: nothing but pictures, robot states and actions trained it.
        cost: Tier ``video``, with what training measured.
    """

    privileged_supervision = False

    def __init__(
        self,
        codec: FrameCodec,
        dynamics: FrameTransformer,
        body: tuple[Tensor, Tensor],
        *,
        steps: int = 2,
        samples: int = 1,
        device: str | torch.device = "cpu",
        cost: ImaginationCost | None = None,
    ) -> None:
        if not STEPS[0] <= steps <= STEPS[1] or samples < 1:
            raise ForethoughtError(
                f"The video model takes steps from {STEPS[0]} to {STEPS[1]} and at least one sample; got "
                f"steps={steps}, samples={samples}."
            )
        self.device = torch.device(device)
        self.codec = codec.eval().requires_grad_(False).to(self.device)
        self.dynamics = dynamics.eval().requires_grad_(False).to(self.device)
        self.body_mean, self.body_std = (numbers.to(self.device) for numbers in body)
        self.cameras, self.steps = codec.cameras, steps
        self.horizon, self.action_size = dynamics.horizon, dynamics.action_size
        self.particle_count = samples
        self.latent_size = PROPRIOCEPTION_FEATURES + math.prod(codec.grid) + CONTEXT_SIZE
        self.cost = cost or ImaginationCost("video", wave=16)
        generator = torch.Generator().manual_seed(0)
        frames, picture = dynamics.frames, (samples, dynamics.frames, *codec.grid)
        self.noise = (
            torch.randn(picture, generator=generator).to(self.device),
            torch.randn(samples, frames, PROPRIOCEPTION_FEATURES, generator=generator).to(self.device),
        )

    @torch.inference_mode()
    def encode(self, observation: Observation) -> Latent:
        """Latents ``[B, S, D]``.

        Raises:
            ForethoughtError: A camera is missing, or the proprioception has another size than in training.
        """
        images, body, text = model_inputs(observation, self.cameras, self.device)
        vectors = self.vectors(self.codec.encode(self.codec.mosaic(images)), body, instruction_context(text))
        return vectors[:, None].expand(-1, len(self.noise[0]), -1).contiguous()

    def vectors(self, picture: Tensor, proprioception: Tensor, context: Tensor) -> Tensor:
        """``[B, D]`` of latent pictures ``[B, C, h, w]``, proprioception ``[B, 8]``, context ``[B, 16]``."""
        body = (proprioception_features(proprioception) - self.body_mean) / self.body_std
        return torch.cat([body, picture.flatten(1), context], dim=-1)

    def _parts(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Picture ``[M, C, h, w]``, robot state ``[M, 11]`` and context ``[M, 16]`` of ``[M, D]``."""
        body, picture = (
            vectors[:, :PROPRIOCEPTION_FEATURES],
            vectors[:, PROPRIOCEPTION_FEATURES:-CONTEXT_SIZE],
        )
        return picture.unflatten(1, self.codec.grid), body, vectors[:, -CONTEXT_SIZE:]

    @torch.inference_mode()
    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """The state after chunks ``[M, H, A]`` from latents ``[M, S, D]``. See ``WorldModel.step``."""
        actions = self._checked(chunks)
        following, disagreement, done = self.jump(torch.as_tensor(latent), actions)
        return Prediction(following, disagreement.cpu().numpy(), done.cpu().numpy())

    def jump(self, latent: Tensor, chunks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``step`` from tensors to tensors, without leaving the device: next latents ``[M, S, D]``,
        disagreement (root mean square deviation of the samples) and done-probability ``[M]``."""
        following = self.imagine(latent, chunks)[:, :, -1]
        apart = following - following.mean(dim=1, keepdim=True)
        return following, apart.square().mean(dim=(1, 2)).sqrt(), following.new_zeros(len(following))

    def imagine(self, latent: Tensor, chunks: Tensor) -> Tensor:
        """All frames of a chunk at once: vectors ``[M, S, F, D]`` from ``[M, S, D]`` and ``[M, H, A]``."""
        count, samples = latent.shape[:2]
        present, own, context = self._parts(latent.float().flatten(0, 1))
        chunk = chunks.float().repeat_interleave(samples, dim=0)
        noise = tuple(part.repeat(count, *[1] * (part.dim() - 1)) for part in self.noise)
        picture, body = sample_change(
            self.dynamics, (noise[0], noise[1]), (present, own), context, chunk, self.steps
        )
        picture = present[:, None] + picture * self.dynamics.picture_scale
        body = own[:, None] + body * self.dynamics.body_scale
        frames = picture.shape[1]
        vectors = [body, picture.flatten(2), context[:, None].expand(-1, frames, -1)]
        return torch.cat(vectors, dim=-1).unflatten(0, (count, samples))

    @torch.inference_mode()
    def decode(self, latent: Latent) -> dict[str, np.ndarray]:
        """What latents ``[M, S, D]`` (or ``[M, D]``) look like: ``uint8 [M, size, size, 3]`` by camera. Of
        several samples the first is shown."""
        vectors = torch.as_tensor(latent).to(self.device).float()
        vectors = vectors[:, 0] if vectors.dim() == 3 else vectors
        return self.codec.pictures(self.codec.decode(self._parts(vectors)[0]))

    @torch.inference_mode()
    def film(self, latent: Latent, chunks: np.ndarray) -> dict[str, np.ndarray]:
        """Every frame of the chunks for people to look at: ``uint8 [M, F, size, size, 3]`` by camera."""
        frames = self.imagine(torch.as_tensor(latent), self._checked(chunks))[:, 0]
        shown = self.decode(frames.flatten(0, 1))
        return {name: image.reshape(*frames.shape[:2], *image.shape[1:]) for name, image in shown.items()}

    def _checked(self, chunks: np.ndarray) -> Tensor:
        if chunks.shape[1:] != (self.horizon, self.action_size):
            raise ForethoughtError(
                f"The video model imagines chunks [M, {self.horizon}, {self.action_size}]; got "
                f"{list(chunks.shape)}. Plan with the chunk length that the model was trained on."
            )
        return torch.from_numpy(np.ascontiguousarray(chunks, np.float32)).to(self.device)

    def save(self, folder: Path, lineage: dict[str, Any]) -> None:
        """Writes ``video_model.safetensors``; ``lineage`` says what it was trained on."""
        cost = {name: getattr(self.cost, name) for name in self.cost.__dataclass_fields__}
        header = {
            "codec": self.codec.shape,
            "dynamics": self.dynamics.shape,
            "cost": cost,
            "lineage": lineage,
        }
        tensors = {f"codec.{name}": tensor for name, tensor in self.codec.state_dict().items()}
        tensors |= {f"dynamics.{name}": tensor for name, tensor in self.dynamics.state_dict().items()}
        tensors |= {"body.mean": self.body_mean, "body.std": self.body_std}
        save_weights(folder / FILE, "video", header, tensors)


def sample_change(
    network: FrameTransformer,
    noise: tuple[Tensor, Tensor],
    now: tuple[Tensor, Tensor],
    context: Tensor,
    chunk: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """From noise along the flow to the change of pictures ``[M, F, C, h, w]`` and robot states
    ``[M, F, 11]``."""
    diffusers = require("diffusers", "The video world model", "'forethought[video]'")
    picture, body = noise
    schedules = [diffusers.FlowMatchEulerDiscreteScheduler() for _ in range(2)]
    for schedule in schedules:  # one each: a schedule counts its steps
        schedule.set_timesteps(sigmas=np.linspace(1, 0, steps, endpoint=False).tolist())
    for time, sigma in zip(schedules[0].timesteps, schedules[0].sigmas.tolist()):
        velocity = network((picture, body), now, context, chunk, picture.new_full((len(picture),), sigma))
        picture = schedules[0].step(velocity[0], time, picture, return_dict=False)[0]
        body = schedules[1].step(velocity[1], time, body, return_dict=False)[0]
    return picture, body


def load(folder: str | Path, device: str = "cpu", steps: int = 2, samples: int = 1) -> VideoWorldModel:
    """The video world model in a models folder.

    Args:
        folder: What ``forethought train video`` wrote.
        device: Where it runs.
        steps: Euler steps of the flow.
        samples: Futures drawn for each candidate; two or more make the disagreement.

    Raises:
        ForethoughtError: The file is missing or holds something else, or diffusers is not installed.
    """
    header, state = load_weights(Path(folder) / FILE, "video")
    codec = FrameCodec(**header["codec"])
    shape = header["dynamics"] | {"grid": tuple(header["dynamics"]["grid"])}
    dynamics = FrameTransformer(**shape)
    for name, module in (("codec.", codec), ("dynamics.", dynamics)):
        module.load_state_dict(
            {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}
        )
    return VideoWorldModel(
        codec,
        dynamics,
        (state["body.mean"], state["body.std"]),
        steps=steps,
        samples=samples,
        device=device,
        cost=ImaginationCost(**header["cost"]),
    )
