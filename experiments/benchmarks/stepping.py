"""Two ways to advance a robosuite environment by one control step: its own, and one without the overhead.

Both leave the same things behind (joint state, controller goals, gripper command, clocks), so an episode may
change from one to the other and a snapshot of either restores into either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np

from ...interfaces import ForethoughtError
from .runtime import load_mujoco

STEPPINGS = ("exact", "fast")
NULLSPACE_STIFFNESS = 10.0


class Stepper(Protocol):
    """Advances an environment by one control step."""

    def step(self, action: np.ndarray) -> bool:
        """Carry out one action ``float64 [A]``; whether the task is solved after it."""
        ...


class ExactStepper:
    """``env.step`` of robosuite itself, with its observables switched off: they read and never steer."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        for observable in environment._observables.values():
            observable.set_enabled(False)
            observable.set_active(False)

    def step(self, action: np.ndarray) -> bool:
        """See `Stepper`."""
        _, _, success, _ = self._environment.step(action)
        return bool(success)


class FastStepper:
    """The same physics and the same operational-space controller with one forward pass a substep instead of
    three.

    robosuite recomputes the whole scene before it asks the controller for torques and once more to
    integrate them. MuJoCo's split step does the first half (positions, velocities), lets the controller
    read it, and does the second half with the new torques. Trajectories agree to rounding error.

    Raises:
        ForethoughtError: The environment is not driven by the controller that this reproduces.
    """

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._model = environment.sim.model._model
        self._data = environment.sim.data._data
        robot = environment.robots[0]
        self._robot = robot
        controller = robot.controller
        supported = (
            len(environment.robots) == 1
            and controller.name == "OSC_POSE"
            and controller.impedance_mode == "fixed"
            and controller.use_delta
            and controller.uncoupling
            and controller.interpolator_pos is None
            and controller.interpolator_ori is None
        )
        if not supported:
            raise ForethoughtError(
                "stepping='fast' reproduces one arm under the plain OSC_POSE controller (fixed impedance, "
                f"delta commands, no interpolation); this environment uses {controller.name}. Use "
                "stepping='exact'."
            )
        self._substeps = int(environment.control_timestep / environment.model_timestep)
        self._arm = np.array(robot._ref_joint_pos_indexes, np.int64)
        self._arm_velocity = np.array(robot._ref_joint_vel_indexes, np.int64)
        self._arm_actuators = np.array(robot._ref_joint_actuator_indexes, np.int64)
        self._gripper_actuators = np.array(robot._ref_joint_gripper_actuator_indexes, np.int64)
        span = self._model.actuator_ctrlrange[self._gripper_actuators]
        self._gripper_middle = 0.5 * (span[:, 1] + span[:, 0])
        self._gripper_half = 0.5 * (span[:, 1] - span[:, 0])
        self._torque_low, self._torque_high = (np.asarray(limit, np.float64) for limit in robot.torque_limits)
        self._site = robot.eef_site_id
        velocities = self._model.nv
        self._jacobian = np.zeros((6, velocities))
        self._inertia = np.zeros((velocities, velocities))
        self._mujoco = load_mujoco()
        self._torques = osc_torques()

    def step(self, action: np.ndarray) -> bool:
        """See `Stepper`."""
        mujoco = self._mujoco
        environment, model, data = self._environment, self._model, self._data
        controller, gripper = self._robot.controller, self._robot.gripper
        jacobian, inertia, torques = self._jacobian, self._inertia, self._torques
        move = np.array([-1.0, 1.0]) * gripper.speed * np.sign(action[6:])
        position, orientation = data.site_xpos[self._site], data.site_xmat[self._site].reshape(3, 3)
        for substep in range(self._substeps):
            mujoco.mj_step1(model, data)
            if substep == 0:
                _set_goal(controller, action[:6], position, orientation)
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._site)
            mujoco.mj_fullM(model, data, inertia)
            data.ctrl[self._arm_actuators] = torques(
                jacobian,
                inertia,
                self._arm_velocity,
                position,
                orientation,
                data.qpos[self._arm],
                data.qvel,
                data.qfrc_bias,
                controller.goal_pos,
                controller.goal_ori,
                controller.kp,
                controller.kd,
                controller.initial_joint,
                self._torque_low,
                self._torque_high,
            )
            gripper.current_action = np.minimum(np.maximum(gripper.current_action + move, -1.0), 1.0)
            data.ctrl[self._gripper_actuators] = (
                self._gripper_middle + self._gripper_half * gripper.current_action
            )
            mujoco.mj_step2(model, data)
        controller.new_update = True
        environment.timestep += 1
        environment.cur_time += environment.control_timestep
        environment._post_process()
        return bool(environment._check_success())


