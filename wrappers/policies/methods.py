"""Objects with a method that maps an observation to an action or a chunk, under one of the usual names."""

from __future__ import annotations

from typing import Any

from ...interfaces import ForethoughtError
from . import Adapter, Settings
from .callable import adapt_calls

RANK = 10

METHODS = ("act", "infer", "predict", "predict_action", "get_action", "propose")
"""Names that are taken over.

Not LeRobot's: its actions are normalised inside, so that it needs its own adapter.
"""


def matches(policy: Any) -> bool:
    """Whether it has such a method."""
    return not isinstance(policy, type) and any(callable(getattr(policy, name, None)) for name in METHODS)


def adapt(policy: Any, settings: Settings) -> Adapter:
    """Takes over the method that the user named, or all those of the usual names that the object has."""
    names = (settings.method,) if settings.method else METHODS
    calls = {name: getattr(policy, name) for name in names if callable(getattr(policy, name, None))}
    if not calls:
        known = [
            name for name in dir(policy) if not name.startswith("_") and callable(getattr(policy, name, None))
        ]
        raise ForethoughtError(f"{type(policy).__name__} has no method {settings.method!r}; it has {known}.")
    return adapt_calls(policy, settings, calls)
