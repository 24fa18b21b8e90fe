"""Reads action chunks out of what a policy returns, and writes other actions into the same shape."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..interfaces import ForethoughtError

ACTION_KEYS = ("actions", "action", "action_chunk", "action_pred")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a policy returned, understood.

    Attributes:
        raw: The object itself.
        chunk: ``float32 [B, H, A]``, environment units; a single action is held for the whole chunk.
        single: Whether the policy returns one action a call.
        write: From a chunk ``[B, H, A]`` to the same kind of object with its actions; of a policy of single
            actions, with the first of them.
    """

    raw: Any
    chunk: np.ndarray
    single: bool
    write: Callable[[np.ndarray], Any]


def read(raw: Any, batch: int, horizon: int, size: int, *, longer: bool = False) -> Answer:
    """The actions in what a policy returned.

    Args:
        raw: What it returned.
        batch: Number of rows B.
        horizon: Chunk length H to plan with.
        size: Action size A.
        longer: Take chunks of more than H steps too. Their first H are planned with, and what is written in
            their place has H steps: what the policy meant for later belongs to another beginning.

    Raises:
        ForethoughtError: There are none, or their shape fits neither one action nor a chunk.
    """
    actions = _find(raw)
    try:
        array = np.array(_numpy(actions), np.float32)
    except (TypeError, ValueError):
        array = np.zeros(0, np.float32)

    def write(chunk: np.ndarray, single: bool = False) -> Any:
        values = chunk[:, 0] if single else chunk
        return _replaced(raw, _like(values.reshape(written), actions))

    if longer and (array.ndim == 3 or (array.ndim == 2 and batch == 1)):
        array = array[..., :horizon, :]
    shape = written = array.shape
    if shape == (batch, horizon, size) or (batch == 1 and shape == (horizon, size)):
        return Answer(raw, array.reshape(batch, horizon, size), single=False, write=write)
    if shape == (batch, size) or (batch == 1 and shape == (size,)):
        chunk = held(array.reshape(batch, size), horizon)
        return Answer(raw, chunk, single=True, write=lambda chunk: write(chunk, single=True))
    given = f"{type(raw).__name__} with keys {list(raw)}" if isinstance(raw, Mapping) else type(raw).__name__
    raise ForethoughtError(
        f"The policy returned {given} of shape {list(shape)}. Expected one action [{size}] or [{batch}, "
        f"{size}], or a "
        f"chunk [{horizon}, {size}] or [{batch}, {horizon}, {size}]: an array, or a dictionary with one of "
        f"{list(ACTION_KEYS)}. Use models trained for the policy's chunk length and action size, or wrap a "
        "function "
        "that cuts the chunk."
    )


def held(actions: np.ndarray, horizon: int) -> np.ndarray:
    """Actions ``[..., A]`` as chunks ``[..., H, A]`` that repeat them."""
    return np.repeat(np.asarray(actions, np.float32)[..., None, :], horizon, axis=-2)


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
