"""Collects episodes with several processes, into one folder, safe against interruption.

A finished unit of ten episodes is one file that appears under its name only when it is whole. Starting again
with the same arguments plays what is missing and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ...interfaces import ForethoughtError
from ..evaluation.parts import build
from .progress import Progress
from .sources import Source
from .units import Unit, plan_units
from .worker import EpisodeDone, Orders, UnitDone, WorkerFailed, work

FIRST_RESERVED_STATE = 30
"""Initial states from here on are kept for final tables."""
CRASHES_PER_UNIT = 2
SILENCE = 900.0
"""Seconds without a word after which a worker counts as hanging; an episode takes some seconds."""
_WORKER_ENVIRONMENT = {
    "MUJOCO_GL": "egl",
    "LP_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Collection:
    """What a call of `collect` left behind.

    Attributes:
        folder: Where the files are.
        episodes: Episodes kept by this call.
        successes: Successes among the episodes played by this call, kept or not.
        played: Episodes played by this call.
        steps: Control steps of them.
        seconds: Wall time.
        by_task: Task id to (successes, played).
    """

    folder: Path
    episodes: int
    successes: int
    played: int
    steps: int
    seconds: float
    by_task: Mapping[int, tuple[int, int]]


def collect(
    benchmark: Mapping[str, Any],
    source: Source,
    *,
    out: str | Path,
    episodes_per_task: int,
    tasks: Sequence[int] | None = None,
    init_states: Sequence[int] = tuple(range(FIRST_RESERVED_STATE)),
    workers: int = 1,
    seed: int = 0,
    successes_only: bool = False,
    allow_evaluation_states: bool = False,
    quiet: bool = False,
) -> Collection:
    """Collect episodes of a benchmark's tasks.

    Args:
        benchmark: ``_target_`` and arguments of what builds the benchmark, such as
            ``{"_target_": "forethought.experiments.benchmarks.libero.LiberoBenchmark", "suite":
            "libero_object"}``.
        source: Who acts.
        out: Folder for the files; made when missing. A folder belongs to one set of arguments (the number of
            episodes and of workers aside).
        episodes_per_task: Episodes each task has in the end, those of earlier calls included.
        tasks: Task ids; None takes all.
        init_states: Initial states, visited in a shuffled order that the seed decides.
        workers: Processes.
        seed: Decides every episode's seed.
        successes_only: Play a failed episode again with other noise, and keep successes only.
        allow_evaluation_states: Permit initial states 30 and up, reserved for evaluation.
        quiet: Show no progress.

    Raises:
        ForethoughtError: The arguments make no sense, the folder cannot be written or belongs to something
            else, or a worker failed.
    """
    init_states = _check_init_states(init_states, allow_evaluation_states)
    if episodes_per_task < 1 or workers < 1:
        raise ForethoughtError(
            f"episodes_per_task={episodes_per_task}, workers={workers}; expected at least 1 of each."
        )
    with _environment(), _locked(_writable_folder(Path(out))) as folder:
        name, tasks = _check_tasks(benchmark, tasks, init_states)
        _claim(folder, benchmark, source, init_states, seed, successes_only)
        for leftover in folder.glob("*.partial"):
            leftover.unlink()
        units = plan_units(folder, name, tasks, init_states, episodes_per_task, seed)
        orders = Orders(
            benchmark=_plain(benchmark), source=source, successes_only=successes_only, folder=folder
        )
        with Progress(sum(len(unit.jobs) for unit in units), quiet=quiet) as progress:
            started = time.monotonic()
            if units:
                _Crew(orders, units, min(workers, len(units)), progress).run()
            return Collection(
                folder=folder,
                episodes=progress.kept,
                successes=progress.successes,
                played=progress.played,
                steps=progress.steps,
                seconds=time.monotonic() - started,
                by_task=dict(progress.by_task),
            )


class _Crew:
    """The workers: hands out units, repeats those of a worker that died, and leaves no process behind."""

    def __init__(self, orders: Orders, units: list[Unit], size: int, progress: Progress) -> None:
        self._orders, self._progress = orders, progress
        self._waiting = deque(units)
        self._busy: dict[Connection, Unit] = {}
        self._crashes: dict[str, int] = {}
        self._processes: dict[Connection, Any] = {}
        self._heard: dict[Connection, float] = {}
        self._kept: dict[Connection, int] = {}
        self._size = size

    def run(self) -> None:
        try:
            for _ in range(self._size):
                self._hire()
            while self._busy:
                for connection in wait(list(self._busy), timeout=60.0):
                    assert isinstance(connection, Connection)
                    self._heard[connection] = time.monotonic()
                    self._hear(connection)
                for connection in [c for c in self._busy if time.monotonic() - self._heard[c] > SILENCE]:
                    self._processes[connection].kill()
                    self._replace(connection)
        except KeyboardInterrupt:
            raise ForethoughtError(
                f"Stopped. The finished files in '{self._orders.folder}' are whole; the same command goes "
                "on from there."
            ) from None
        finally:
            self._dismiss()

    def _hire(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self._orders), daemon=True)
        with _uninterrupted():
            process.start()
        self._heard[ours] = time.monotonic()
        theirs.close()
        self._processes[ours] = process
        self._hand_out(ours)

    def _hand_out(self, connection: Connection) -> None:
        """The next unit, of the task that the worker has an environment for where there is one."""
        last = self._busy.pop(connection, None)
        if not self._waiting:
            with contextlib.suppress(OSError):
                connection.send(None)
            return
        same = (u for u in self._waiting if last is not None and u.task_id == last.task_id)
        taken = {unit.task_id for unit in self._busy.values()}
        fresh = (u for u in self._waiting if u.task_id not in taken)
        unit = next(same, None) or next(fresh, None) or self._waiting[0]
        self._waiting.remove(unit)
        self._busy[connection] = unit
        self._kept[connection] = 0
        with contextlib.suppress(OSError):  # a dead worker is noticed where its pipe is read
            connection.send(unit)

    def _hear(self, connection: Connection) -> None:
        try:
            message = connection.recv()
        except (EOFError, ConnectionResetError):
            self._replace(connection)
            return
        if isinstance(message, EpisodeDone):
            self._kept[connection] += message.kept
            self._progress.episode(message)
        elif isinstance(message, UnitDone):
            self._hand_out(connection)
        elif isinstance(message, WorkerFailed):
            details = f"\n{message.details}" if message.details else ""
            raise ForethoughtError(f"collecting stopped: {message.message}{details}")

    def _replace(self, connection: Connection) -> None:
        """A worker died without a word: the simulator or the graphics driver took it down."""
        unit = self._busy.pop(connection)
        process = self._processes.pop(connection)
        process.join()
        connection.close()
        self._progress.forget(self._kept.pop(connection))
        count = self._crashes[unit.file_name] = self._crashes.get(unit.file_name, 0) + 1
        if count > CRASHES_PER_UNIT:
            raise ForethoughtError(
                f"a worker process died {count} times (exit code {process.exitcode}) on {unit.file_name}. "
                "Use fewer workers if memory is short (1.5 GB each), or try MUJOCO_GL=osmesa. The finished "
                "files are kept."
            )
        self._waiting.appendleft(unit)
        self._hire()

    def _dismiss(self) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.join(timeout=0.0 if self._busy else 10.0)
            if process.is_alive():
                process.terminate()
                process.join(timeout=5.0)
            if process.is_alive():
                process.kill()
                process.join()
        for leftover in self._orders.folder.glob("*.partial"):
            leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes started here never see the terminal's Ctrl-C: stopping them is this process's affair."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _check_init_states(init_states: Sequence[int], allowed: bool) -> tuple[int, ...]:
    states = tuple(int(state) for state in init_states)
    if not states or min(states) < 0 or len(set(states)) != len(states):
        raise ForethoughtError(
            f"init_states={list(states)}; expected distinct numbers from 0 on, at least one."
        )
    reserved = [state for state in states if state >= FIRST_RESERVED_STATE]
    if reserved and not allowed:
        raise ForethoughtError(
            f"init_states holds {reserved}, which are reserved for evaluation: data from them would make "
            "its numbers "
            f"worthless. Use 0 to {FIRST_RESERVED_STATE - 1}, or pass allow_evaluation_states=True and "
            "report it."
        )
    return states


def _check_tasks(
    benchmark: Mapping[str, Any], tasks: Sequence[int] | None, init_states: tuple[int, ...]
) -> tuple[str, tuple[int, ...]]:
    built = build("benchmark", _plain(benchmark))
    known = {task.id: task for task in built.tasks}
    chosen = tuple(known) if tasks is None else tuple(int(task) for task in tasks)
    unknown = [task for task in chosen if task not in known]
    if unknown or not chosen or len(set(chosen)) != len(chosen):
        raise ForethoughtError(
            f"tasks={list(chosen)}; '{built.name}' has the tasks 0 to {len(known) - 1}. Name each once."
        )
    for task in chosen:
        if max(init_states) >= known[task].init_states:
            raise ForethoughtError(
                f"initial state {max(init_states)} was asked for; task {task} of '{built.name}' has "
                f"{known[task].init_states} (0 to {known[task].init_states - 1})."
            )
    return built.name, chosen


def _writable_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ForethoughtError(
            f"the output folder '{folder}' cannot be written: {error}. Choose another with out=..."
        ) from error
    return folder.resolve()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Two collections into one folder at a time would play the same episodes twice."""
    import fcntl

    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ForethoughtError(
                f"another process is collecting into '{folder}'. Wait for it, or choose another folder."
            ) from None
        yield folder


