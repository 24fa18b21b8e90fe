"""Reads action chunks out of what a policy returns, and writes other actions into the same shape."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..interfaces import ForethoughtError

ACTION_KEYS = ("actions", "action", "action_chunk", "action_pred")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a policy returned, understood.

    Attributes:
        raw: The object itself: an array, tensor or list, alone, in a dictionary, or first in a tuple.
        actions: Its actions as they came, ``[A]``, ``[H, A]``, ``[B, A]`` or ``[B, H, A]``.
        chunk: ``float32 [B, H, A]``; a single action is held for the whole chunk.
        single: Whether the policy returns one action a call.
    """

    raw: Any
    actions: Any
    chunk: np.ndarray
    single: bool

    def with_actions(self, chunk: np.ndarray) -> Any:
        """The same kind of object with other actions;

        of ``chunk [B, H, A]`` a single action takes the first.
        """
        values = chunk[:, 0] if self.single else chunk
        values = values.reshape(np.shape(_numpy(self.actions)))
        return _replaced(self.raw, _like(values, self.actions))


def read(raw: Any, batch: int, horizon: int, size: int) -> Answer:
    """The actions in what a policy returned.

    Raises:
        ForethoughtError: There are none, or their shape fits neither one action nor a chunk.
    """
    actions = _find(raw)
    try:
        array = np.array(_numpy(actions), np.float32)
    except (TypeError, ValueError):
        array = np.zeros(0, np.float32)
    shape = array.shape
    if shape == (batch, horizon, size):
        return Answer(raw, actions, array, single=False)
    if batch == 1 and shape == (horizon, size):
        return Answer(raw, actions, array[None], single=False)
    if shape == (batch, size) or (batch == 1 and shape == (size,)):
        held = np.repeat(array.reshape(batch, 1, size), horizon, axis=1)
        return Answer(raw, actions, held, single=True)
    given = f"{type(raw).__name__} with keys {list(raw)}" if isinstance(raw, Mapping) else type(raw).__name__
    raise ForethoughtError(
        f"The policy returned {given} of shape {list(shape)}. Expected one action [{size}] or [{batch}, "
        f"{size}], or a "
        f"chunk [{horizon}, {size}] or [{batch}, {horizon}, {size}]: an array, or a dictionary with one of "
        f"{list(ACTION_KEYS)}. Use models trained for the policy's chunk length and action size, or wrap a "
        "function "
        "that cuts the chunk."
    )


class Queue:
    """Planned actions that a policy of single actions still has to give out, for each row of a batch."""

    def __init__(self) -> None:
        self._rows: list[deque[np.ndarray]] = []

    def clear(self) -> None:
        """Drops everything."""
        self._rows = []

    def pending(self, batch: int) -> np.ndarray:
        """Rows with an action waiting, ``bool [B]``. Another batch size drops everything."""
        if len(self._rows) != batch:
            self._rows = [deque() for _ in range(batch)]
        return np.array([bool(row) for row in self._rows])

    def put(self, row: int, chunk: np.ndarray) -> None:
        """Queues the actions of ``chunk [H, A]``."""
        self._rows[row] = deque(chunk)

    def take(self, row: int) -> np.ndarray:
        """The next action ``[A]`` of a row."""
        return self._rows[row].popleft()


def _find(raw: Any) -> Any:
    if isinstance(raw, Mapping):
        return next((raw[key] for key in ACTION_KEYS if key in raw), None)
    if (
        isinstance(raw, tuple)
        and raw
        and np.ndim(_numpy(raw[0])) > 0
        and not isinstance(raw[0], (list, tuple))
    ):
        return raw[0]
    return raw


def _replaced(raw: Any, actions: Any) -> Any:
    if isinstance(raw, Mapping):
        key = next(key for key in ACTION_KEYS if key in raw)
        return {**raw, key: actions}
    if _find(raw) is not raw:
        return (actions, *raw[1:])
    return actions


def _numpy(value: Any) -> Any:
    if hasattr(value, "detach"):
        return value.detach().float().cpu().numpy()
    return value


def _like(values: np.ndarray, template: Any) -> Any:
    if hasattr(template, "new_tensor"):
        return template.new_tensor(values)
    if isinstance(template, np.ndarray):
        return values.astype(template.dtype)
    return type(template)(values.tolist()) if isinstance(template, (list, tuple)) else values
