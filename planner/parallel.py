"""Compiled loops over many rows, side by side on several cores."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numba

Result = TypeVar("Result")

_lock = threading.Lock()
_pools: list[ThreadPoolExecutor] = []


def split(part: Callable[[int, int], Result], count: int, at_least: int) -> list[Result]:
    """``part(start, stop)`` over the whole of ``range(count)``, in pieces of ``at_least`` that run in threads
    of their own; the results in order.

    As many threads as ``numba.get_num_threads()`` says, all cores by default. The parts must write to
    places of their own, and gain by this only while they run without the interpreter's lock.
    """
    pieces = min(numba.get_num_threads(), count // at_least)
    if pieces < 2:
        return [part(0, count)]
    bounds = [count * piece // pieces for piece in range(pieces + 1)]
    others: list[Future[Result]] = [
        _pool().submit(part, start, stop) for start, stop in zip(bounds[1:-1], bounds[2:])
    ]
    first = part(bounds[0], bounds[1])
    return [first, *(other.result() for other in others)]


def _pool() -> ThreadPoolExecutor:
    with _lock:
        if not _pools:
            _pools.append(ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, "forethought-loops"))
        return _pools[0]
