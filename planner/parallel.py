"""Compiled loops over many rows, side by side on several cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numba

Result = TypeVar("Result")

_lock = threading.Lock()
_pools: list[ThreadPoolExecutor] = []
os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


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
    here, *elsewhere = pairwise(bounds)
    others: list[Future[Result]] = [_pool().submit(part, start, stop) for start, stop in elsewhere]
    first = part(*here)
    return [first, *(other.result() for other in others)]


def _pool() -> ThreadPoolExecutor:
    with _lock:
        if not _pools:
            _pools.append(ThreadPoolExecutor(os.cpu_count(), "forethought-loops"))
        return _pools[0]
