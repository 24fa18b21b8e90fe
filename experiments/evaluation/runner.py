"""Runs episodes in worker processes and hands each result on as it comes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from ...interfaces import ForethoughtError
from .plan import Episode
from .store import EpisodeResult
from .worker import Failed, Message, Refused, Setup, Started, work


class Schedule:
    """Episodes still to run, handed out so that a worker seldom changes its task (an environment costs
    seconds)."""

    def __init__(self, episodes: Iterable[Episode]) -> None:
        self._waiting: dict[int, deque[Episode]] = defaultdict(deque)
        for episode in episodes:
            self._waiting[episode.task_id].append(episode)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    def next(self, task: int | None, elsewhere: Mapping[int, int]) -> Episode | None:
        """The next episode for a worker that has an environment of ``task``.

        Args:
            task: The worker's task, or None.
            elsewhere: Task to the number of other workers on it.
        """
        if task is not None and self._waiting[task]:
            return self._waiting[task].popleft()
        left = {task: len(queue) for task, queue in self._waiting.items() if queue}
        if not left:
            return None
        most = max(left, key=lambda task: (left[task] / (1 + elsewhere.get(task, 0)), -task))
        return self._waiting[most].popleft()

    def again(self, episode: Episode) -> None:
        """Puts an episode back, first in its task."""
        self._waiting[episode.task_id].appendleft(episode)


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection
    episode: Episode | None = None
    since: float = 0.0
    task: int | None = None

    def give(self, episode: Episode) -> None:
        self.episode, self.task, self.since = episode, episode.task_id, time.monotonic()
        self.connection.send(episode)


class Runner:
    """Worker processes and what they still have to do.

    Args:
        setup: Handed to every worker.
        workers: Number of processes.
        attempts: How often an episode is tried that raises or takes its worker down.
        timeout: Seconds after which an episode counts as hung and its worker is ended.
        started: Called with every worker's facts (see ``worker.Started``).
        done: Called with every finished episode.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        workers: int,
        attempts: int = 3,
        timeout: float = 1800.0,
        started: Callable[[Mapping[str, Mapping[str, Any]]], None],
        done: Callable[[Episode, EpisodeResult], None],
    ) -> None:
        if workers < 1:
            raise ForethoughtError(f"workers={workers}: give 1 or more processes.")
        if attempts < 1 or timeout <= 0:
            raise ForethoughtError(
                f"attempts={attempts}, timeout={timeout}: give at least 1, and more than 0 seconds."
            )
        self._setup, self._count, self._attempts, self._timeout = setup, workers, attempts, timeout
        self._started, self._done = started, done
        self._context = _spawn_context()
        self._workers: list[_Worker] = []
        self._leaving: list[_Worker] = []
        self._tries: dict[Episode, int] = defaultdict(int)
        self._fruitless = 0
        self.failures: dict[Episode, str] = {}

    def run(self, episodes: Iterable[Episode]) -> dict[Episode, str]:
        """Runs the episodes. Returns those that failed at every attempt, with what happened.

        Raises:
            ForethoughtError: The parts cannot be loaded or do not fit, or workers die without finishing
                anything.
        """
        schedule = Schedule(episodes)
        try:
            for _ in range(min(self._count, len(schedule))):
                self._hire(schedule)
            while self._workers:
                self._step(schedule)
        finally:
            self._stop()
        return self.failures

    def _step(self, schedule: Schedule) -> None:
        busy = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(busy), timeout=1.0):
            worker = busy[connection]  # type: ignore[index]
            try:
                message: Message = worker.connection.recv()
            except (EOFError, OSError):
                self._lost(worker, schedule, "")
                continue
            self._receive(worker, message, schedule)
        for worker in list(self._workers):
            if worker.episode is not None and time.monotonic() - worker.since > self._timeout:
                self._lost(worker, schedule, f"no result after {self._timeout:g} s (timeout=...)")

    def _receive(self, worker: _Worker, message: Message, schedule: Schedule) -> None:
        if isinstance(message, Refused):
            error = ForethoughtError(message.message)
            error.add_note(message.trace)
            raise error
        if isinstance(message, Started):
            self._started(message.facts)
            return
        if isinstance(message, Failed):
            worker.task = None
            self._retry(message.episode, message.message, schedule)
            self._feed(worker, schedule)
            self._give_up_after_too_many(message.message)
            return
        self._fruitless = 0
        self._feed(worker, schedule)  # first, so that the worker does not wait for the disk
        self._done(message.episode, message.result)

    def _feed(self, worker: _Worker, schedule: Schedule) -> None:
        worker.episode = None
        others = [other.task for other in self._workers if other is not worker and other.task is not None]
        episode = schedule.next(worker.task, {task: others.count(task) for task in others})
        if episode is None:
            self._workers.remove(worker)
            self._leaving.append(worker)
            worker.connection.send(None)
        else:
            worker.give(episode)

    def _hire(self, schedule: Schedule) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=work, args=(theirs, self._setup, time.monotonic()), name="evaluation-worker", daemon=True
        )
        with environment_variables(self._setup.environment):
            process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        self._feed(worker, schedule)

    def _lost(self, worker: _Worker, schedule: Schedule, reason: str) -> None:
        self._workers.remove(worker)
        worker.process.kill() if reason else worker.process.join(timeout=10)
        worker.process.join(timeout=10)
        worker.connection.close()
        reason = reason or f"its worker died ({_exit(worker.process.exitcode)})"
        if worker.episode is not None:
            self._retry(worker.episode, reason, schedule)
        self._give_up_after_too_many(reason)
        if len(schedule):
            self._hire(schedule)

    def _give_up_after_too_many(self, reason: str) -> None:
        self._fruitless += 1
        if self._fruitless > 2 * (self._count + self._attempts):
            raise ForethoughtError(
                f"{self._fruitless} episodes failed one after another; the last: {reason}. What the workers "
                f"printed is in {self._setup.log}. Finished episodes are kept: the same command goes on "
                "from there."
            )

    def _retry(self, episode: Episode, reason: str, schedule: Schedule) -> None:
        self._tries[episode] += 1
        if self._tries[episode] < self._attempts:
            schedule.again(episode)
        else:
            self.failures[episode] = reason

    def _stop(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._leaving:
            worker.process.join(timeout=20)
            worker.process.kill()
        for worker in (*self._workers, *self._leaving):
            worker.process.join(timeout=10)
            worker.connection.close()
        self._workers.clear()
        self._leaving.clear()


def _spawn_context() -> SpawnContext:
    """New interpreters: neither GL nor torch survives a fork.

    Inside a job of joblib's launcher the default start method is joblib's own, which a new interpreter would
    look for in vain.
    """
    if multiprocessing.get_start_method(allow_none=True) not in (
        None,
        *multiprocessing.get_all_start_methods(),
    ):
        multiprocessing.set_start_method("spawn", force=True)
    return multiprocessing.get_context("spawn")


def _exit(code: int | None) -> str:
    if code == -9:
        return "killed; often for lack of memory: use fewer workers"
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


@contextmanager
def environment_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for processes started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
