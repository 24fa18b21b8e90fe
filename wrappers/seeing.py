"""Tells a wrapped policy what the robot sees, where the policy's own arguments do not say.

OpenVLA's ``predict_action`` gets token ids and normalised pixels; a world model wants the camera's images and
the robot's state. Whoever calls the policy has them:

    with forethought.seeing(observation, task):
        action = vla.predict_action(**inputs)

or, with no edit of the script that has the loop, around the function that it calls:

    utils.get_vla_action = forethought.watching(utils.get_vla_action)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from ..interfaces import Observation

Call = tuple[tuple[Any, ...], dict[str, Any]]
_seen: ContextVar[Call | None] = ContextVar("forethought_seen", default=None)


@contextmanager
def seeing(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Within it, wrapped policies plan on this observation: an Observation, or a dictionary with the usual
    keys and an instruction (see ``observations.from_call``). Holds for the current thread or task only."""
    token = _seen.set((args, kwargs))
    try:
        yield
    finally:
        _seen.reset(token)


def watching(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; while it runs, wrapped policies plan on the observation among its arguments.

    What it was called with is noted before it runs, so that it may normalise its arguments in place.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            given = dict(signature.bind(*args, **kwargs).arguments)
        except TypeError:
            return function(*args, **kwargs)  # which says better what is wrong with the call
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        with seeing(**{name: _noted(value) for name, value in given.items() if _tells(value)}):
            return function(*args, **kwargs)

    return watched


def current() -> Call | None:
    """Arguments of the innermost ``seeing`` that is running, or None."""
    return _seen.get()


def _tells(value: Any) -> bool:
    """Whether an argument can be part of an observation: not a model, not a configuration."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(one, str) for one in value)
    return isinstance(value, (Observation, Mapping, str, np.ndarray)) or hasattr(value, "detach")


def _noted(value: Any) -> Any:
    return {key: _noted(one) for key, one in value.items()} if isinstance(value, Mapping) else value
