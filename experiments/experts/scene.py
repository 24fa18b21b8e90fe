"""What the expert may know: exact poses and shapes of the objects, read from the simulator.

Privileged by design. Learned models never see this room; they see what a demonstration file holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError
from ..benchmarks.runtime import load_mujoco

_SPACING = 0.015
"""Distance between the points of a surface, metres."""
_UNIT_BOX = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
_ANGLES = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
_UNIT_CYLINDER = np.array([[np.cos(a), np.sin(a), z] for a in _ANGLES for z in (-1.0, 1.0)])


@dataclass(frozen=True, eq=False)
class Goal:
    """Where the task wants an object to be.

    Attributes:
        item: Object to move, the first argument of the predicate.
        target: Object or region to move it to.
        inside: True for a container (``in``), False for a support (``on``).
    """

    item: str
    target: str
    inside: bool


class Scene:
    """Poses and collision shapes of one environment of LIBERO, by object name. World frame, metres.

    Args:
        environment: A `LiberoEnv`, or robosuite's own environment.
    """

    def __init__(self, environment: Any) -> None:
        self._mujoco = load_mujoco()
        self._environment = getattr(environment, "_simulator", environment)
        self._points: dict[int, np.ndarray] = {}
        self._bind()

    def _bind(self) -> None:
        sim = self._environment.sim
        self._sim = sim
        self._model = getattr(sim.model, "_model", sim.model)
        self._data = getattr(sim.data, "_data", sim.data)
        self._grip = self._site("gripper0_grip_site")
        self._arm = np.asarray(self._environment.robots[0]._ref_joint_pos_indexes, dtype=np.int64)
        fingers = ("gripper0_finger_joint1", "gripper0_finger_joint2")
        self._fingers = [
            int(
                self._model.jnt_qposadr[
                    self._mujoco.mj_name2id(self._model, self._mujoco.mjtObj.mjOBJ_JOINT, name)
                ]
            )
            for name in fingers
        ]

    def refresh(self) -> None:
        """Bring the poses up to this moment; a step of the simulator leaves those of its last substep."""
        if self._environment.sim is not self._sim:
            self._points.clear()
            self._bind()
        self._mujoco.mj_kinematics(self._model, self._data)

    def _site(self, name: str) -> int:
        return int(self._mujoco.mj_name2id(self._model, self._mujoco.mjtObj.mjOBJ_SITE, name))

    @property
    def flattened_state(self) -> np.ndarray:
        """Time, joint positions and velocities in the order of LIBERO's files, ``float64 [S]``."""
        return np.concatenate([[self._data.time], self._data.qpos, self._data.qvel])

    @property
    def arm_joints(self) -> np.ndarray:
        """Joint angles of the arm, ``float64 [7]``, radians."""
        return self._data.qpos[self._arm].copy()

    @property
    def goals(self) -> tuple[Goal, ...]:
        """Placements asked for by the task, in the order of its goal."""
        problem = self._environment.parsed_problem
        goals = []
        for predicate in problem["goal_state"]:
            if len(predicate) != 3 or predicate[0].lower() not in ("in", "on"):
                raise ForethoughtError(
                    f"the pick-and-place expert was given the goal {predicate}; it knows only 'in' and 'on' "
                    "of an "
                    "object. Use a suite such as libero_object or libero_spatial."
                )
            goals.append(Goal(item=predicate[1], target=predicate[2], inside=predicate[0].lower() == "in"))
        return tuple(goals)

    @property
    def hand(self) -> tuple[np.ndarray, np.ndarray]:
        """Position ``[3]`` and rotation ``[3, 3]`` of the grip site. The fingers close along its x axis."""
        return self._data.site_xpos[self._grip].copy(), self._data.site_xmat[self._grip].reshape(3, 3).copy()

    @property
    def opening(self) -> float:
        """Distance between the fingers, metres (0.08 when open)."""
        return float(sum(abs(self._data.qpos[index]) for index in self._fingers))

    def pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Position ``[3]`` and rotation ``[3, 3]`` of an object, or of a region's site."""
        body = self._environment.obj_body_id.get(name)
        if body is not None:
            return self._data.xpos[body].copy(), self._data.xmat[body].reshape(3, 3).copy()
        site = self._site(name)
        if site < 0:
            raise ForethoughtError(
                f"there is no object or region '{name}' in the scene; it has {self.objects}."
            )
        return self._data.site_xpos[site].copy(), self._data.site_xmat[site].reshape(3, 3).copy()

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of everything with a body."""
        return tuple(self._environment.obj_body_id)

    def owner(self, name: str) -> str:
        """The object that a region belongs to (``basket_1`` for ``basket_1_contain_region``), or the name
        itself.
        """
        if name in self._environment.obj_body_id:
            return name
        owners = [o for o in self._environment.obj_body_id if name.startswith(o)]
        return max(owners, key=len) if owners else name

    def cloud(self, name: str) -> np.ndarray:
        """Points on the object's collision shapes, edges included, ``[n, 3]``, world frame."""
        root = self._environment.obj_body_id.get(name)
        if root is None:
            return np.zeros((0, 3))
        clouds = []
        for body in self._subtree(root):
            if body not in self._points:
                self._points[body] = self._body_points(body)
            rotation = self._data.xmat[body].reshape(3, 3)
            clouds.append(self._points[body] @ rotation.T + self._data.xpos[body])
        return np.concatenate(clouds)

    def _subtree(self, root: int) -> list[int]:
        members = [root]
        for body in range(root + 1, self._model.nbody):
            if self._model.body_parentid[body] in members:
                members.append(body)
        return members

    def _body_points(self, body: int) -> np.ndarray:
        model, clouds = self._model, [np.zeros((0, 3))]
        first = int(model.body_geomadr[body])
        for geom in range(first, first + int(model.body_geomnum[body])):
            if not (model.geom_contype[geom] or model.geom_conaffinity[geom]):
                continue
            rotation = np.empty(9)
            self._mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
            local = self._geom_points(geom)
            clouds.append(local @ rotation.reshape(3, 3).T + model.geom_pos[geom])
        return np.concatenate(clouds)

    def _geom_points(self, geom: int) -> np.ndarray:
        model, size = self._model, self._model.geom_size[geom]
        kind = int(model.geom_type[geom])
        if kind == self._mujoco.mjtGeom.mjGEOM_MESH:
            mesh = int(model.geom_dataid[geom])
            start, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
            return np.asarray(model.mesh_vert[start : start + count], dtype=np.float64)
        if kind in (self._mujoco.mjtGeom.mjGEOM_CYLINDER, self._mujoco.mjtGeom.mjGEOM_CAPSULE):
            return _UNIT_CYLINDER * np.array([size[0], size[0], size[1]])
        if kind == self._mujoco.mjtGeom.mjGEOM_SPHERE:
            return _UNIT_BOX * size[0]
        return _box_surface(size)


def _box_surface(size: np.ndarray) -> np.ndarray:
    """Points on the faces of a box of half sizes ``[3]``, no further apart than the spacing."""
    lines = [np.linspace(-half, half, max(2, int(np.ceil(2.0 * half / _SPACING)) + 1)) for half in size]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[np.any(np.isclose(np.abs(grid), size), axis=1)]