def _claim(
    folder: Path,
    benchmark: Mapping[str, Any],
    source: Source,
    init_states: tuple[int, ...],
    seed: int,
    successes_only: bool,
) -> None:
    """Note in the folder what it holds, or refuse to mix two kinds of data in one folder."""
    described = asdict(source) if is_dataclass(source) and not isinstance(source, type) else repr(source)
    wanted = {
        "benchmark": _plain(benchmark),
        "source": {"kind": type(source).__name__, "options": described},
        "init_states": list(init_states),
        "seed": seed,
        "successes_only": successes_only,
    }
    wanted = json.loads(json.dumps(wanted, default=str))
    record = folder / "collection.json"
    if not record.exists():
        if any(folder.glob("*.hdf5")):
            raise ForethoughtError(
                f"'{folder}' holds HDF5 files that this program did not collect there. Choose an empty "
                "folder."
            )
        temporary = folder / "collection.json.partial"
        temporary.write_text(json.dumps(wanted, indent=2) + "\n")
        os.replace(temporary, record)
        return
    try:
        found = json.loads(record.read_text())
    except ValueError as error:
        raise ForethoughtError(f"'{record}' is not JSON ({error}). Choose an empty folder.") from error
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        lines = "; ".join(f"{key} was {found.get(key)}, is now {wanted[key]}" for key in differing)
        raise ForethoughtError(
            f"'{folder}' holds episodes collected otherwise: {lines}. Choose another folder, or the earlier "
            "arguments."
        )


def _plain(config: Any) -> Any:
    """A configuration as plain containers, whatever kind of mapping it came as."""
    if isinstance(config, Mapping):
        return {str(key): _plain(value) for key, value in config.items()}
    if isinstance(config, Sequence) and not isinstance(config, str | bytes):
        return [_plain(value) for value in config]
    return config


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Settings that the workers inherit: headless rendering, one thread each. What the user set stays."""
    added = [name for name in _WORKER_ENVIRONMENT if name not in os.environ]
    os.environ.update({name: _WORKER_ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
