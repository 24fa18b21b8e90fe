"""Plays one episode and writes down everything that a model may later be trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..experts.scene import Scene
from .hdf5 import Recording
from .sources import Actor


def record_episode(env: Any, actor: Actor, *, init_state: int, seed: int, source: str) -> Recording:
    """Play an episode from an initial state until success or the step limit.

    The fixtures stand where the benchmark's convention puts them, as in evaluation; the seed decides what the
    actor draws. Frames are rendered before steps 0, s, 2s, ... (s is the actor's stride) and after the last
    one, nowhere else.
    """
    observation, _ = env.reset(options={"init_state": init_state})
    scene = Scene(env) if hasattr(env, "_simulator") else None
    noise = actor.start(seed)
    actions, executed, states, joints = [], [], [], []
    proprioception, privileged = [env.proprioception()], [env.privileged_state()]
    frames: dict[str, list[np.ndarray]] = {camera: [] for camera in env.cameras}
    success, over, step = False, False, 0
    while not over:
        due = step % actor.stride == 0
        if due:
            observation = observation if step == 0 else env.observe()
            for camera in frames:
                frames[camera].append(observation.images[camera][0])
        move = actor.move(observation if due else None)
        for taken, label in zip(move.executed, move.recorded, strict=True):
            if scene is not None:
                states.append(scene.flattened_state)
                joints.append(scene.arm_joints)
            result = env.execute(taken[None])
            actions.append(label)
            executed.append(taken)
            proprioception.append(env.proprioception())
            privileged.append(env.privileged_state())
            step += 1
            success = bool(result.success)
            over = success or bool(result.truncated) or step >= env.task.step_limit
            if over:
                break
    last = env.observe().images
    for camera in frames:
        frames[camera].append(last[camera][0])
    upright = getattr(getattr(env, "convention", None), "rotate_images", True)
    return Recording(
        actions=np.asarray(actions, np.float32),
        executed_actions=np.asarray(executed, np.float32),
        states=np.asarray(states, np.float64) if states else None,
        proprioception=np.asarray(proprioception, np.float32).reshape(step + 1, -1),
        privileged=np.asarray(privileged, np.float32).reshape(step + 1, -1),
        joint_states=np.asarray(joints, np.float64) if joints else None,
        images={
            camera: np.stack(shown) if upright else np.stack(shown)[:, ::-1, ::-1]
            for camera, shown in frames.items()
        },
        image_stride=actor.stride,
        success=success,
        init_state=init_state,
        task_id=env.task.id,
        seed=seed,
        instruction=env.task.instruction,
        source=source,
        noise=noise,
    )
