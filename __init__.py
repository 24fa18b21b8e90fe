"""Test-time search for robot policies.

    import forethought
    policy = forethought.wrap(policy, models="runs/my_task")

``forethought.interfaces`` has the vocabulary. Importing this package imports no simulator and no learned
model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .interfaces import (
    ActionSamples,
    ActionSpec,
    Candidates,
    Decision,
    ForethoughtError,
    Latent,
    Observation,
    Planner,
    Policy,
    Prediction,
    Reasoner,
    RewardModel,
    Score,
    WorldModel,
)

if TYPE_CHECKING:
    from .wrappers.controller import Controller
    from .wrappers.limits import Limits
    from .wrappers.models import Models, load_models
    from .wrappers.seeing import seeing, watching
    from .wrappers.wrap import unwrap, wrap

__version__ = "0.1.0"

__all__ = [
    "ActionSamples",
    "ActionSpec",
    "Candidates",
    "Controller",
    "Decision",
    "ForethoughtError",
    "Latent",
    "Limits",
    "Models",
    "Observation",
    "Planner",
    "Policy",
    "Prediction",
    "Reasoner",
    "RewardModel",
    "Score",
    "WorldModel",
    "load_models",
    "seeing",
    "unwrap",
    "watching",
    "wrap",
]

_LAZY = {
    "Controller": "wrappers.controller",
    "Limits": "wrappers.limits",
    "Models": "wrappers.models",
    "load_models": "wrappers.models",
    "seeing": "wrappers.seeing",
    "unwrap": "wrappers.wrap",
    "watching": "wrappers.seeing",
    "wrap": "wrappers.wrap",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value
