"""Episodes in LIBERO's HDF5 layout: official demonstration files load unchanged, ours add a little.

``/data`` carries the task in its attributes; ``/data/demo_<i>`` holds one episode: ``actions``, ``states``,
``rewards``, ``dones``, ``robot_states`` and ``obs/*``. Images are stored as LIBERO stores them, upside down,
and are turned upright when they are read. Our files differ in three ways, each of which a reader of LIBERO
files may ignore:

* ``image_stride`` (attribute of an episode, absent = 1): with stride s the image datasets hold the frames of
  steps 0, s, 2s, ... and the one after the last step.
* ``obs/proprioception`` and ``obs/privileged`` hold T + 1 rows, the state after the last step included.
* ``executed_actions``, where the action recorded (the label) is not the one executed.

Nothing here is ever unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from ...interfaces import ForethoughtError

CAMERAS = ("agentview_rgb", "eye_in_hand_rgb")
_Node = TypeVar("_Node", h5py.Group, h5py.Dataset)
_REMEDY = "Delete the file and collect it again, or fetch it anew."


@dataclass(frozen=True, eq=False)
class Recording:
    """One episode on its way to a file. T is the number of executed steps.

    Attributes:
        actions: The labels, ``float32 [T, A]``.
        executed_actions: What was executed, ``float32 [T, A]``; the labels themselves unless noise was added.
        states: MuJoCo's flattened state before each step, ``float64 [T, S]``, or None.
        proprioception: ``float32 [T + 1, 8]``: position 3 (m), axis-angle 3 (rad), fingers 2 (m).
        privileged: ``float32 [T + 1, 18]``, poses of the objects of interest.
        joint_states: Arm joints, ``float64 [T, 7]``, radians, or None.
        images: Camera to upright frames, ``uint8 [F, h, w, 3]``, of the steps that ``image_stride`` selects.
        image_stride: Steps between frames.
        success: Whether the task was done.
        init_state: Index of the initial state.
        task_id: Index of the task in its suite.
        seed: Seed of the episode.
        instruction: The task in words.
        source: Who acted, such as ``expert`` or ``policy``.
        noise: Level of the noise on the executed actions.
    """

    actions: np.ndarray
    executed_actions: np.ndarray
    states: np.ndarray | None
    proprioception: np.ndarray
    privileged: np.ndarray
    joint_states: np.ndarray | None
    images: Mapping[str, np.ndarray]
    image_stride: int
    success: bool
    init_state: int
    task_id: int
    seed: int
    instruction: str
    source: str
    noise: float


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode from a file. Images stay there until ``images`` is called.

    Attributes:
        actions: The labels, ``float32 [T, A]``, environment units.
        executed_actions: What was executed, ``float32 [T, A]``: use these to learn dynamics.
        proprioception: ``float32 [T + 1, 8]``, or ``[T, 8]`` from files that stop at the last action.
        privileged: Poses of the objects of interest, ``float32 [T + 1, 18]``, or None.
        states: MuJoCo's flattened states ``float64 [T, S]``, or None.
        success: Whether the task was done.
        instruction: The task in words.
        init_state: Index of the initial state, or None where the file does not say.
        task_id: Index of the task in its suite, or None.
        seed: Seed of the episode, or None.
        source: Who acted; ``demonstration`` where the file does not say.
        noise: Level of the noise on the executed actions, or None.
        cameras: Cameras with frames.
        image_steps: The step before which each frame was taken, ``int64 [F]``; T for a frame after the last
            step.
        file: The file it lies in.
        name: Its group there, such as ``demo_3``.
    """

    actions: np.ndarray
    executed_actions: np.ndarray
    proprioception: np.ndarray
    privileged: np.ndarray | None
    states: np.ndarray | None
    success: bool
    instruction: str
    init_state: int | None
    task_id: int | None
    seed: int | None
    source: str
    noise: float | None
    cameras: tuple[str, ...]
    image_steps: np.ndarray
    file: Path
    name: str

    @property
    def steps(self) -> int:
        """Number of actions T."""
        return len(self.actions)

    def images(self, camera: str) -> np.ndarray:
        """Upright frames of a camera, ``uint8 [F, h, w, 3]``, in the order of ``image_steps``."""
        if camera not in self.cameras:
            raise ForethoughtError(
                f"'{self.file}' ({self.name}) has no camera '{camera}'; it has {list(self.cameras)}. "
                "Choose one of those."
            )
        with _open(self.file) as file:
            frames = _read(file, f"data/{self.name}/obs/{camera}", self.file)
        return frames[:, ::-1, ::-1]


