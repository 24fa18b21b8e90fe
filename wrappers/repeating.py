"""Asks a network for several answers in one call: every row of what it is given, n times."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def repeated_queues(policy: Any, rows: int, n: int) -> Iterator[Callable[[], None]]:
    """Copies of the policy's queues for a while; calling what is given repeats every row of them n times."""
    kept = policy.__dict__.get("_queues")
    if kept is not None:
        policy.__dict__["_queues"] = {name: copy.copy(queue) for name, queue in kept.items()}

    def repeat() -> None:
        if kept is not None:
            policy.__dict__["_queues"] = {
                name: deque(repeated_rows(list(queue), rows, n), queue.maxlen) for name, queue in kept.items()
            }

    try:
        yield repeat
    finally:
        if kept is not None:
            policy.__dict__["_queues"] = kept


@contextmanager
def shared_prefix(model: Any, rows: int, n: int) -> Iterator[None]:
    """Lets n noises a row share what the model makes of images, words and state.

    Flow-matching models encode these once and then denoise, step by step, beside the attention keys and
    values of the encoding. Given ``B·n`` noises for ``B`` rows, each step here gets what belongs to a row n
    times.
    """
    denoise, repeated = model.denoise_step, {}

    def step(x_t: Tensor, **given: Any) -> Tensor:
        for value in given.values():
            if id(value) not in repeated:
                repeated[id(value)] = (value, repeated_rows(value, rows, n))  # the first keeps the id taken
        return denoise(x_t=x_t, **{name: repeated[id(value)][1] for name, value in given.items()})

    model.__dict__["denoise_step"] = step
    try:
        yield
    finally:
        del model.__dict__["denoise_step"]


def repeated_rows(value: Any, rows: int, n: int) -> Any:
    """The same with every row n times: tensors, lists of a length of rows, caches, and what holds these."""
    if isinstance(value, Tensor):
        return value.repeat_interleave(n, dim=0) if value.ndim and len(value) == rows else value
    if isinstance(value, Mapping):
        return {name: repeated_rows(entry, rows, n) for name, entry in value.items()}
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], str) and len(value) == rows:
        return [entry for entry in value for _ in range(n)]
    if isinstance(value, (list, tuple)):
        return type(value)(repeated_rows(entry, rows, n) for entry in value)
    if hasattr(value, "batch_repeat_interleave"):
        value = copy.deepcopy(value)
        value.batch_repeat_interleave(n)
    return value
