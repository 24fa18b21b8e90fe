"""World models of stable-worldmodel (https://github.com/galilai-group/stable-worldmodel) behind our protocol.

Three families are told apart by what they can do: LeWM and PLDM (``predict`` over one vector a frame),
DINO-WM (``replace_action_in_embedding`` over patch tokens), TD-MPC2 (``dynamics`` of a vector and one
action). A latent is the newest frame's; what came before the chunk is forgotten at its end, as when their
``rollout`` starts from one frame. They were trained in normalised units: say which.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..interfaces import ForethoughtError, ImaginationCost, Latent, Observation, Prediction
from .optional import require

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of colours in [0, 1] that their training scripts use."""


class Family(Protocol):
    """How one kind of model starts from an observation and goes on under actions."""

    tier: str

    def start(self, model: Any, info: dict[str, Tensor]) -> Tensor:
        """Latents ``[B, ...]`` of ``pixels [B, 1, 3, h, w]`` and what else the model reads, ``[B, 1, n]``."""
        ...

    def advance(self, model: Any, latent: Tensor, actions: Tensor) -> Tensor:
        """Latents ``[M, ...]`` after action blocks ``[M, T, a]``."""
        ...


class VectorFamily:
    """LeWM and PLDM: one vector a frame, a causal predictor over the last few."""

    tier = "vector"

    def start(self, model: Any, info: dict[str, Tensor]) -> Tensor:
        return model.encode(dict(info))["emb"][:, -1]

    def advance(self, model: Any, latent: Tensor, actions: Tensor) -> Tensor:
        history = int(getattr(model.predictor, "num_frames", 3))
        moves, seen = model.action_encoder(actions), latent[:, None]
        for step in range(actions.shape[1]):
            first = max(0, step + 1 - history)
            following = model.predict(seen[:, first:], moves[:, first : step + 1])[:, -1:]
            seen = torch.cat([seen, following], dim=1)
        return seen[:, -1]


class TokenFamily:
    """DINO-WM (PreJEPA): patch tokens that carry proprioception and action in channels of their own."""

    tier = "tokens"

    def start(self, model: Any, info: dict[str, Tensor]) -> Tensor:
        width = int(model.extra_encoders["action"].in_chans)
        nothing = torch.zeros(len(info["pixels"]), 1, width, device=info["pixels"].device)
        return model.encode({**info, "action": nothing})["emb"][:, -1]

    def advance(self, model: Any, latent: Tensor, actions: Tensor) -> Tensor:
        seen = latent[:, None]
        for step in range(actions.shape[1]):
            now = model.replace_action_in_embedding(seen[None, :, -1:], actions[None, :, step : step + 1])[0]
            seen = torch.cat([seen[:, :-1], now], dim=1)
            seen = torch.cat([seen, model.predict(seen[:, -model.history_size :])[:, -1:]], dim=1)
        return seen[:, -1]


class StepFamily:
    """TD-MPC2: a vector that one action moves."""

    tier = "vector"

    def start(self, model: Any, info: dict[str, Tensor]) -> Tensor:
        return model.encode({name: value[:, -1] for name, value in info.items()})

    def advance(self, model: Any, latent: Tensor, actions: Tensor) -> Tensor:
        for step in range(actions.shape[1]):
            latent = model.dynamics(torch.cat([latent, actions[:, step]], dim=-1))
        return latent


def family_of(model: Any) -> Family:
    """The family of a model.

    Raises:
        ForethoughtError: It is of none.
    """
    if callable(getattr(model, "replace_action_in_embedding", None)):
        return TokenFamily()
    if callable(getattr(model, "predict", None)) and hasattr(model, "action_encoder"):
        return VectorFamily()
    if callable(getattr(model, "dynamics", None)) and hasattr(model, "sim_norm"):
        return StepFamily()
    raise ForethoughtError(
        f"{type(model).__name__} is no world model of stable-worldmodel that is known here: LeWM and PLDM "
        "have predict and action_encoder, DINO-WM (PreJEPA) replace_action_in_embedding, TD-MPC2 dynamics "
        "and sim_norm. Write an object with encode(observation) and step(latent, chunks) instead."
    )


