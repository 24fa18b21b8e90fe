"""A benchmark of a point on a line, fast enough to collect from in real worker processes."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forethought.interfaces import ActionSamples, ActionSpec, Observation

SPEC = ActionSpec(
    low=-np.ones(7, np.float32),
    high=np.ones(7, np.float32),
    position=(0, 1, 2),
    rotation=(3, 4, 5),
    gripper=(6,),
)
HORIZON = 4


@dataclass(frozen=True)
class Task:
    id: int
    name: str
    instruction: str
    step_limit: int = 18
    init_states: int = 50
    bddl_file: str = "line.bddl"


@dataclass(frozen=True)
class Result:
    success: bool
    truncated: bool
    steps: int


class LineBenchmark:
    """The point starts at minus its initial state / 100 and has succeeded past 0.5."""

    def __init__(self, suite: str = "line", tasks: int = 2) -> None:
        self.name = suite
        self.tasks = tuple(Task(i, f"task {i}", f"go right {i}") for i in range(tasks))

    def make(self, task_id: int) -> LineEnv:
        return LineEnv(self.tasks[task_id])

    def describe(self) -> dict[str, Any]:
        return {"suite": self.name}


class LineEnv:
    cameras = ("agentview_rgb",)
    action_spec = SPEC

    def __init__(self, task: Task) -> None:
        self.task = task

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Observation, dict[str, Any]]:
        self.x, self.steps = -options["init_state"] / 100.0, 0
        return self.observe(), {}

    def observe(self) -> Observation:
        image = np.zeros((1, 8, 8, 3), np.uint8)
        image[0, 0, 0] = self.steps
        return Observation({"agentview_rgb": image}, self.proprioception()[None], (self.task.instruction,))

    def execute(self, chunk: np.ndarray) -> Result:
        assert chunk.shape == (1, 7)
        self.x += 0.1 * float(chunk[0, 0])
        self.steps += 1
        success = self.x > 0.5
        return Result(success, not success and self.steps >= self.task.step_limit, 1)

    def proprioception(self) -> np.ndarray:
        return np.array([self.x, 0, 0, 0, 0, 0, 0.04, -0.04], np.float32)

    def privileged_state(self) -> np.ndarray:
        return np.full(18, self.steps, np.float32)

    def close(self) -> None:
        pass


class RightPolicy:
    """Goes right. Optionally dies once like a crashing driver, some episodes on, or dawdles."""

    horizon = HORIZON
    action_spec = SPEC

    def __init__(self, speed: float = 0.8, crash_once: str = "", seconds: float = 0.0) -> None:
        self._calls = 0
        self._speed, self._crash_once, self._seconds = speed, crash_once, seconds

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        self._calls += 1
        if self._crash_once and self._calls == 5 and not Path(self._crash_once).exists():
            Path(self._crash_once).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._seconds)
        chunk = np.zeros((observation.batch, n, HORIZON, 7), np.float32)
        chunk[..., 0], chunk[..., 6] = self._speed, -1.0
        return ActionSamples(chunk)
