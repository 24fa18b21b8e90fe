"""The whole state of a robosuite environment, so that a future can be tried and taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .runtime import load_mujoco


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything that decides the rest of an episode. Plain arrays: it can be pickled into another process.

    Attributes:
        task: ``(suite, task id)``, so that it is not restored into another task.
        physics: MuJoCo's integration state (time, positions, velocities, warm start, controls, ...).
        body_position: ``[bodies, 3]`` of the model: fixtures are placed by moving their bodies, outside the
            state.
        body_quaternion: ``[bodies, 4]``, likewise.
        site_color: ``[sites, 4]`` of the model: markers such as a burning stove.
        gripper: Where the gripper's rate-limited command stands.
        goal_position: The arm controller's target, metres, ``[3]``.
        goal_orientation: The arm controller's target rotation matrix, ``[3, 3]``.
        relative_orientation: The arm controller's interpolation state, ``[3]``.
        orientation_reference: Likewise, ``[3, 3]`` or None.
        controller_stale: Whether the controller still owes itself an update.
        timestep: The environment's count of control steps, settling included.
        current_time: The environment's clock, seconds.
        done: The environment's own end flag.
        steps: Control steps of the episode, settling not counted.
        success: Whether the task is solved.
    """

    task: tuple[str, int]
    physics: np.ndarray
    body_position: np.ndarray
    body_quaternion: np.ndarray
    site_color: np.ndarray
    gripper: np.ndarray
    goal_position: np.ndarray
    goal_orientation: np.ndarray
    relative_orientation: np.ndarray
    orientation_reference: np.ndarray | None
    controller_stale: bool
    timestep: int
    current_time: float
    done: bool
    steps: int
    success: bool


def take(environment: Any, *, task: tuple[str, int], steps: int, success: bool) -> Snapshot:
    """The state of a robosuite environment with one arm."""
    mujoco = load_mujoco()

    model, data = environment.sim.model._model, environment.sim.data._data
    kind = mujoco.mjtState.mjSTATE_INTEGRATION.value
    physics = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, data, physics, kind)
    robot = environment.robots[0]
    controller = robot.controller
    return Snapshot(
        task=task,
        physics=physics,
        body_position=model.body_pos.copy(),
        body_quaternion=model.body_quat.copy(),
        site_color=model.site_rgba.copy(),
        gripper=np.array(robot.gripper.current_action, float),
        goal_position=np.array(controller.goal_pos),
        goal_orientation=np.array(controller.goal_ori),
        relative_orientation=np.array(controller.relative_ori),
        orientation_reference=None if controller.ori_ref is None else np.array(controller.ori_ref),
        controller_stale=bool(controller.new_update),
        timestep=environment.timestep,
        current_time=environment.cur_time,
        done=environment.done,
        steps=steps,
        success=success,
    )


def apply(environment: Any, snapshot: Snapshot) -> None:
    """Put a robosuite environment of the same task into the state of a snapshot."""
    mujoco = load_mujoco()

    model, data = environment.sim.model._model, environment.sim.data._data
    kind = mujoco.mjtState.mjSTATE_INTEGRATION.value
    model.body_pos[:] = snapshot.body_position
    model.body_quat[:] = snapshot.body_quaternion
    model.site_rgba[:] = snapshot.site_color
    mujoco.mj_setState(model, data, snapshot.physics, kind)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, snapshot.physics, kind)  # a forward pass may move the warm start
    robot = environment.robots[0]
    controller = robot.controller
    robot.gripper.current_action = snapshot.gripper.copy()
    controller.goal_pos = snapshot.goal_position.copy()
    controller.goal_ori = snapshot.goal_orientation.copy()
    controller.relative_ori = snapshot.relative_orientation.copy()
    reference = snapshot.orientation_reference
    controller.ori_ref = None if reference is None else reference.copy()
    controller.new_update = snapshot.controller_stale
    environment.timestep = snapshot.timestep
    environment.cur_time = snapshot.current_time
    environment.done = snapshot.done
