"""A call that is given up when it takes too long."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class DeadlineExceeded(Exception):
    """The call did not return in time, or an earlier one that was given up still runs."""


@dataclass(eq=False)
class _Job:
    call: Callable[[], Any]
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: BaseException | None = None


class DeadlineRunner:
    """Runs calls one at a time in a thread of its own, and stops waiting after a while.

    Python cannot end a thread: a call that was given up runs to its end in the background, its result is
    dropped, and calls that come meanwhile are refused at once.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] | None = None
        self._unfinished: _Job | None = None

    def run(self, call: Callable[[], Any], milliseconds: float) -> Any:
        """The result of ``call()``, or DeadlineExceeded when it takes longer. Raises what the call raises."""
        if self._unfinished is not None and not self._unfinished.done.is_set():
            raise DeadlineExceeded("an earlier call is still running")
        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            # A daemon, so that a call that never returns does not keep the process alive.
            threading.Thread(
                target=_serve, args=(self._jobs,), name="forethought-planner", daemon=True
            ).start()
            weakref.finalize(self, self._jobs.put, None)  # with the runner its thread ends too
        job = self._unfinished = _Job(call)
        self._jobs.put(job)
        if not job.done.wait(milliseconds / 1e3):
            raise DeadlineExceeded(f"no result after {milliseconds:g} ms")
        self._unfinished = None
        if job.error is not None:
            raise job.error
        return job.result


def _serve(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job.result = job.call()
        except BaseException as error:  # handed to whoever waits
            job.error = error
        job.done.set()
        del job