def write_episodes(path: Path, recordings: Sequence[Recording], attributes: Mapping[str, Any]) -> None:
    """Write one finished file: under a temporary name, then renamed, so that a file that exists is whole.

    Args:
        path: Where to; its folder exists.
        recordings: Episodes, in order; the first becomes ``demo_0``.
        attributes: Attributes of ``/data``; mappings are stored as JSON, as LIBERO stores ``problem_info``.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w") as file:
            data = file.create_group("data")
            for name, value in attributes.items():
                data.attrs[name] = json.dumps(value) if isinstance(value, Mapping) else value
            data.attrs["num_demos"] = len(recordings)
            data.attrs["total"] = int(sum(len(r.actions) for r in recordings))
            data.attrs["macros_image_convention"] = "opengl"
            for index, recording in enumerate(recordings):
                _write_episode(data.create_group(f"demo_{index}"), recording)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ForethoughtError(
            f"cannot write '{path}': {error}. Check that the disk has room and the folder can be written."
        ) from error


def _write_episode(group: h5py.Group, recording: Recording) -> None:
    steps, proprioception = len(recording.actions), recording.proprioception
    group.attrs["num_samples"] = steps
    group.attrs["success"] = recording.success
    group.attrs["init_state_index"] = recording.init_state
    group.attrs["task_id"] = recording.task_id
    group.attrs["seed"] = recording.seed
    group.attrs["instruction"] = recording.instruction
    group.attrs["source"] = recording.source
    group.attrs["noise"] = recording.noise
    group.attrs["image_stride"] = recording.image_stride
    done = np.zeros(steps, np.uint8)
    done[-1] = recording.success
    group["dones"], group["rewards"] = done, done
    group["actions"] = recording.actions.astype(np.float64)
    if not np.array_equal(recording.actions, recording.executed_actions):
        group["executed_actions"] = recording.executed_actions.astype(np.float64)
    if recording.states is not None:
        group.attrs["init_state"] = recording.states[0]
        group.create_dataset(
            "states", data=recording.states, compression="gzip", compression_opts=1, shuffle=True
        )
    position, rotation, fingers = np.split(proprioception[:steps].astype(np.float64), (3, 6), axis=1)
    group["robot_states"] = np.concatenate([fingers, position, _quaternions(rotation)], axis=1)
    obs = group.create_group("obs")
    obs["ee_pos"], obs["ee_ori"], obs["gripper_states"] = position, rotation, fingers
    obs["ee_states"] = np.concatenate([position, rotation], axis=1)
    if recording.joint_states is not None:
        obs["joint_states"] = recording.joint_states
    obs["proprioception"] = proprioception.astype(np.float32)
    obs["privileged"] = recording.privileged.astype(np.float32)
    for camera, frames in recording.images.items():
        raw = np.ascontiguousarray(frames[:, ::-1, ::-1])
        chunks = (min(len(raw), 16), *raw.shape[1:])
        obs.create_dataset(camera, data=raw, chunks=chunks, compression="gzip", compression_opts=1)


def _quaternions(vectors: np.ndarray) -> np.ndarray:
    """Quaternions xyzw ``[T, 4]`` of axis-angle vectors ``[T, 3]``."""
    angle = np.linalg.norm(vectors, axis=1, keepdims=True)
    scale = np.where(angle > 1e-9, np.sin(0.5 * angle) / np.maximum(angle, 1e-9), 0.5)
    return np.concatenate([vectors * scale, np.cos(0.5 * angle)], axis=1)


def find_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """HDF5 files among files and folders (searched recursively), sorted.

    Unfinished files are not among them.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            found += sorted(p for kind in ("*.hdf5", "*.h5") for p in path.rglob(kind))
        elif path.exists():
            found.append(path)
        else:
            raise ForethoughtError(
                f"'{path}' does not exist. Name a file of episodes, or a folder that holds some."
            )
    if not found:
        raise ForethoughtError(
            f"no HDF5 file (*.hdf5, *.h5) in {[str(p) for p in given]}. Collect episodes first, or name "
            "another folder."
        )
    return found


def read_episodes(
    paths: str | Path | Iterable[str | Path],
    *,
    successes: bool | None = None,
    tasks: Iterable[int] | None = None,
) -> Iterator[Episode]:
    """Episodes of files or folders, file by file.

    Args:
        paths: A file, a folder, or several.
        successes: True for successes only, False for failures only, None for all.
        tasks: Task ids to keep; None keeps all.

    Raises:
        ForethoughtError: A file is missing, damaged, or lacks something an episode needs.
    """
    wanted = None if tasks is None else set(tasks)
    for path in find_files(paths):
        for episode in _read_file(path):
            if successes is not None and episode.success != successes:
                continue
            if wanted is None or episode.task_id in wanted:
                yield episode


def _read_file(path: Path) -> list[Episode]:
    with _open(path) as file:
        data = file.get("data")
        if not isinstance(data, h5py.Group) or not len(data):
            raise ForethoughtError(
                f"'{path}' has no group 'data' with episodes, so it is not in LIBERO's layout. {_REMEDY}"
            )
        episodes = []
        for name in sorted(data, key=_episode_number):
            try:
                episodes.append(_read_episode(data, path, name))
            except (OSError, RuntimeError, ValueError, TypeError) as error:
                raise ForethoughtError(f"'{path}' ({name}) is damaged: {error}. {_REMEDY}") from error
        return episodes


