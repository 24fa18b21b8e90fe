"""Compiled loops over many rows, side by side on several cores."""

from __future__ import annotations

import functools
import importlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar

import numba.core.config
from numba import get_num_threads, set_num_threads

Result = TypeVar("Result")

_config: Any = numba.core.config  # which makes its attributes at run time
_lock = threading.Lock()
_pools: list[ThreadPoolExecutor] = []
_most: list[int] = []
_forked: list[bool] = []


def _after_fork() -> None:
    _pools.clear()  # threads do not survive a fork
    _forked.append(True)


os.register_at_fork(after_in_child=_after_fork)


def threads() -> int:
    """How many cores a loop may use: as ``at_most`` says, else the environment variable OMP_NUM_THREADS, else
    all that the process may run on. (Numba's own number would start numba's threads when asked.)"""
    if _most:
        return _most[-1]
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else len(os.sched_getaffinity(0))


@contextmanager
def at_most(number: int) -> Iterator[None]:
    """Loops use no more threads than that meanwhile, in the whole process."""
    _most.append(number)
    try:
        yield
    finally:
        _most.pop()


MANY = 4
"""Trees that are worth a thread."""


def side_by_side(trees: int) -> int:
    """In how many parts a loop over ``prange`` should share so many trees: 1 where numba has no threads that
    several threads of ours may call at once, and in the child of a fork, which OpenMP would end."""
    parts = trees // MANY
    if parts < 2 or (parts := min(parts, threads(), int(_config.NUMBA_NUM_THREADS))) < 2:
        return 1
    return parts if not _forked and _has_threads() else 1


@functools.cache
def _has_threads() -> bool:
    """Whether numba finds OpenMP or TBB, whose threads wait awake for a moment: waking ours takes as long as
    most of these loops."""
    if _config.THREADING_LAYER not in ("default", "threadsafe", "omp", "tbb"):
        return False
    for layer in ("tbbpool", "omppool"):
        try:
            importlib.import_module(f"numba.np.ufunc.{layer}")
        except ImportError:
            continue
        return True
    return False


def together(loop: Callable[..., Result], parts: int, *given: Any) -> Result:
    """What a compiled ``loop(parts, *given)`` over ``prange(parts)`` says, run by so many threads."""
    before = get_num_threads()
    set_num_threads(parts)
    try:
        return loop(parts, *given)
    finally:
        set_num_threads(before)


def split(part: Callable[[int, int], Result], count: int, at_least: int) -> list[Result]:
    """``part(start, stop)`` over the whole of ``range(count)``, in pieces of ``at_least`` that run in threads
    of their own; the results in order.

    The parts must write to places of their own, and gain by this only while they run without the
    interpreter's lock.
    """
    pieces = count // at_least
    pieces = min(threads(), pieces) if pieces > 1 else 1
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
