"""The value of a latent: how likely, and how soon, the policy succeeds from there.

An ensemble of small networks trained offline by one of ``schemes``. The networks see the latent and the
instruction. Their spread is the doubt that a planner subtracts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..interfaces import ForethoughtError, Latent, Score
from ..text import TEXT_SIZE, text_features
from ..weights import load_weights, save_weights
from .calibration import Calibration

FILE = "value.safetensors"


class ValueEnsemble(nn.Module):
    """E multi-layer perceptrons from (latent, instruction) to the logit of the value."""

    def __init__(self, latent_size: int, members: int = 5, hidden: int = 256, words: int = 16) -> None:
        super().__init__()
        self.members = members
        self.shape = {"latent_size": latent_size, "members": members, "hidden": hidden, "words": words}
        self.text = nn.Linear(TEXT_SIZE, words)
        sizes = [latent_size + words, hidden, hidden, 1]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(members, before, after) / before**0.5)
            for before, after in itertools.pairwise(sizes)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(members, 1, after)) for after in sizes[1:])

    def forward(self, latent: Tensor, text: Tensor) -> Tensor:
        """Logits ``[E, M]`` of latents ``[M, D]`` or ``[E, M, D]`` and hashed text ``[M, TEXT_SIZE]`` or
        with E first."""
        words = self.text(text)
        if words.dim() == 2:
            words = words.unsqueeze(0).expand(self.members, -1, -1)
        if latent.dim() == 2:
            latent = latent.unsqueeze(0).expand(self.members, -1, -1)
        hidden = torch.cat([latent, words], dim=-1)
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if depth + 1 < len(self.weights):
                hidden = F.silu(hidden)
        return hidden.squeeze(-1).float()  # a loss is no place for half precision


class ValueModel:
    """A trained ``ValueEnsemble`` as a ``RewardModel``.

    A latent with particles, ``[M, P, D]``, is scored by every network on every particle when the counts
    differ, and by network i on particle i when they agree: the spread then holds the doubt of model and
    value together.

    Args:
        network: Trained.
        scheme: Name of what it was trained by.
        calibration: From logits to values; None is the logistic function alone.
    """

    def __init__(self, network: ValueEnsemble, scheme: str, calibration: Calibration | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.scheme = scheme
        self.calibration = calibration

    @torch.inference_mode()
    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        """See ``RewardModel.score``; ``latent`` is ``[M, D]`` or ``[M, P, D]``.

        Raises:
            ForethoughtError: The states are objects, not latents.
        """
        if isinstance(latent, np.ndarray) and latent.dtype == object:
            raise ForethoughtError(
                f"A value of latents was given states of the kind {type(latent[0]).__name__}. Use "
                "reward=simulator beside world_model=simulator, and reward=chunk_value beside "
                "world_model=model_free."
            )
        particles = torch.as_tensor(latent)
        value, spread = self.judge(particles, self.words(instruction).to(particles.device))
        return Score(value=value.float().cpu().numpy(), spread=spread.float().cpu().numpy())

    def words(self, instruction: Sequence[str]) -> Tensor:
        """Instructions as ``judge`` takes them, ``float32 [M, TEXT_SIZE]``."""
        return text_features(instruction)

    def judge(self, particles: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """``score`` from tensors to tensors, without leaving the device: value and spread ``[M]``."""
        values = self.heads(particles, words)
        return values.mean(dim=0), values.std(dim=0, unbiased=False)

    def heads(self, particles: Tensor, words: Tensor) -> Tensor:
        """What each of n judges says of latents ``[M, D]`` or ``[M, P, D]``, ``[n, M]``: n networks, or every
        network on every particle where their numbers differ."""
        if particles.dim() == 2 or particles.shape[1] == self.network.members:
            state = particles if particles.dim() == 2 else particles.transpose(0, 1)
            return self._values(self.network(state, words))
        count = particles.shape[1]
        logits = self.network(particles.flatten(0, 1), words.repeat_interleave(count, dim=0))
        return self._values(logits).unflatten(1, (-1, count)).transpose(1, 2).flatten(0, 1)

    def _values(self, logits: Tensor) -> Tensor:
        return logits.float().sigmoid() if self.calibration is None else self.calibration(logits.float())

    def save(self, path: Path) -> None:
        """Writes weights, shape and calibration to one safetensors file."""
        header: dict[str, Any] = {"scheme": self.scheme, "shape": self.network.shape}
        if self.calibration is not None:
            header["calibration"] = self.calibration.to_dict()
        save_weights(path, "value", header, self.network.state_dict())


def load(folder: str | Path, file: str = FILE) -> ValueModel:
    """The value in a models folder.

    Raises:
        ForethoughtError: The file is missing or holds something else.
    """
    path = Path(folder) / file
    others = sorted(found.name for found in path.parent.glob("value*.safetensors"))
    if others and not path.is_file():
        raise ForethoughtError(
            f"No value at {path}; its folder has {', '.join(others)}. `forethought train models` writes "
            "value.safetensors for the first of its schemes and value_<scheme>.safetensors for each other: "
            "name the missing one there (schemes=[...]), or choose a file with reward.file."
        )
    header, state = load_weights(path, "value")
    network = ValueEnsemble(**header["shape"])
    network.load_state_dict(state)
    calibration = header.get("calibration")
    return ValueModel(
        network, header["scheme"], None if calibration is None else Calibration.from_dict(calibration)
    )
