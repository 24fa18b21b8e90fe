"""Small synthetic episodes: a gripper that must reach an object, in files of the real layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from forethought.experiments.data.hdf5 import Recording, write_episodes

CAMERA = "eye_in_hand_rgb"
HORIZON = 4
SIZE = 16


def picture(gap: np.ndarray) -> np.ndarray:
    """A white square where the object is, relative to the gripper: ``uint8 [SIZE, SIZE, 3]``."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    row, column = np.clip(np.round(SIZE / 2 + gap[:2] * 20).astype(int), 1, SIZE - 2)
    image[row - 1 : row + 2, column - 1 : column + 2] = 255
    return image


def reach(seed: int, *, skill: float, steps: int = 24, privileged: bool = True) -> Recording:
    """One episode: each chunk moves towards the object with probability ``skill``, otherwise anywhere."""
    rng = np.random.default_rng(seed)
    hand, target = np.zeros(3), np.append(rng.uniform(-0.3, 0.3, 2), 0.0)
    actions, bodies, frames = [], [[*hand, 0, 0, 0, 0.04, -0.04]], [picture(target - hand)]
    for step in range(steps):
        if step % HORIZON == 0:
            aim = np.clip((target - hand) / (0.05 * HORIZON), -1, 1)
            if rng.random() > skill:
                aim = np.append(rng.uniform(-1, 1, 2), 0.0)
        actions.append([*aim, 0, 0, 0, -1])
        hand = hand + 0.05 * aim
        bodies.append([*hand, 0, 0, 0, 0.04, -0.04])
        success = bool(np.linalg.norm(target - hand) < 0.03)
        if (step + 1) % HORIZON == 0 or success:
            frames.append(picture(target - hand))
        if success:
            break
    count = len(actions)
    if len(frames) < 1 + -(-count // HORIZON):
        frames.append(picture(target - hand))
    pose = np.concatenate([target, [1, 0, 0, 0, 1, 0], np.zeros(9)]).astype(np.float32)
    return Recording(
        actions=np.array(actions, np.float32),
        executed_actions=np.array(actions, np.float32),
        states=np.zeros((count, 2)),
        proprioception=np.array(bodies, np.float32),
        privileged=np.repeat(pose[None], count + 1, axis=0),
        joint_states=np.zeros((count, 7)),
        images={CAMERA: np.array(frames)},
        image_stride=HORIZON,
        success=success,
        init_state=seed % 30,
        task_id=0,
        seed=seed,
        instruction="reach the square",
        source="test",
        noise=0.0,
    )


def write(folder: Path, episodes: int, *, skill: float, first_seed: int = 0) -> Path:
    """A folder with one file of episodes."""
    folder.mkdir(parents=True, exist_ok=True)
    recordings = [reach(first_seed + index, skill=skill) for index in range(episodes)]
    write_episodes(
        folder / "episodes.hdf5", recordings, {"problem_info": {"language_instruction": "reach the square"}}
    )
    return folder
