"""The reference policy: a small stand-in for a VLA where no weights can be downloaded.

Images, proprioception and an instruction in, action chunks out, sampled by flow matching (Lipman et al.
2023, arXiv 2210.02747) as in π0: noise is carried to a chunk along a learned velocity field, so that N
noises give N chunks. The planner treats it like any foreign policy: it calls ``propose`` and knows nothing
else.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation
from ...text import text_features
from ...weights import load_weights, save_weights
from ...world_models.encoder import ObservationEncoder, as_tensors
from ..models import find_folder

KIND = "reference_policy"


class FlowHead(nn.Module):
    """Velocity of a noisy chunk at time t in [0, 1] (0 is noise, 1 is the chunk), given a condition."""

    def __init__(self, chunk_size: int, condition_size: int, hidden: int = 384, blocks: int = 3) -> None:
        super().__init__()
        self.time_size = 32
        self.inputs = nn.Linear(chunk_size + condition_size + self.time_size, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
            )
            for _ in range(blocks)
        )
        self.outputs = nn.Linear(hidden, chunk_size)

    def forward(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """``noisy [M, H·A]``, ``time [M]``, ``condition [M, C]`` to the velocity ``[M, H·A]``."""
        frequencies = torch.exp(torch.linspace(0, math.log(100.0), self.time_size // 2, device=time.device))
        phase = time[:, None] * frequencies
        hidden = self.inputs(torch.cat([noisy, condition, phase.sin(), phase.cos()], dim=-1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.outputs(F.silu(hidden))


class FlowPolicyNetwork(nn.Module):
    """Encoder and flow head; actions are standardised inside."""

    action_mean: Tensor
    action_std: Tensor

    def __init__(
        self,
        cameras: tuple[str, ...],
        image_size: int,
        features: int,
        horizon: int,
        action_size: int,
        hidden: int = 384,
    ) -> None:
        super().__init__()
        self.horizon, self.action_size = horizon, action_size
        self.shape: dict[str, Any] = {
            "cameras": list(cameras),
            "image_size": image_size,
            "features": features,
        }
        self.shape |= {"horizon": horizon, "action_size": action_size, "hidden": hidden}
        self.encoder = ObservationEncoder(cameras, image_size, features)
        self.head = FlowHead(horizon * action_size, self.encoder.latent_size, hidden)
        self.register_buffer("action_mean", torch.zeros(action_size))
        self.register_buffer("action_std", torch.ones(action_size))

    def loss(self, condition: Tensor, chunks: Tensor, generator: torch.Generator) -> Tensor:
        """Conditional flow-matching loss: the straight line from noise to chunk has constant velocity.

        Args:
            condition: ``[M, C]``.
            chunks: ``[M, H, A]``, environment units.
            generator: Source of noise and times.
        """
        data = ((chunks - self.action_mean) / self.action_std).flatten(1)
        noise = torch.randn(data.shape, generator=generator)
        time = torch.rand(len(data), generator=generator)
        noisy = torch.lerp(noise, data, time[:, None])
        return F.mse_loss(self.head(noisy, time, condition), data - noise)

    def sample(self, condition: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Chunks ``[M, H, A]`` in environment units from noise ``[M, H·A]``, by Euler's method."""
        chunk = noise
        for index in range(steps):
            time = torch.full((len(noise),), index / steps)
            chunk = chunk + self.head(chunk, time, condition) / steps
        return chunk.unflatten(1, (self.horizon, self.action_size)) * self.action_std + self.action_mean


class ReferencePolicy:
    """A trained ``FlowPolicyNetwork`` behind the ``Policy`` protocol.

    Attributes:
        cameras: Cameras that an observation must have.
        image_size: Side of the images that it was trained on; others are resized.
        lineage: What it was trained on, for reports.
    """

    def __init__(
        self,
        network: FlowPolicyNetwork,
        spec: ActionSpec,
        *,
        lineage: dict[str, Any] | None = None,
        steps: int = 8,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self._spec = spec
        self.steps = steps
        self.lineage = lineage or {}
        self.cameras = network.encoder.cameras
        self.image_size = network.encoder.image_size
        self._decisions = 0
        self._seed = 0

    @property
    def action_spec(self) -> ActionSpec:
        """What the numbers of an action mean."""
        return self._spec

    @property
    def horizon(self) -> int:
        """Chunk length H in control steps."""
        return self.network.horizon

    @torch.inference_mode()
    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        """N chunks per row, ``[B, N, H, A]``.

        Rows, and sample 0 within a row, are computed by themselves: the last bits of a matrix product depend
        on its size, and sample 0 must be the same chunk whether or not others are asked for.
        """
        missing = [name for name in self.cameras if name not in observation.images]
        if missing:
            raise ForethoughtError(
                f"The policy was trained on cameras {list(self.cameras)}; the observation has "
                f"{list(observation.images)}."
            )
        chunks = np.empty((observation.batch, n, self.horizon, self._spec.size), np.float32)
        for row in range(observation.batch):
            one = observation.rows([row])
            body = torch.from_numpy(np.float32(one.proprioception))
            images = as_tensors(one.images, self.cameras)
            condition = self.network.encoder(images, body, text_features(one.instruction))
            draws = np.random.default_rng(int(seeds[row])).standard_normal(
                (n, self.horizon * self._spec.size)
            )
            noise = torch.from_numpy(draws.astype(np.float32))
            parts = [noise[:1], noise[1:]] if n > 1 else [noise]
            drawn = [self.network.sample(condition.expand(len(part), -1), part, self.steps) for part in parts]
            chunks[row] = torch.cat(drawn).numpy()
        return ActionSamples(chunks=self._spec.clip(chunks))

    def act(self, observation: Observation) -> np.ndarray:
        """The chunk to execute, ``float32 [B, H, A]``; draws differ from call to call until ``reset``."""
        seeds = np.random.SeedSequence([self._seed, self._decisions]).generate_state(observation.batch)
        self._decisions += 1
        return self.propose(observation, 1, seeds.astype(np.int64)).chunks[:, 0]

    def reset(self, seed: int = 0) -> None:
        """Starts an episode: the same seed gives the same draws."""
        self._seed, self._decisions = seed, 0

    def save(self, path: Path) -> None:
        """Writes weights, shape and lineage to one safetensors file."""
        header = {"network": self.network.shape, "action": self._spec.to_dict(), "lineage": self.lineage}
        save_weights(path, KIND, header, self.network.state_dict())


def load(folder: str | Path, file: str = "policy.safetensors", steps: int = 8) -> ReferencePolicy:
    """The reference policy in a models folder.

    Args:
        folder: Where ``forethought train policy`` wrote it, or the name of a shipped folder.
        file: File name in it.
        steps: Euler steps from noise to chunk.

    Raises:
        ForethoughtError: The file is missing or holds something else.
    """
    header, state = load_weights(find_folder(folder) / file, KIND)
    network = FlowPolicyNetwork(**header["network"])
    network.load_state_dict(state)
    spec = ActionSpec.from_dict(header["action"])
    return ReferencePolicy(network, spec, lineage=header["lineage"], steps=steps)
