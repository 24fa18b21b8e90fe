"""What an evaluation has to run: tasks, initial states, and one seed for each pair of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...interfaces import ForethoughtError
from .arms import Arm
from .seeds import episode_seed


class TaskLike(Protocol):
    """What an evaluation needs to know about a task (``benchmarks`` defines it)."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def init_states(self) -> int: ...


@dataclass(frozen=True)
class Episode:
    """One episode to run.

    Attributes:
        arm: Name of the arm.
        key: Fingerprint of everything that decides the arm's outcome (see ``arms.arm_key``).
        task_id: Index of the task in its benchmark.
        task: Name of the task.
        init_state: Index of the fixed initial state.
        seed: Seed of the episode, the same in all arms.
    """

    arm: str
    key: str
    task_id: int
    task: str
    init_state: int
    seed: int


def parse_indices(value: object, what: str, count: int) -> tuple[int, ...]:
    """Indices from ``all``, a number, a list, or ranges such as ``0-4,7`` (both ends included), sorted and
    unique.

    Args:
        value: What the user wrote.
        what: The option's name, for the message.
        count: How many there are; indices run from 0 to ``count - 1``.
    """
    if value == "all":
        return tuple(range(count))
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else str(value).split(",")
    chosen: set[int] = set()
    try:
        for part in parts:
            first, _, last = str(part).strip().partition("-")
            chosen.update(range(int(first), int(last or first) + 1))
    except ValueError:
        raise ForethoughtError(
            f"{what}={value} is not a choice of indices. Write for example {what}=0-9, {what}=[0,3,5-7] or "
            f"{what}=all."
        ) from None
    if not chosen:
        raise ForethoughtError(f"{what}={value} chooses nothing. Write for example {what}=0-9 or {what}=all.")
    if max(chosen) >= count:
        raise ForethoughtError(
            f"{what}={value} goes to {max(chosen)}, but there are {count}: give indices from 0 to "
            f"{count - 1}."
        )
    return tuple(sorted(chosen))


def plan_episodes(
    *,
    tasks: Iterable[TaskLike],
    init_states: object,
    arms: Iterable[tuple[Arm, str]],
    seed: int,
    benchmark: str,
    repeats: int = 1,
) -> tuple[Episode, ...]:
    """Every episode, arms innermost, so that pairs finish together.

    Args:
        tasks: The chosen tasks.
        init_states: As in ``parse_indices``; checked against each task.
        arms: Arms with their keys.
        seed: Seed of the evaluation.
        benchmark: Name of the benchmark, part of the seeds.
        repeats: Episodes of each initial state and arm, each with a seed of its own.
    """
    arms = tuple(arms)
    if repeats < 1:
        raise ForethoughtError(f"repeats={repeats}: give at least one episode of each initial state.")
    return tuple(
        Episode(
            arm.name, key, task.id, task.name, state, episode_seed(seed, benchmark, task.name, state, again)
        )
        for task in tasks
        for state in parse_indices(init_states, "init_states", task.init_states)
        for again in range(repeats)
        for arm, key in arms
    )
