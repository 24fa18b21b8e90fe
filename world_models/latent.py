"""The latent world model: an encoder of cameras and proprioception, and an ensemble that jumps over chunks.

At test time it reads images, proprioception and the instruction, nothing else. Whether the simulator's state
supervised its *training* is written into the weights (``privileged_supervision``) and reported with every
result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interfaces import ForethoughtError, ImaginationCost, Latent, Observation, Prediction
from ..text import text_features
from ..weights import load_weights, save_weights
from .dynamics import ChunkDynamics
from .encoder import (
    ObservationEncoder,
    instruction_context,
    model_inputs,
    privileged_features,
    proprioception_features,
)

FILE = "world_model.safetensors"


class LatentWorldModel:
    """Encoder and chunk-jump ensemble behind the ``WorldModel`` protocol.

    Latents are ``float32 [M, E, D]``, one particle per ensemble member; an encoded observation has equal
    particles.

    Attributes:
        expected_error: Scale a and power b by which the spread s of the particles becomes the error to
            expect of their mean, a · s^b, both root mean squares over the numbers of a latent; (1, 1): not
            calibrated, disagreement is the spread itself.
        privileged_supervision: Whether simulator state supervised the training of the encoder.
        cameras: Cameras an observation must have.
        horizon: Chunk length H of one step.
        action_size: A.
        particle_count: E.
        latent_size: D.
        cost: The cheapest tier.
    """

    cost = ImaginationCost("vector")

    def __init__(
        self,
        encoder: ObservationEncoder,
        dynamics: ChunkDynamics,
        *,
        privileged_supervision: bool,
        expected_error: tuple[float, float] = (1.0, 1.0),
        device: str | torch.device = "cpu",
    ) -> None:
        self.expected_error = expected_error
        self.device = torch.device(device)
        self.encoder = encoder.eval().requires_grad_(False).to(self.device)
        self.dynamics = dynamics.eval().requires_grad_(False).to(self.device)
        self.privileged_supervision = privileged_supervision
        self.cameras = encoder.cameras
        self.horizon, self.action_size = dynamics.horizon, dynamics.action_size
        self.particle_count, self.latent_size = dynamics.members, int(dynamics.shape["latent_size"])

    @torch.inference_mode()
    def encode(self, observation: Observation) -> Latent:
        """Latents ``[B, E, D]``.

        Raises:
            ForethoughtError: A camera is missing, or the proprioception has another size than in training.
        """
        images, body, text = model_inputs(observation, self.cameras, self.device)
        latent = self.encoder(images, body, text)
        return self.particles(torch.cat([latent, instruction_context(text)], dim=-1))

    def particles(self, latent: Tensor) -> Tensor:
        """``[B, D]`` to ``[B, E, D]``, every member starting from the same point."""
        return latent.unsqueeze(1).expand(-1, self.dynamics.members, -1).contiguous()

    @property
    def reads_states(self) -> bool:
        """Whether a simulator state says all that a latent holds, see ``embed_state``."""
        return self.privileged_supervision and not self.encoder.places

    def require_states(self) -> None:
        """Refuses to read simulator states where these do not say all that a latent holds."""
        if not self.privileged_supervision:
            raise ForethoughtError(
                "Simulator states have no place in a latent learned from images alone. Use models "
                "trained with privileged_supervision=true, or let the encoder see the states: "
                "world_model=simulator_seen."
            )
        if self.encoder.places:
            raise ForethoughtError(
                "This latent holds more than poses: what hindsight told it no simulator state says. Let the "
                "encoder see the states, with world_model=simulator_seen, or train models with "
                "in_hindsight=false."
            )

    @torch.inference_mode()
    def embed_state(
        self, proprioception: np.ndarray, privileged: np.ndarray, instruction: Sequence[str]
    ) -> np.ndarray:
        """Latents ``[M, D]`` of simulator states, exact where the encoder estimates.

        For the simulator as world model only, which is privileged by nature. Needs a pose-supervised encoder.

        Args:
            proprioception: ``[M, 8]``.
            privileged: ``[M, 18]``, see ``encoder.privileged_features``.
            instruction: M instructions.
        """
        self.require_states()
        body, state = torch.from_numpy(np.float32(proprioception)), torch.from_numpy(np.float32(privileged))
        features = torch.cat([proprioception_features(body), privileged_features(body, state)], dim=-1)
        context = instruction_context(text_features(instruction))
        return torch.cat([self.encoder.standardise(features.to(self.device)).cpu(), context], dim=-1).numpy()

    @torch.inference_mode()
    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """One jump over chunks ``[M, H, A]`` from latents ``[M, E, D]``. See ``WorldModel.step``."""
        if chunks.shape[1:] != (self.horizon, self.action_size):
            raise ForethoughtError(
                f"The world model jumps over chunks [M, {self.horizon}, {self.action_size}]; got "
                f"{list(chunks.shape)}. "
                "Plan with the chunk length that the models were trained on."
            )
        actions = torch.from_numpy(np.ascontiguousarray(chunks, np.float32)).to(self.device)
        following, disagreement, done = self.jump(torch.as_tensor(latent), actions)
        return Prediction(following, disagreement.cpu().numpy(), done.cpu().numpy())

    def jump(self, latent: Tensor, chunks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``step`` from tensors to tensors, without leaving the device: next latents ``[M, E, D]``,
        disagreement and done-probability ``[M]``."""
        following, done = self.dynamics(latent.transpose(0, 1), chunks)
        apart = following - following.mean(dim=0)  # std() takes several times longer on the CPU
        scale, power = self.expected_error
        disagreement = scale * apart.square().mean(dim=(0, 2)).sqrt() ** power
        return following.transpose(0, 1), disagreement, done.float().sigmoid().mean(dim=0)

    def save(self, folder: Path, lineage: dict[str, Any]) -> None:
        """Writes ``world_model.safetensors``; ``lineage`` says what it was trained on."""
        header = {
            "encoder": {
                "cameras": list(self.encoder.cameras),
                "image_size": self.encoder.image_size,
                "features": self.encoder.features,
                **({} if self.encoder.backbone is None else {"backbone": self.encoder.backbone}),
                **({"places": True} if self.encoder.places else {}),
            },
            "dynamics": self.dynamics.shape,
            "privileged_supervision": self.privileged_supervision,
            "expected_error": list(self.expected_error),
            "lineage": lineage,
        }
        tensors = {f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        tensors |= {f"dynamics.{name}": tensor for name, tensor in self.dynamics.state_dict().items()}
        save_weights(folder / FILE, "latent", header, tensors)


def load(folder: str | Path, device: str = "cpu") -> LatentWorldModel:
    """The latent world model in a models folder.

    Raises:
        ForethoughtError: The file is missing or holds something else.
    """
    header, state = load_weights(Path(folder) / FILE, "latent")
    encoder = ObservationEncoder(**header["encoder"])
    dynamics = ChunkDynamics(**header["dynamics"])
    for name, module in (("encoder.", encoder), ("dynamics.", dynamics)):
        module.load_state_dict(
            {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}
        )
    scale, power = header.get("expected_error", (1.0, 1.0))
    return LatentWorldModel(
        encoder,
        dynamics,
        privileged_supervision=header["privileged_supervision"],
        expected_error=(float(scale), float(power)),
        device=device,
    )


def load_state_embedding(
    folder: str | Path,
) -> Callable[[np.ndarray, np.ndarray, Sequence[str]], np.ndarray]:
    """``embed_state`` of the model in a folder, for the simulator as world model.

    Raises:
        ForethoughtError: The model cannot read simulator states, or ``load`` fails.
    """
    model = load(folder)
    model.require_states()
    return model.embed_state


def load_eyes(folder: str | Path) -> Callable[[Observation], np.ndarray]:
    """What the encoder in a folder sees of M observations, ``float32 [M, D]``: for the simulator as world
    model whose states are looked at."""
    model = load(folder)
    return lambda observation: torch.as_tensor(model.encode(observation))[:, 0].numpy()
