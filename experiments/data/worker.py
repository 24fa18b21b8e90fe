"""One process of a collection: plays units that arrive through a pipe and tells how each episode went."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ...interfaces import ForethoughtError
from ..evaluation.parts import build
from .hdf5 import write_episodes
from .record import record_episode
from .sources import Source
from .units import Unit

ATTEMPTS = 8
"""Attempts at one episode where only successes are kept."""


@dataclass(frozen=True)
class Orders:
    """What every unit of a collection has in common.

    Attributes:
        benchmark: ``_target_`` and arguments of the benchmark.
        source: Who acts.
        successes_only: Whether a failed episode is played again with other noise.
        folder: Where the files go.
    """

    benchmark: Mapping[str, Any]
    source: Source
    successes_only: bool
    folder: Path


@dataclass(frozen=True)
class EpisodeDone:
    """An episode was played (and is played again when its unit is interrupted)."""

    task_id: int
    success: bool
    steps: int
    kept: bool


@dataclass(frozen=True)
class UnitDone:
    """A file was written."""

    file: str


@dataclass(frozen=True)
class WorkerFailed:
    """Something went wrong that no retry mends.

    Attributes:
        message: What to tell the user.
        details: The traceback, or nothing where the message says all.
    """

    message: str
    details: str


def work(connection: Connection, orders: Orders) -> None:
    """Main function of a worker. Ends when the pipe closes or None arrives."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _play_units(connection, orders)
    except (EOFError, BrokenPipeError):
        pass
    except ForethoughtError as error:
        connection.send(WorkerFailed(str(error), ""))
    except Exception as error:
        import traceback

        connection.send(WorkerFailed(f"{type(error).__name__}: {error}", traceback.format_exc()))


def _play_units(connection: Connection, orders: Orders) -> None:
    benchmark = build("benchmark", orders.benchmark)
    env, actor, task = None, None, None
    try:
        while (unit := connection.recv()) is not None:
            if task != unit.task_id:
                if env is not None:
                    env.close()
                env = benchmark.make(unit.task_id)
                actor, task = orders.source.actor(env), unit.task_id
            _play_unit(connection, orders, unit, benchmark, env, actor)
    finally:
        if env is not None:
            env.close()


def _play_unit(
    connection: Connection, orders: Orders, unit: Unit, benchmark: Any, env: Any, actor: Any
) -> None:
    recordings = []
    for job in unit.jobs:
        for attempt in range(ATTEMPTS if orders.successes_only else 1):
            recording = record_episode(
                env, actor, init_state=job.init_state, seed=job.seed + attempt, source=orders.source.name
            )
            keep = recording.success or not orders.successes_only
            connection.send(EpisodeDone(unit.task_id, recording.success, len(recording.actions), keep))
            if keep:
                recordings.append(recording)
                break
        else:
            raise ForethoughtError(
                f"'{orders.source.name}' failed {ATTEMPTS} times in a row on task {unit.task_id}, initial "
                "state "
                f"{job.init_state}, where only successes are kept. Keep failures too "
                "(successes_only=False), or lower "
                "the noise."
            )
    task = env.task
    attributes = {
        "problem_info": {
            "problem_name": task.name,
            "domain_name": "robosuite",
            "language_instruction": task.instruction,
        },
        "bddl_file_name": Path(task.bddl_file).name,
        "env_args": {
            "type": 1,
            "env_name": task.name,
            "env_kwargs": {"controller": "OSC_POSE", "control_freq": 20},
        },
        "collected_with": benchmark.describe(),
    }
    write_episodes(orders.folder / unit.file_name, recordings, attributes)
    connection.send(UnitDone(unit.file_name))
