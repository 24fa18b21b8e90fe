"""LIBERO and LIBERO-PRO: suites of tasks, and environments with exact snapshots and renders on demand."""

from __future__ import annotations

import gc
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from ...interfaces import ActionSpec, ForethoughtError, Observation
from . import snapshot as snapshots
from .base import StepResult, Task, check_chunk
from .conventions import Convention, find_convention
from .detail import LEAST_FACES
from .placements import drawn_states
from .rendering import CameraRenderer
from .runtime import load_mujoco, quiet, versions
from .snapshot import Snapshot
from .stepping import STEPPINGS, ExactStepper, FastStepper, Stepper
from .suites import build_simulator, find_suite, read_task

CAMERAS: Mapping[str, str] = {"agentview_rgb": "agentview", "eye_in_hand_rgb": "robot0_eye_in_hand"}
"""Our names (those of LIBERO's data files) to the simulator's."""

ACTION_SPEC = ActionSpec(
    low=-np.ones(7, np.float32),
    high=np.ones(7, np.float32),
    position=(0, 1, 2),
    rotation=(3, 4, 5),
    gripper=(6,),
    gripper_is_binary=True,
    position_scale=0.05,
    rotation_scale=0.5,
)
"""Action 7: translation 3, axis-angle 3, gripper (-1 open, +1 closed)."""

RESET_ATTEMPTS = 20
RESET_SECONDS = 60.0
STARTS = 128
"""Settled starts that an environment remembers (some 6 kB each)."""


class LiberoBenchmark:
    """A suite of LIBERO (``libero_spatial``, ``libero_object``, ``libero_goal``, ``libero_10``,
    ``libero_90``) or of LIBERO-PRO (those names with ``_lan``, ``_object``, ``_swap``, ``_task`` and further
    endings).

    Args:
        suite: Name of the suite.
        convention: ``openvla`` or ``lerobot``; see `conventions`.
        camera_size: Side of the square images in pixels; None takes the convention's.
        cheap_rendering: Antialiasing, shadows and reflections off.
        stepping: ``exact`` is the simulator's own step; ``fast`` agrees with it to rounding error at a
            quarter of the time.
        cameras: Cameras that observations show.
        step_limit: Overrides the convention's, and is needed where it has none.
        mesh_faces: Most triangles of a mesh that are drawn (see `detail`); None draws all.
        placements: A seed: initial states are new ones, drawn between those of ``placed_between`` (see
            `placements`), to collect data in. None: the suite's own.
        placed_between: First and last of the suite's initial states between which they are drawn.
    """

    def __init__(
        self,
        suite: str = "libero_object",
        convention: str = "openvla",
        camera_size: int | None = None,
        cheap_rendering: bool = False,
        stepping: str = "exact",
        cameras: Sequence[str] = tuple(CAMERAS),
        step_limit: int | None = None,
        mesh_faces: int | None = None,
        placements: int | None = None,
        placed_between: tuple[int, int] = (0, 21),
    ) -> None:
        if (placements is not None and placements < 0) or len(placed_between) != 2:
            raise ForethoughtError(
                "New placements need a seed of at least 0 and the first and last initial state to draw "
                f"between; got placements={placements}, placed_between={list(placed_between)}."
            )
        first, last = map(int, placed_between)
        self.placements = None if placements is None else (int(placements), (first, last))
        self.convention = find_convention(convention)
        if stepping not in STEPPINGS:
            raise ForethoughtError(
                f"There is no stepping {stepping!r}; choose one of {', '.join(STEPPINGS)}."
            )
        unknown = [camera for camera in cameras if camera not in CAMERAS]
        if unknown:
            raise ForethoughtError(f"LIBERO has no cameras {unknown}; choose among {', '.join(CAMERAS)}.")
        self.camera_size = self.convention.camera_size if camera_size is None else int(camera_size)
        if not 8 <= self.camera_size <= 2048:
            raise ForethoughtError(f"camera_size must be between 8 and 2048 pixels; got {camera_size}.")
        if mesh_faces is not None and mesh_faces < LEAST_FACES:
            raise ForethoughtError(
                f"mesh_faces must be at least {LEAST_FACES}, or null to draw all triangles; got {mesh_faces}."
            )
        self.name = suite
        self.cheap_rendering = bool(cheap_rendering)
        self.mesh_faces = mesh_faces
        self.stepping = stepping
        self.cameras = tuple(cameras)
        limit = self.convention.step_limit(suite) if step_limit is None else step_limit
        self._suite = find_suite(suite)
        if limit is None or limit < 1:
            raise ForethoughtError(
                f"The convention {convention!r} has no step limit for {suite!r} (given: {step_limit}). Pass "
                "step_limit=<control steps>, at least 1."
            )
        self.tasks = tuple(
            read_task(self._suite, index, limit) for index in range(self._suite.get_num_tasks())
        )

    def make(self, task_id: int) -> LiberoEnv:
        """A new environment of one task. Takes some seconds."""
        if not isinstance(task_id, (int, np.integer)) or not 0 <= task_id < len(self.tasks):
            raise ForethoughtError(
                f"{self.name} has tasks 0 to {len(self.tasks) - 1}; got {task_id!r}. See benchmark.tasks."
            )
        task = self.tasks[int(task_id)]
        if not task.init_states or not Path(task.bddl_file).is_file():
            raise ForethoughtError(
                f"{self.name} task {task.id} is registered without its files ({task.init_states} initial "
                f"states, definition {task.bddl_file}); the package ships them for some suites only. Run "
                "`libero-pro audit` to see which."
            )
        return LiberoEnv(
            self.name,
            task,
            self._suite.get_task_init_states(task.id),
            convention=self.convention,
            camera_size=self.camera_size,
            cheap_rendering=self.cheap_rendering,
            mesh_faces=self.mesh_faces,
            stepping=self.stepping,
            cameras=self.cameras,
            placements=self.placements,
        )

    def describe(self) -> dict[str, Any]:
        """What a reader needs to repeat a result."""
        return {
            "benchmark": "libero",
            "suite": self.name,
            "tasks": len(self.tasks),
            "step_limit": self.tasks[0].step_limit if self.tasks else None,
            "convention": self.convention.describe(),
            "cameras": list(self.cameras),
            "camera_size": self.camera_size,
            "cheap_rendering": self.cheap_rendering,
            "placements": self.placements,
            "mesh_faces": self.mesh_faces,
            "stepping": self.stepping,
            "observation": "end of the control step",
            "versions": versions(),
        }


