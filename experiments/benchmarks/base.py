"""What a benchmark and its environments must be able to do, whoever simulates them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...interfaces import ActionSpec, ForethoughtError, Observation


@dataclass(frozen=True)
class Task:
    """One task of a suite.

    Attributes:
        id: Its place in the suite, from 0.
        name: Its name in the suite's files.
        instruction: What the policy is told.
        step_limit: Control steps before the episode counts as failed.
        init_states: How many fixed initial states come with it.
        bddl_file: Path of the task's definition.
    """

    id: int
    name: str
    instruction: str
    step_limit: int
    init_states: int
    bddl_file: str


@dataclass(frozen=True)
class StepResult:
    """What came of a chunk.

    Attributes:
        success: Whether the task is solved; the chunk stops there.
        truncated: Whether the step limit was reached without success; the chunk stops there.
        steps: Control steps executed, at most the chunk's length and 0 in a finished episode.
    """

    success: bool
    truncated: bool
    steps: int


class Environment(Protocol):
    """One simulated robot (B = 1) with exact snapshots."""

    task: Task
    action_spec: ActionSpec
    cameras: tuple[str, ...]

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; ``options={"init_state": i}`` names the fixed initial state."""
        ...

    def observe(self) -> Observation:
        """Images and proprioception of this moment."""
        ...

    def execute(self, chunk: np.ndarray) -> StepResult:
        """Carry out ``[H, A]`` actions without rendering, stopping at success or at the step limit."""
        ...

    def proprioception(self) -> np.ndarray:
        """``float32 [P]`` without rendering."""
        ...

    def privileged_state(self) -> np.ndarray:
        """``float32 [18]``: the poses of the two objects of interest; never shown to a policy."""
        ...

    def save(self) -> Any:
        """Everything that decides what happens next."""
        ...

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot of this task, bit for bit."""
        ...

    def close(self) -> None:
        """Free the simulator."""
        ...


class Benchmark(Protocol):
    """A suite of tasks."""

    name: str
    tasks: tuple[Task, ...]

    def make(self, task_id: int) -> Environment:
        """A new environment of one task."""
        ...

    def describe(self) -> dict[str, Any]:
        """Everything that a reader needs to repeat a result; JSON-serialisable."""
        ...


def check_chunk(chunk: np.ndarray, action_spec: ActionSpec) -> np.ndarray:
    """The chunk ``[H, A]`` as ``float64``, or an error: nothing malformed or non-finite reaches the
    physics."""
    actions = np.asarray(chunk)
    if actions.ndim != 2 or actions.shape[1] != action_spec.size or actions.dtype.kind not in "fiu":
        raise ForethoughtError(
            f"execute() got an array of shape {actions.shape} and type {actions.dtype}; it expects one chunk "
            f"of numbers [H, {action_spec.size}] in environment units. Pass decision.chunk[0] for "
            "environment 0 of a batch."
        )
    if not np.isfinite(actions).all():
        step, index = np.argwhere(~np.isfinite(actions))[0]
        raise ForethoughtError(
            f"execute() got a non-finite action: chunk[{step}, {index}] = {actions[step, index]}. Actions "
            "must be finite; drive the policy through forethought.wrap(), whose guard replaces such actions, "
            "or check the policy's normalisation statistics."
        )
    return actions.astype(np.float64)
