"""Loads what a planner imagines with: a models folder, by path or by the name of a shipped one.

A models folder holds ``config.json`` and the weights beside it:

    {"world_model": {"kind": "latent"}, "reward": {"kind": "value"}, "memory": {"kind": "retrieval"},
     "horizon": 8, "cameras": ["agentview_rgb"], "action": {"low": [...], "high": [...], "position": [0, 1,
     2], ...}}

A kind is the name of a module: ``latent`` is ``forethought.world_models.latent``, whose function
``load(folder)`` makes the part. Further keys beside ``kind`` are handed to it. ``memory`` may be missing.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..interfaces import ActionSpec, ForethoughtError, RewardModel, WorldModel

CONFIG = "config.json"
SHIPPED = Path(__file__).resolve().parents[1] / "experiments" / "checkpoints"
ROOMS = {"world_model": "world_models", "reward": "reward", "memory": "world_models"}


@dataclass(frozen=True, eq=False)
class Models:
    """What a planner imagines with.

    Attributes:
        world_model: What happens next.
        reward_model: How good it is.
        memory: Chunks of successful recorded states (``nearest(latent, instruction, k)``), or None.
        horizon: Chunk length H that the models were trained for, in control steps; None if they take any.
        cameras: Cameras that ``encode`` looks at.
        action_spec: What the numbers of the recorded actions mean, or None if not recorded.
        metadata: Everything that ``config.json`` says.
    """

    world_model: WorldModel
    reward_model: RewardModel
    memory: Any = None
    horizon: int | None = None
    cameras: tuple[str, ...] = ()
    action_spec: ActionSpec | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def load_models(path_or_name: str | Path) -> Models:
    """The models in a folder, or the shipped ones of that name.

    Raises:
        ForethoughtError: The folder, its configuration or its weights are missing or unreadable, or name a
            kind of part that does not exist.
    """
    folder = find_folder(path_or_name)
    config = read_config(folder)
    parts = {
        role: _load_part(folder, role, config[role]) for role in ROOMS if role != "memory" or config.get(role)
    }
    horizon = config.get("horizon")
    if horizon is not None and (not isinstance(horizon, int) or horizon < 1):
        raise ForethoughtError(
            f'{folder / CONFIG}: "horizon" must be a number of control steps; got {horizon!r}.'
        )
    return Models(
        world_model=parts["world_model"],
        reward_model=seen_through(parts["reward"], parts["world_model"]),
        memory=parts.get("memory"),
        horizon=horizon,
        cameras=tuple(config.get("cameras", ())),
        action_spec=_action_spec(folder, config.get("action")),
        metadata=config,
    )


def seen_through(reward_model: RewardModel, world_model: WorldModel) -> RewardModel:
    """The reward model for what a world model imagines. One that must see it (such as a verifier, which
    looks at pictures) has a method ``seen_through(world_model)``; others are returned as they are."""
    bind: Any = getattr(reward_model, "seen_through", None)
    return reward_model if bind is None else bind(world_model)


def shipped_names() -> tuple[str, ...]:
    """Names of the models folders that come with the package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG}")))


def find_folder(path_or_name: str | Path) -> Path:
    """The folder that a path or a shipped name stands for.

    A folder of a shipped name in the working directory goes before the shipped one if it holds models.
    """
    path = Path(path_or_name).expanduser()
    shipped = SHIPPED / path.name
    if path.name == str(path_or_name) and shipped.is_dir() and not _holds_models(path):
        return shipped
    if path.is_dir():
        return path
    raise ForethoughtError(
        f"No models at {str(path_or_name)!r}: no such folder under {Path.cwd()}, and the shipped ones are "
        f"{list(shipped_names())}. Give a folder that `forethought train models` wrote, or a shipped name."
    )


def _holds_models(path: Path) -> bool:
    return (path / CONFIG).is_file() or any(path.glob("*.safetensors"))


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a models folder, with the parts that every folder needs."""
    file = folder / CONFIG
    if not file.is_file():
        found = sorted(entry.name for entry in folder.iterdir())[:10]
        raise ForethoughtError(
            f"{folder} has no {CONFIG} (found: {found}). Give a folder that `forethought train models` "
            "finished."
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ForethoughtError(
            f"{file} is not readable JSON ({error}). Run `forethought train models` again, or copy the "
            "folder anew."
        ) from error
    for role in ("world_model", "reward"):
        part = config.get(role) if isinstance(config, dict) else None
        if not isinstance(part, dict) or not isinstance(part.get("kind"), str):
            raise ForethoughtError(
                f'{file} must name the kind of its {role}, as in {{"{role}": {{"kind": "…"}}}}; got {part!r}.'
            )
    return config


def _load_part(folder: Path, role: str, part: Mapping[str, Any]) -> Any:
    options = dict(part)
    kind, room = options.pop("kind", None), ROOMS[role]
    package = importlib.import_module(f"...{room}", __name__)
    kinds = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    if kind not in kinds:
        raise ForethoughtError(
            f"{folder / CONFIG}: unknown kind {kind!r} of {role}; forethought.{room} has {kinds}. "
            "Correct the file, or install the version of forethought that wrote it."
        )
    load = getattr(importlib.import_module(f"...{room}.{kind}", __name__), "load", None)
    if load is None:
        raise ForethoughtError(
            f"{folder / CONFIG}: {kind!r} cannot be a {role}: forethought.{room}.{kind} has no load()."
        )
    try:
        return load(folder, **options)
    except ForethoughtError:
        raise
    except Exception as error:
        raise ForethoughtError(
            f"The {role} ({kind}) in {folder} does not load: {type(error).__name__}: {error}. The weights "
            "are missing, "
            f"damaged, or of another version than {CONFIG}; run `forethought train models` again."
        ) from error


def _action_spec(folder: Path, action: Any) -> ActionSpec | None:
    if action is None:
        return None
    try:
        return ActionSpec.from_dict(action)
    except (AttributeError, TypeError, ValueError, ForethoughtError) as error:
        raise ForethoughtError(
            f'{folder / CONFIG}: "action" does not describe an action ({error}). '
            "It needs low and high, and may name position, rotation and gripper indices."
        ) from error