def _episode_number(name: str) -> tuple[int, str]:
    digits = name.rsplit("_", 1)[-1]
    return (int(digits) if digits.isdigit() else 1 << 30, name)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ForethoughtError(
            f"'{path}' cannot be read as HDF5 (cut off, or not HDF5): {error}. {_REMEDY}"
        ) from error


def _node(group: h5py.Group, key: str, kind: type[_Node], path: Path) -> _Node:
    node = group.get(key)
    if not isinstance(node, kind):
        missing = f"{(group.name or '').rstrip('/')}/{key}"
        raise ForethoughtError(f"'{path}' lacks '{missing}', which LIBERO's layout has. {_REMEDY}")
    return node


def _read(group: h5py.Group, key: str, path: Path) -> np.ndarray:
    return np.asarray(_node(group, key, h5py.Dataset, path))


def _read_numbers(group: h5py.Group, key: str, path: Path) -> np.ndarray:
    """A table ``float32 [T, n]`` without holes."""
    table = _read(group, key, path).astype(np.float32)
    if table.ndim != 2 or not len(table) or not np.all(np.isfinite(table)):
        raise ForethoughtError(
            f"'{path}': '{group.name}/{key}' has shape {table.shape} with {np.sum(~np.isfinite(table))} "
            f"numbers not finite; expected a table of finite numbers, a row for each step. {_REMEDY}"
        )
    return table


def _read_episode(data: h5py.Group, path: Path, name: str) -> Episode:
    group = _node(data, name, h5py.Group, path)
    obs = _node(group, "obs", h5py.Group, path)
    attributes: dict[str, Any] = dict(group.attrs)
    actions = _read_numbers(group, "actions", path)
    if "proprioception" in obs:
        proprioception = _read_numbers(obs, "proprioception", path)
    else:
        parts = [_read_numbers(obs, key, path) for key in ("ee_pos", "ee_ori", "gripper_states")]
        proprioception = np.concatenate(parts, axis=1)
    steps = len(actions)
    if len(proprioception) not in (steps, steps + 1):
        raise ForethoughtError(
            f"'{path}' ({name}) holds {steps} actions but {len(proprioception)} rows of proprioception; "
            f"expected as many, or one more. {_REMEDY}"
        )
    executed = _read_numbers(group, "executed_actions", path) if "executed_actions" in group else actions
    cameras = tuple(str(key) for key in obs if str(key).endswith("_rgb"))
    return Episode(
        actions=actions,
        executed_actions=executed,
        proprioception=proprioception,
        privileged=_read_numbers(obs, "privileged", path) if "privileged" in obs else None,
        states=_read(group, "states", path) if "states" in group else None,
        success=_success(group, path),
        instruction=_instruction(group, data, path),
        init_state=_integer(attributes, "init_state_index"),
        task_id=_integer(attributes, "task_id"),
        seed=_integer(attributes, "seed"),
        source=str(attributes.get("source", "demonstration")),
        noise=float(attributes["noise"]) if "noise" in attributes else None,
        cameras=cameras,
        image_steps=_image_steps(obs, cameras, int(attributes.get("image_stride", 0)), steps, path),
        file=path,
        name=name,
    )


def _image_steps(
    obs: h5py.Group, cameras: tuple[str, ...], stride: int, steps: int, path: Path
) -> np.ndarray:
    """A file without ``image_stride`` has one frame an action; ours also has the one after the last step."""
    expected = np.append(np.arange(0, steps, stride), steps) if stride else np.arange(steps)
    for camera in cameras:
        frames = len(_node(obs, camera, h5py.Dataset, path))
        if frames != len(expected):
            raise ForethoughtError(
                f"'{path}': '{obs.name}/{camera}' holds {frames} frames for {steps} steps; expected "
                f"{len(expected)} (image_stride {stride or 1}). {_REMEDY}"
            )
    return expected.astype(np.int64)


def _success(group: h5py.Group, path: Path) -> bool:
    """What the file says; else whether the last reward is positive; else yes, for it is a demonstration."""
    if "success" in group.attrs:
        return bool(group.attrs["success"])
    return bool(_read(group, "rewards", path)[-1] > 0) if "rewards" in group else True


def _integer(attributes: Mapping[str, Any], name: str) -> int | None:
    return int(attributes[name]) if name in attributes else None


def _instruction(group: h5py.Group, data: h5py.Group, path: Path) -> str:
    if "instruction" in group.attrs:
        return str(group.attrs["instruction"])
    try:
        stored: Any = data.attrs["problem_info"]
        text = json.loads(stored)["language_instruction"]
    except (KeyError, ValueError, TypeError) as error:
        raise ForethoughtError(
            f"'{path}' does not say what its task is: 'data' needs the attribute 'problem_info', JSON with "
            f"'language_instruction'. {_REMEDY}"
        ) from error
    return (text if isinstance(text, str) else "".join(text)).strip().strip('"')