def _set_goal(controller: Any, command: np.ndarray, position: np.ndarray, orientation: np.ndarray) -> None:
    """Move the controller's goal by a command ``[6]`` from where the gripper is now. A command without
    rotation keeps the old goal of the orientation, as robosuite does."""
    from robosuite.utils.control_utils import set_goal_orientation, set_goal_position

    delta = controller.scale_action(command)
    if np.any(delta[3:] != 0.0):
        controller.goal_ori = set_goal_orientation(
            delta[3:], orientation.copy(), orientation_limit=controller.orientation_limits
        )
    controller.goal_pos = set_goal_position(
        delta[:3], position.copy(), position_limit=controller.position_limits
    )


@cache
def osc_torques() -> Callable[..., np.ndarray]:
    """The compiled operational-space control law, position and orientation decoupled (Khatib 1987), with
    joint torques in the nullspace that hold the initial posture."""
    import numba

    @numba.njit(cache=True)
    def torques(
        jacobian: np.ndarray,
        inertia: np.ndarray,
        arm: np.ndarray,
        position: np.ndarray,
        orientation: np.ndarray,
        joints: np.ndarray,
        velocity: np.ndarray,
        bias: np.ndarray,
        goal_position: np.ndarray,
        goal_orientation: np.ndarray,
        stiffness: np.ndarray,
        damping: np.ndarray,
        posture: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
    ) -> np.ndarray:
        size = arm.size
        j = np.empty((6, size))
        m = np.empty((size, size))
        joint_velocity = np.empty(size)
        for a in range(size):
            joint_velocity[a] = velocity[arm[a]]
            for row in range(6):
                j[row, a] = jacobian[row, arm[a]]
            for b in range(size):
                m[a, b] = inertia[arm[a], arm[b]]

        twist = np.dot(j, joint_velocity)
        error = np.zeros(6)
        for axis in range(3):
            error[axis] = goal_position[axis] - position[axis]
            error[3] += 0.5 * (
                orientation[1, axis] * goal_orientation[2, axis]
                - orientation[2, axis] * goal_orientation[1, axis]
            )
            error[4] += 0.5 * (
                orientation[2, axis] * goal_orientation[0, axis]
                - orientation[0, axis] * goal_orientation[2, axis]
            )
            error[5] += 0.5 * (
                orientation[0, axis] * goal_orientation[1, axis]
                - orientation[1, axis] * goal_orientation[0, axis]
            )
        desired = stiffness * error - damping * twist

        inverse_times_j = np.linalg.solve(m, np.ascontiguousarray(j.T))
        mobility = np.dot(j, inverse_times_j)
        wrench = np.empty(6)
        wrench[:3] = np.linalg.solve(mobility[:3, :3].copy(), desired[:3])
        wrench[3:] = np.linalg.solve(mobility[3:, 3:].copy(), desired[3:])

        hold = np.dot(
            m, NULLSPACE_STIFFNESS * (posture - joints) - 2.0 * np.sqrt(NULLSPACE_STIFFNESS) * joint_velocity
        )
        # (I - Jᵀ Λ J M⁻¹) applied to the posture torques.
        hold -= np.dot(j.T, np.linalg.solve(mobility, np.dot(inverse_times_j.T, hold)))

        result = np.dot(j.T, wrench) + hold
        for a in range(size):
            result[a] = min(max(result[a] + bias[arm[a]], low[a]), high[a])
        return result

    return torques