class LiberoEnv(gymnasium.Env):
    """One LIBERO task, B = 1. Made by `LiberoBenchmark.make`.

    Attributes:
        task: The task.
        instruction: What the policy is told.
        action_spec: Bounds and meaning of the 7 numbers of an action.
        cameras: Cameras that observations show.
        steps: Control steps of this episode, settling not counted.
        success: Whether the task is solved.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    render_mode = "rgb_array"

    def __init__(
        self,
        suite: str,
        task: Task,
        init_states: np.ndarray,
        *,
        convention: Convention,
        camera_size: int,
        cheap_rendering: bool,
        mesh_faces: int | None,
        stepping: str,
        cameras: tuple[str, ...],
        placements: tuple[int, tuple[int, int]] | None = None,
    ) -> None:
        self.suite = suite
        self.task = task
        self.instruction = task.instruction
        self.action_spec = ACTION_SPEC
        self.action_space = gymnasium.spaces.Box(ACTION_SPEC.low, ACTION_SPEC.high, dtype=np.float32)
        self.cameras = cameras
        self.convention = convention
        self._init_states = init_states
        self._simulator: Any = build_simulator(suite, task)
        self._model: Any = self._simulator.sim.model._model
        self._data: Any = self._simulator.sim.data._data
        if placements is not None:
            seed, (first, last) = placements
            arm = self._simulator.robots[0]._ref_joint_pos_indexes
            draws = [seed, task.id, zlib.crc32(suite.encode())]
            seen = range(first, last + 1)
            self._init_states = drawn_states(self._model, init_states, seen, arm, draws)
        self._mujoco = load_mujoco()
        self._first_site_color = self._model.site_rgba.copy()
        self._exact = ExactStepper(self._simulator)
        self._stepper: Stepper = FastStepper(self._simulator) if stepping == "fast" else self._exact
        self._renderer = CameraRenderer(self._model, camera_size, cheap_rendering, mesh_faces)
        self._started = False
        self._closed = False
        self._starts: dict[tuple[int, int], Snapshot] = {}
        self.steps = 0
        self.success = False

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode from a fixed initial state and let the objects settle.

        Args:
            seed: Decides the place of the fixtures; None takes the convention's.
            options: ``{"init_state": i}``, 0 when missing.
        """
        init_state = (options or {}).get("init_state", 0)
        self.start(seed=seed, init_state=init_state)
        return self.observe(), {"init_state": int(init_state)}

    def start(self, *, seed: int | None = None, init_state: int = 0) -> None:
        """`reset` without rendering. A start that was made before is restored, bit for bit, which saves
        resetting the scene and letting it settle (0.2 s)."""
        self._require_open()
        if not isinstance(init_state, (int, np.integer)) or not 0 <= init_state < self.task.init_states:
            raise ForethoughtError(
                f"{self.suite} task {self.task.id} has initial states 0 to {self.task.init_states - 1}; got "
                f"{init_state!r}."
            )
        start = (self.convention.seed if seed is None else int(seed), int(init_state))
        if start in self._starts:
            self.restore(self._starts[start])
            return
        self._restart(start[0])
        simulator = self._simulator
        simulator.sim.set_state_from_flattened(self._init_states[init_state])
        simulator.sim.forward()
        simulator._check_success()
        simulator._post_process()
        for _ in range(self.convention.settle_steps):
            self._exact.step(np.array(self.convention.settle_action))
        self.steps = 0
        self.success = bool(simulator._check_success())
        self._started = True
        if len(self._starts) == STARTS:
            del self._starts[next(iter(self._starts))]
        self._starts[start] = self.save()

    def observe(self) -> Observation:
        """What the robot sees now, B = 1."""
        return Observation(
            images={camera: image[None] for camera, image in self.frame().items()},
            proprioception=self.proprioception()[None],
            instruction=(self.instruction,),
        )

    def frame(self) -> dict[str, np.ndarray]:
        """Camera to ``uint8 [h, w, 3]``, turned as the convention wants it."""
        self._refresh()
        return {
            camera: self.convention.upright(self._renderer.render(self._data, CAMERAS[camera]))
            for camera in self.cameras
        }

    def render(self) -> np.ndarray:
        """The first camera's image."""
        self._refresh()
        return self.convention.upright(self._renderer.render(self._data, CAMERAS[self.cameras[0]]))

    def execute(self, chunk: np.ndarray) -> StepResult:
        """Carry out ``[H, 7]`` actions without rendering, stopping at success or at the step limit. In a
        finished episode nothing happens."""
        actions = check_chunk(chunk, self.action_spec)
        self._require_start()
        done = 0
        for action in actions:
            if self.success or self.steps >= self.task.step_limit:
                break
            before = self._data.time
            self.success = self._stepper.step(action)
            self.steps += 1
            done += 1
            if not self._data.time > before:
                raise ForethoughtError(
                    f"The physics of {self.suite} task {self.task.id} became unstable at step {self.steps} "
                    "and MuJoCo restarted it. Call reset() and send smaller actions."
                )
        return StepResult(self.success, not self.success and self.steps >= self.task.step_limit, done)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One action ``[7]``, and an observation after it."""
        result = self.execute(np.asarray(action)[None])
        return self.observe(), float(result.success), result.success, result.truncated, {"steps": self.steps}

    def proprioception(self) -> np.ndarray:
        """``float32 [8]``: end-effector position (m) 3, axis-angle (rad) 3, finger positions (m) 2."""
        self._refresh()
        robot = self._simulator.robots[0]
        hand = self._simulator.sim.model.body_name2id(robot.robot_model.eef_name)
        return np.concatenate(
            [
                self._data.site_xpos[robot.eef_site_id],
                axis_angle(self._data.xquat[hand]),
                self._data.qpos[robot._ref_gripper_joint_pos_indexes],
            ]
        ).astype(np.float32)

    def privileged_state(self) -> np.ndarray:
        """``float32 [18]``: for each of the task's first two objects of interest the position (m) 3 and the
        first two columns of the rotation matrix 6; zeros where there is none."""
        self._refresh()
        state = np.zeros((2, 9), np.float32)
        for row, name in zip(state, self._simulator.obj_of_interest, strict=False):
            if name in self._simulator.obj_body_id:
                body = self._simulator.obj_body_id[name]
                position, matrix = self._data.xpos[body], self._data.xmat[body]
            elif name in self._simulator.object_sites_dict:
                site = self._simulator.sim.model.site_name2id(name)
                position, matrix = self._data.site_xpos[site], self._data.site_xmat[site]
            else:
                continue
            row[:3] = position
            row[3:] = matrix.reshape(3, 3)[:, :2].T.reshape(6)
        return state.reshape(18)

    def save(self) -> Snapshot:
        """Everything that decides the rest of the episode."""
        self._require_start()
        return snapshots.take(
            self._simulator, task=(self.suite, self.task.id), steps=self.steps, success=self.success
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this task, of this or another environment, bit for bit."""
        if snapshot.task != (self.suite, self.task.id):
            raise ForethoughtError(
                f"A snapshot of {snapshot.task[0]} task {snapshot.task[1]} was given to an environment of "
                f"{self.suite} task {self.task.id}; restore it into an environment of its own task."
            )
        self._require_open()
        if not self._started:
            self._restart(self.convention.seed)
            self._started = True
        snapshots.apply(self._simulator, snapshot)
        self.steps = snapshot.steps
        self.success = snapshot.success

    def close(self) -> None:
        """Free the simulator and its graphics context."""
        if self._closed:
            return
        self._closed = True
        self._renderer.close()
        del self._renderer, self._stepper, self._exact, self._data, self._model, self._simulator
        gc.collect()  # robosuite's objects hold each other; the model behind them is hundreds of megabytes

    def _require_open(self) -> None:
        if self._closed:
            raise ForethoughtError(
                "This environment was closed; make a new one with benchmark.make(task_id)."
            )

    def _require_start(self) -> None:
        self._require_open()
        if not self._started:
            raise ForethoughtError("This environment has no episode yet; call reset() first.")

    def _refresh(self) -> None:
        """Poses of this moment. The simulator leaves those of the last substep's start; computing them reads
        the joints and changes nothing that the physics use."""
        self._require_start()
        mujoco = self._mujoco
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    def _restart(self, seed: int) -> None:
        """Restart the simulator without rebuilding the scene, with the same result as rebuilding it.

        LIBERO's own wrapper retries for ever on any exception; this gives up.
        """
        simulator = self._simulator
        self._started = False
        self._model.site_rgba[:] = self._first_site_color
        outside = np.random.get_state()  # noqa: NPY002 (LIBERO draws from the global generator)
        deadline = time.monotonic() + RESET_SECONDS
        try:
            np.random.seed(seed % 2**32)  # noqa: NPY002
            for attempt in range(1, RESET_ATTEMPTS + 1):
                problem = _try_reset(simulator)
                if problem is None:
                    break
                if attempt == RESET_ATTEMPTS or time.monotonic() > deadline:
                    raise ForethoughtError(
                        f"{self.suite} task {self.task.id} found no valid placement of its objects with seed "
                        f"{seed} in {attempt} attempts (at most {RESET_ATTEMPTS} are made, in "
                        f"{RESET_SECONDS:.0f} s): {problem}. Try another seed."
                    ) from problem
        finally:
            np.random.set_state(outside)  # noqa: NPY002
        gripper = simulator.robots[0].gripper
        gripper.current_action = np.zeros(gripper.dof)


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """Rotation vector (rad) ``[3]`` of a unit quaternion wxyz, with the sign that it comes with.

    The angle runs over [0, 2π]: a downward gripper sits near π, and choosing the shorter of the two
    equivalent rotations would make the vector jump there.
    """
    w, xyz = float(np.clip(quaternion[0], -1.0, 1.0)), np.asarray(quaternion[1:], np.float64)
    sine = np.sqrt(1.0 - w * w)
    if sine < 1e-12:
        return np.zeros(3)
    return xyz * (2.0 * np.arccos(w) / sine)


def _try_reset(simulator: Any) -> Exception | None:
    """Reset once; a failed random placement is returned, as another draw may succeed."""
    from robosuite.utils.errors import RandomizationError

    try:
        with quiet():
            simulator.reset()
    except RandomizationError as error:
        return error
    except Exception as error:
        raise ForethoughtError(
            f"The simulator failed to reset: {type(error).__name__}: {error}. Make a new environment."
        ) from error
    return None
