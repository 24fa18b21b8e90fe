"""Anything that can be called with an observation and returns an action or a chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..actions import Queue
from ..foreign import CalledPolicy, ForeignCall
from ..lookahead import Lookahead
from . import Adapter, Settings, needed_spec

RANK = 0


def matches(policy: Any) -> bool:
    """Whether it can be called; classes cannot be meant."""
    return callable(policy) and not isinstance(policy, type)


def adapt(policy: Any, settings: Settings) -> Adapter:
    """Takes over the call."""
    return adapt_calls(policy, settings, {"__call__": policy})


def adapt_calls(policy: Any, settings: Settings, calls: Mapping[str, Callable[..., Any]]) -> Adapter:
    """Takes over calls, by the name of the method, that map an observation to an action or a chunk."""
    spec, horizon = needed_spec(policy, settings)
    gripper = settings.gripper(spec)
    called, queue = CalledPolicy(spec, horizon, gripper=lambda: gripper), Queue()

    def methods(lookahead: Lookahead) -> dict[str, Callable[..., Any]]:
        foreign = ForeignCall(called, lookahead, settings.observe, queue)
        return {name: _taken_over(foreign, original) for name, original in calls.items()}

    return Adapter(called, methods, on_reset=queue.clear)


def _taken_over(foreign: ForeignCall, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return foreign(original, *args, **kwargs)

    return call