class StableWorldModel:
    """A model of stable-worldmodel behind the ``WorldModel`` protocol.

    Latents are ``float32 [M, D]`` (one vector a frame) or ``[M, P, d]`` (tokens).

    Attributes:
        model: The model, frozen.
        family: How it is driven.
        horizon: Chunk length H, a multiple of ``block``.
        action_size: A.
        cost: By family.

    Args:
        camera: The camera that it sees.
        image_size: Side of the pictures it was trained on, pixels.
        block: Control steps of one of its actions (their frameskip): so many are put side by side.
        action: Mean and deviation of actions ``[A]`` in training (z-score); None leaves them as they are.
        proprioception: The same for ``[P]``; only with ``proprioception_key``.
        proprioception_key: The key under which the model reads proprioception (``proprio``, ``state``); None:
            it does not.
        colour: Mean and deviation of colours in [0, 1].
    """

    privileged_supervision = False

    def __init__(
        self,
        model: Any,
        *,
        horizon: int,
        action_size: int,
        camera: str,
        image_size: int = 224,
        block: int = 1,
        action: tuple[Sequence[float], Sequence[float]] | None = None,
        proprioception: tuple[Sequence[float], Sequence[float]] | None = None,
        proprioception_key: str | None = None,
        colour: tuple[Sequence[float], Sequence[float]] = IMAGENET,
        device: str = "cpu",
        cost: ImaginationCost | None = None,
    ) -> None:
        if block < 1 or horizon % block:
            raise ForethoughtError(
                f"A chunk of {horizon} steps cannot be cut into actions of {block} steps each; give a "
                "horizon that is a multiple of block."
            )
        self.family = family_of(model)
        self.device = torch.device(device)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.horizon, self.action_size, self.block = horizon, action_size, block
        self.cameras, self.image_size = (camera,), image_size
        self.proprioception_key = proprioception_key
        self.cost = cost or ImaginationCost(self.family.tier, wave=32)
        self._action = self._scaling(action, action_size)
        self._body = self._scaling(proprioception, None)
        self._colour = tuple(torch.tensor(part, device=self.device).view(3, 1, 1) for part in colour)

    def _scaling(self, scale: Any, size: int | None) -> tuple[Tensor, Tensor] | None:
        if scale is None:
            return None
        mean, deviation = (torch.tensor(part, dtype=torch.float32, device=self.device) for part in scale)
        if (
            mean.shape != deviation.shape
            or (size is not None and mean.numel() != size)
            or (deviation <= 0).any()
        ):
            raise ForethoughtError(
                f"A scaling needs a mean and a positive deviation of {size or 'equal'} numbers each; got "
                f"{mean.tolist()} and {deviation.tolist()}."
            )
        return mean, deviation

    @torch.inference_mode()
    def encode(self, observation: Observation) -> Latent:
        """Latents of an observation.

        Raises:
            ForethoughtError: The camera is missing.
        """
        camera = self.cameras[0]
        if camera not in observation.images:
            raise ForethoughtError(
                f"The world model looks at {camera!r}; the observation has {list(observation.images)}."
            )
        pixels = torch.from_numpy(np.ascontiguousarray(observation.images[camera])).to(self.device)
        pixels = pixels.permute(0, 3, 1, 2).float() / 255
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
        info = {"pixels": ((pixels - self._colour[0]) / self._colour[1])[:, None]}
        if self.proprioception_key is not None:
            body = torch.from_numpy(np.asarray(observation.proprioception, np.float32)).to(self.device)
            info[self.proprioception_key] = _scaled(body, self._body)[:, None]
        return self.family.start(self.model, info).float().clone()

    @torch.inference_mode()
    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """The state after chunks ``[M, H, A]``. These models tell no disagreement and no end: both 0."""
        if chunks.shape[1:] != (self.horizon, self.action_size):
            raise ForethoughtError(
                f"The world model imagines chunks [M, {self.horizon}, {self.action_size}]; got "
                f"{list(chunks.shape)}."
            )
        actions = _scaled(torch.from_numpy(np.asarray(chunks, np.float32)).to(self.device), self._action)
        blocks = actions.reshape(len(chunks), self.horizon // self.block, -1)
        following = self.family.advance(self.model, torch.as_tensor(latent).to(self.device), blocks).float()
        nothing = np.zeros(len(chunks), np.float32)
        return Prediction(following.clone(), nothing, nothing.copy())


def _scaled(numbers: Tensor, scale: tuple[Tensor, Tensor] | None) -> Tensor:
    return numbers if scale is None else (numbers - scale[0]) / scale[1]


def load(folder: str | Path, checkpoint: str, **options: Any) -> StableWorldModel:
    """A checkpoint of stable-worldmodel on this machine, named by the ``config.json`` of a models folder.

    Its own ``config.json`` names the classes to build: load only what you trust.

    Args:
        folder: The models folder; ``checkpoint`` is looked for in it first.
        checkpoint: Folder with one ``.pt`` file of weights and a ``config.json``.
        **options: See ``StableWorldModel``.

    Raises:
        ForethoughtError: No such folder, or the package is not installed.
    """
    place = Path(folder) / checkpoint
    place = place if place.is_dir() else Path(checkpoint).expanduser()
    if not place.is_dir():
        raise ForethoughtError(
            f"No stable-worldmodel checkpoint at {checkpoint!r} (nor in {folder}). Name a folder with "
            "weights and config.json; nothing is downloaded."
        )
    utils = require("stable_worldmodel.wm.utils", "This world model", "stable-worldmodel")
    return StableWorldModel(utils.load_pretrained(str(place.resolve())), **options)
