"""Several world models as one: each imagines the same chunks with its own eyes.

What one encoder mistakes for good reason (a bottle that its camera sees from the wrong side) it mistakes
every time, so that averaging its own pictures or heads mends nothing; another of another kind, or that was
trained on other cameras, labels or episodes, mistakes something else. ``reward.committee`` lets the values
vote.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..interfaces import COST_TIERS, ForethoughtError, Latent, Observation, Prediction


class Committee:
    """World models side by side behind the ``WorldModel`` protocol.

    A member says by ``particle_count`` how many states P its latents ``[M, P, D]`` hold for each, and by
    ``latent_size`` how many numbers D a state has. Latents of the committee are ``float32 [M, E, D₁ + D₂ +
    …]``, the members' behind one another; the only state of a member without an ensemble stands there E
    times. The disagreement is the root mean square of the members', the done-probability their mean.

    Attributes:
        members: The models.
        sizes: Numbers D of each one's states.
        particle_count: States E of a latent.
        privileged_supervision: Whether simulator state supervised the training of any of them.
        cameras: Cameras an observation must have: those of all members.
        horizon: Chunk length H of one step.
        action_size: A.
        cost: The dearest tier among the members, with its wave; milliseconds are the sum of those that say
            any.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        if len(members) < 2:
            raise ForethoughtError(f"A committee needs two world models or more; got {len(members)}.")
        shapes = {(m.horizon, m.action_size) for m in members}
        several = {m.particle_count for m in members if m.particle_count > 1}
        if len(shapes) > 1 or len(several) > 1:
            raise ForethoughtError(
                "The members of a committee must imagine chunks of one shape, with ensembles of one size or "
                f"none; got (horizon, action size) {sorted(shapes)} and ensembles of {sorted(several)}. "
                "Train them with the same ones."
            )
        self.members = tuple(members)
        self.sizes = tuple(int(m.latent_size) for m in members)
        self.particle_count = max(several, default=1)
        ((self.horizon, self.action_size),) = shapes
        self.privileged_supervision = any(m.privileged_supervision for m in members)
        self.cameras = tuple(dict.fromkeys(camera for m in members for camera in m.cameras))
        costs = [m.cost for m in members]
        dearest = max(costs, key=lambda cost: COST_TIERS.index(cost.tier))
        known = [cost.milliseconds for cost in costs if cost.milliseconds is not None]
        self.cost = replace(dearest, milliseconds=sum(known) if known else None)

    def encode(self, observation: Observation) -> Latent:
        """Latents ``[B, E, D₁ + D₂ + …]``. Raises what the members' ``encode`` does."""
        return self._beside([torch.as_tensor(m.encode(observation)) for m in self.members])

    def _beside(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        device = parts[0].device
        return torch.cat([part.to(device).expand(-1, self.particle_count, -1) for part in parts], dim=-1)

    @torch.inference_mode()
    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """One jump of every member over chunks ``[M, H, A]``. See ``WorldModel.step``."""
        parts = torch.as_tensor(latent).split(self.sizes, dim=-1)
        seen = [
            m.step(part[:, : m.particle_count], chunks) for m, part in zip(self.members, parts, strict=True)
        ]
        disagreements = np.stack([prediction.disagreement for prediction in seen])
        return Prediction(
            self._beside([torch.as_tensor(prediction.latent) for prediction in seen]),
            np.sqrt(np.square(disagreements).mean(axis=0)),
            np.stack([prediction.done for prediction in seen]).mean(axis=0),
        )


def load(folder: str | Path = ".", members: Sequence[str | Path] = (), device: str = "cpu") -> Committee:
    """A committee of the world models in several folders, of whatever kinds their ``config.json`` name.

    Args:
        folder: What relative paths are relative to.
        members: Models folders.
        device: Where they compute.

    Raises:
        ForethoughtError: A folder holds no such world model, or they do not fit together.
    """
    return Committee([_load_member(Path(folder) / member, device) for member in members])


def _load_member(folder: Path, device: str) -> Any:
    file = folder / "config.json"
    try:
        options = dict(json.loads(file.read_text(encoding="utf-8"))["world_model"])
        kind = options.pop("kind")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ForethoughtError(
            f"{file} does not name the kind of a world model ({type(error).__name__}: {error}). Give folders "
            "that `forethought train` finished."
        ) from error
    try:
        model = importlib.import_module(f"{__package__}.{kind}").load(folder, device=device, **options)
    except (ImportError, AttributeError) as error:
        raise ForethoughtError(f"{file} names a world model of the kind {kind!r}: {error}.") from error
    if missing := [name for name in ("particle_count", "latent_size") if not hasattr(model, name)]:
        raise ForethoughtError(
            f"A world model of the kind {kind!r} ({folder}) cannot sit in a committee: it has no "
            f"{' and no '.join(missing)}."
        )
    return model
