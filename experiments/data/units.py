"""Work units: which episodes exist, which file holds them, and which of them are still to be collected."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

UNIT_EPISODES = 10
_NAME = re.compile(r"task(\d+)_episodes(\d+)-(\d+)\.hdf5")


@dataclass(frozen=True)
class Job:
    """One episode to be played.

    Attributes:
        index: Its number within the task.
        init_state: Initial state.
        seed: Seed of the episode; a repeated attempt adds its number.
    """

    index: int
    init_state: int
    seed: int


@dataclass(frozen=True)
class Unit:
    """Episodes of one task that share a file.

    Attributes:
        task_id: The task.
        jobs: Its episodes, consecutive indices.
    """

    task_id: int
    jobs: tuple[Job, ...]

    @property
    def file_name(self) -> str:
        """The file's name says which episodes it holds, so that a listing of the folder is the record of
        progress.
        """
        return f"task{self.task_id:02d}_episodes{self.jobs[0].index:05d}-{self.jobs[-1].index:05d}.hdf5"


def plan_units(
    folder: Path,
    suite: str,
    tasks: Sequence[int],
    init_states: Sequence[int],
    episodes_per_task: int,
    seed: int,
) -> list[Unit]:
    """Units that the folder lacks.

    Episode i of a task is the same whenever, and however often, this is asked.
    """
    units = []
    for task in tasks:
        finished = finished_episodes(folder, task)
        order = np.random.default_rng(stable_hash(seed, suite, task, "init states")).permutation(
            len(init_states)
        )
        run: list[Job] = []
        for index in range(episodes_per_task):
            if index not in finished:
                state = init_states[int(order[index % len(order)])]
                run.append(Job(index, int(state), stable_hash(seed, suite, task, index)))
            if run and (index in finished or len(run) == UNIT_EPISODES or index == episodes_per_task - 1):
                units.append(Unit(task, tuple(run)))
                run = []
    return units


def finished_episodes(folder: Path, task: int) -> set[int]:
    """Indices of a task's episodes that finished files hold."""
    finished: set[int] = set()
    for path in folder.glob("task*_episodes*.hdf5"):
        match = _NAME.fullmatch(path.name)
        if match and int(match[1]) == task:
            finished.update(range(int(match[2]), int(match[3]) + 1))
    return finished


def stable_hash(*parts: object) -> int:
    """A number below 2**62 that depends on the parts only, in every process and on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2
