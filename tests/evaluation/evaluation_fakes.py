"""A tiny world with the contracts of the real one: a point that a noisy policy steers to a goal.

Everything is deterministic in (task, init state, seeds). Two environment variables let tests disturb it:
``FAKE_SLEEP_MS`` is slept in every executed chunk; the process that finds the file ``FAKE_CRASH`` removes it
and kills itself in the middle of an episode.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forethought.interfaces import (
    ActionSamples,
    ActionSpec,
    Decision,
    ForethoughtError,
    Observation,
    Prediction,
    Score,
)

SPEC = ActionSpec(low=-np.ones(2, np.float32), high=np.ones(2, np.float32), position=(0, 1))
STEP = 0.1
HORIZON = 2


@dataclass(frozen=True)
class FakeTask:
    id: int
    name: str
    instruction: str
    step_limit: int
    init_states: int


@dataclass(frozen=True)
class FakeStep:
    success: bool
    truncated: bool
    steps: int


class FakeBenchmark:
    def __init__(
        self, tasks: int = 2, init_states: int = 10, camera_size: int = 8, action_size: int = 2
    ) -> None:
        self.name = "fake"
        self.tasks = tuple(FakeTask(i, f"reach_{i}", f"reach {i}", 12, init_states) for i in range(tasks))
        self.camera_size, self.action_size = camera_size, action_size

    def make(self, task_id: int) -> FakeEnvironment:
        return FakeEnvironment(self.tasks[task_id], self.camera_size, self.action_size)

    def describe(self) -> dict[str, Any]:
        return {"suite": "fake", "convention": "fake", "camera_size": self.camera_size}


class FakeEnvironment:
    cameras = ("agentview_rgb",)

    def __init__(self, task: FakeTask, camera_size: int, action_size: int) -> None:
        self.task, self._size = task, camera_size
        self.action_spec = ActionSpec(low=-np.ones(action_size), high=np.ones(action_size), position=(0, 1))
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        init_state = (options or {})["init_state"]
        angle = self.task.id + 0.7 * init_state
        self._point = np.zeros(2)
        self._goal = 0.4 * np.array([np.cos(angle), np.sin(angle)])
        self.steps = 0
        return self.observe(), {}

    def observe(self) -> Observation:
        return Observation(
            images={camera: np.zeros((1, self._size, self._size, 3), np.uint8) for camera in self.cameras},
            proprioception=np.concatenate([self._point, self._goal]).astype(np.float32)[None],
            instruction=(self.task.instruction,),
        )

    def execute(self, chunk: np.ndarray) -> FakeStep:
        time.sleep(float(os.environ.get("FAKE_SLEEP_MS", "0")) / 1e3)
        if self.steps:
            _crash_if_told()
        done = 0
        for action in chunk:
            self._point = self._point + STEP * action
            self.steps += 1
            done += 1
            if self._success() or self.steps >= self.task.step_limit:
                break
        return FakeStep(self._success(), not self._success() and self.steps >= self.task.step_limit, done)

    def save(self) -> Any:
        return self._point.copy(), self._goal.copy(), self.steps

    def restore(self, snapshot: Any) -> None:
        self._point, self._goal, self.steps = snapshot

    def frame(self) -> dict[str, np.ndarray]:
        image = np.full((self._size, self._size, 3), 255, np.uint8)
        row, column = np.clip((0.5 + self._point) * self._size, 0, self._size - 1).astype(int)
        image[row, column] = 0
        return {"agentview_rgb": image}

    def close(self) -> None:
        pass

    def _success(self) -> bool:
        return bool(np.linalg.norm(self._point - self._goal) < 0.06)


def _crash_if_told() -> None:
    told = os.environ.get("FAKE_CRASH")
    if told and Path(told).exists():
        Path(told).unlink()
        os.kill(os.getpid(), signal.SIGKILL)


class FakePolicy:
    """Steers to the goal with noise; ``bias`` bends all of its samples."""

    def __init__(self, noise: float = 0.9, camera: str = "agentview_rgb", action_size: int = 2) -> None:
        self.noise = noise
        self.cameras = (camera,)
        self.action_spec = ActionSpec(low=-np.ones(action_size), high=np.ones(action_size), position=(0, 1))
        self.horizon = HORIZON

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        size = self.action_spec.size
        chunks = np.zeros((observation.batch, n, self.horizon, size), np.float32)
        for row, (state, seed) in enumerate(zip(observation.proprioception, seeds)):
            noise = np.random.default_rng(int(seed)).normal(size=(n, 1, 2)) * self.noise
            way = (state[2:] - state[:2]) / (STEP * self.horizon)
            chunks[row, :, :, :2] = np.clip(way + noise, -1, 1)
        return ActionSamples(chunks)


class FakeWorldModel:
    privileged_supervision = True
    horizon = HORIZON

    def encode(self, observation: Observation) -> np.ndarray:
        return observation.proprioception

    def step(self, latent: Any, chunks: np.ndarray) -> Prediction:
        after = latent.copy()
        after[:, :2] += STEP * chunks.sum(axis=1)
        zeros = np.zeros(len(after), np.float32)
        return Prediction(after, zeros, zeros)


class FakeReward:
    scheme = "distance"

    def score(self, latent: Any, instruction: Any) -> Score:
        value = np.exp(-np.linalg.norm(latent[:, :2] - latent[:, 2:], axis=1)).astype(np.float32)
        return Score(value, np.zeros_like(value))


class FakePlanner:
    """Imagines the policy's samples; ``simulations`` is how many of them."""

    def __init__(
        self, world_model: Any, reward_model: Any, *, action_spec: ActionSpec, memory: Any, simulations: int
    ):
        if simulations < 1:
            raise ForethoughtError(f"simulations must be 1 or more; got {simulations}.")
        self.world_model, self.reward_model, self.simulations = world_model, reward_model, simulations

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        start = time.perf_counter()
        chunks = samples.chunks[0, : self.simulations]
        latent = np.repeat(self.world_model.encode(observation), len(chunks), axis=0)
        encoded = time.perf_counter()
        value = self.reward_model.score(
            self.world_model.step(latent, chunks).latent, observation.instruction
        ).value
        best = int(value.argmax())
        return Decision(
            chunk=chunks[best][None],
            slot=np.array([best], np.int32),
            value=value[[best]],
            policy_value=value[[0]],
            overridden=np.array([best > 0]),
            fallback=np.array([False]),
            reason=("best",),
            simulations=np.array([len(chunks)], np.int32),
            milliseconds={
                "encode": 1e3 * (encoded - start),
                "search": 1e3 * (time.perf_counter() - encoded),
            },
        )


class NanWorldModel(FakeWorldModel):
    """As if its weights were broken."""

    def step(self, latent: Any, chunks: np.ndarray) -> Prediction:
        prediction = super().step(latent, chunks)
        return Prediction(prediction.latent * np.nan, prediction.disagreement, prediction.done)
