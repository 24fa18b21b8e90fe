"""The world of ``episodes.py`` as a benchmark: a gripper that must reach a square, with exact snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from episodes import CAMERA, HORIZON, picture

from forethought.experiments.benchmarks.libero import ACTION_SPEC
from forethought.experiments.data.hdf5 import Recording, read_episodes, write_episodes
from forethought.interfaces import ActionSamples, Observation

STEP = 0.05


@dataclass(frozen=True)
class Task:
    id: int
    name: str
    instruction: str
    step_limit: int = 24
    init_states: int = 50
    bddl_file: str = "reach.bddl"


@dataclass(frozen=True)
class Result:
    success: bool
    truncated: bool
    steps: int


class ReachBenchmark:
    def __init__(self) -> None:
        self.name = "reach"
        self.tasks = (Task(0, "reach", "reach the square"),)

    def make(self, task_id: int) -> ReachEnv:
        return ReachEnv(self.tasks[task_id])

    def describe(self) -> dict[str, Any]:
        return {"suite": self.name}


class ReachEnv:
    cameras = (CAMERA,)
    action_spec = ACTION_SPEC

    def __init__(self, task: Task) -> None:
        self.task = task

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Observation, dict[str, Any]]:
        place = np.random.default_rng(1000 + options["init_state"]).uniform(-0.3, 0.3, 2)
        self.hand, self.target = np.zeros(3), np.append(place, 0.0)
        self.steps, self.success = 0, False
        return self.observe(), {}

    def observe(self) -> Observation:
        return Observation(
            {CAMERA: picture(self.target - self.hand)[None]},
            self.proprioception()[None],
            (self.task.instruction,),
        )

    def execute(self, chunk: np.ndarray) -> Result:
        done = 0
        for action in chunk:
            if self.success or self.steps >= self.task.step_limit:
                break
            self.hand = self.hand + STEP * np.clip(np.asarray(action[:3], float), -1, 1)
            self.steps, done = self.steps + 1, done + 1
            self.success = bool(np.linalg.norm((self.target - self.hand)[:2]) < 0.03)
        return Result(self.success, not self.success and self.steps >= self.task.step_limit, done)

    def proprioception(self) -> np.ndarray:
        return np.array([*self.hand, 0, 0, 0, 0.04, -0.04], np.float32)

    def privileged_state(self) -> np.ndarray:
        return np.concatenate([self.target, [1, 0, 0, 0, 1, 0], np.zeros(9)]).astype(np.float32)

    def save(self) -> Any:
        return self.hand.copy(), self.target.copy(), self.steps, self.success

    def restore(self, snapshot: Any) -> None:
        hand, target, self.steps, self.success = snapshot
        self.hand, self.target = hand.copy(), target.copy()

    def close(self) -> None:
        pass


class ReachPolicy:
    """Goes towards the square that it sees, at ``speed``, bent to the side by ``bend`` radians. Further
    samples wobble by ``wobble``."""

    horizon = HORIZON
    action_spec = ACTION_SPEC
    cameras = (CAMERA,)

    def __init__(self, speed: float = 0.25, bend: float = 0.0, wobble: float = 0.0) -> None:
        self.speed, self.bend, self.wobble = speed, bend, wobble

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        chunks = np.zeros((observation.batch, n, self.horizon, 7), np.float32)
        turn = np.array([[np.cos(self.bend), -np.sin(self.bend)], [np.sin(self.bend), np.cos(self.bend)]])
        for row, (image, seed) in enumerate(zip(observation.images[CAMERA], seeds)):
            rows, columns = np.nonzero(image[..., 0])
            size = image.shape[0]
            gap = np.array([rows.mean(), columns.mean()]) / 20 - size / 40
            way = gap / max(np.abs(gap).max(), STEP * self.horizon * self.speed) * self.speed
            noise = self.wobble * np.random.default_rng(int(seed)).normal(size=(n, 1, 2))
            noise[0] = 0
            chunks[row, ..., :2] = np.clip(turn @ way + noise, -1, 1)
        chunks[..., 6] = -1
        return ActionSamples(chunks)


def write_other_suite(folder: Path, count: int) -> Path:
    """Episodes of another task that looks alike: the hand must reach a place that no picture shows, and the
    square is a bystander."""
    recordings = []
    for seed in range(count):
        rng = np.random.default_rng(9000 + seed)
        hand, square = np.append(rng.uniform(-0.3, 0.3, 2), 0.0), np.append(rng.uniform(-0.3, 0.3, 2), 0.0)
        goal = np.array([0.25, -0.15, 0.0])
        actions, bodies, frames = [], [[*hand, 0, 0, 0, 0.04, -0.04]], [picture(square - hand)]
        success = False
        while len(actions) < 24 and not success:
            aim = np.clip((goal - hand) / (STEP * HORIZON), -1, 1)
            aim = aim if rng.random() < 0.5 else np.append(rng.uniform(-1, 1, 2), 0.0)
            for _ in range(HORIZON):
                actions.append([*aim, 0, 0, 0, -1])
                hand = hand + STEP * aim
                bodies.append([*hand, 0, 0, 0, 0.04, -0.04])
                success = bool(np.linalg.norm(goal - hand) < 0.03)
                if success:
                    break
            frames.append(picture(square - hand))
        pose = np.concatenate([square, [1, 0, 0, 0, 1, 0], np.zeros(9)]).astype(np.float32)
        recordings.append(
            Recording(
                actions=np.array(actions, np.float32),
                executed_actions=np.array(actions, np.float32),
                states=None,
                proprioception=np.array(bodies, np.float32),
                privileged=np.repeat(pose[None], len(bodies), axis=0),
                joint_states=None,
                images={CAMERA: np.array(frames)},
                image_stride=HORIZON,
                success=success,
                init_state=seed % 30,
                task_id=0,
                seed=seed,
                instruction="go home",
                source="test",
                noise=0.0,
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    attributes = {"problem_info": {"language_instruction": "go home"}}
    write_episodes(folder / "episodes.hdf5", recordings, attributes)
    return folder


def write_with_shuffled_actions(folder: Path, source: Path) -> Path:
    """The same episodes, each with the executed actions of another moment."""
    recordings, rng = [], np.random.default_rng(5)
    found = list(read_episodes(source))
    pool = np.concatenate([item.actions for item in found])
    for item in found:
        actions = pool[rng.integers(0, len(pool), item.steps)]
        recordings.append(
            Recording(
                actions=actions,
                executed_actions=actions,
                states=None,
                proprioception=item.proprioception,
                privileged=item.privileged,
                joint_states=None,
                images={CAMERA: item.images(CAMERA)},
                image_stride=HORIZON,
                success=item.success,
                init_state=item.init_state,
                task_id=0,
                seed=0,
                instruction=item.instruction,
                source="test",
                noise=0.0,
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    attributes = {"problem_info": {"language_instruction": "reach the square"}}
    write_episodes(folder / "episodes.hdf5", recordings, attributes)
    return folder
