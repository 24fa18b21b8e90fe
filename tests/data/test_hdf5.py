"""Episodes survive the way to a file and back, and damaged files are named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from forethought.experiments.data.hdf5 import Recording, find_files, read_episodes, write_episodes
from forethought.interfaces import ForethoughtError

ATTRIBUTES = {"problem_info": {"language_instruction": "lift the mug"}, "bddl_file_name": "mug.bddl"}


def recording(steps: int = 7, stride: int = 3, success: bool = True) -> Recording:
    random = np.random.default_rng(steps)
    frames = len(range(0, steps, stride)) + 1
    actions = random.uniform(-1, 1, (steps, 7)).astype(np.float32)
    return Recording(
        actions=actions,
        executed_actions=actions + np.float32(0.1),
        states=random.normal(size=(steps, 20)),
        proprioception=random.normal(size=(steps + 1, 8)).astype(np.float32),
        privileged=random.normal(size=(steps + 1, 18)).astype(np.float32),
        joint_states=random.normal(size=(steps, 7)),
        images={"agentview_rgb": random.integers(0, 255, (frames, 6, 5, 3)).astype(np.uint8)},
        image_stride=stride,
        success=success,
        init_state=4,
        task_id=2,
        seed=2**61,
        instruction="lift the mug",
        source="expert",
        noise=0.2,
    )


def test_everything_that_was_recorded_is_read_back(tmp_path: Path) -> None:
    given = recording()
    write_episodes(tmp_path / "a.hdf5", [given, recording(success=False)], ATTRIBUTES)
    read, failed = read_episodes(tmp_path)
    for name in ("actions", "executed_actions", "states", "proprioception", "privileged"):
        np.testing.assert_allclose(getattr(read, name), getattr(given, name), rtol=1e-6)
    for name in ("success", "init_state", "task_id", "seed", "instruction", "source", "noise"):
        assert getattr(read, name) == getattr(given, name)
    np.testing.assert_array_equal(read.images("agentview_rgb"), given.images["agentview_rgb"])
    assert read.image_steps.tolist() == [0, 3, 6, 7]
    assert not failed.success


@pytest.mark.parametrize(("steps", "stride", "expected"), [(6, 3, [0, 3, 6]), (1, 1, [0, 1]), (2, 8, [0, 2])])
def test_the_frame_after_the_last_step_is_always_there(
    tmp_path: Path, steps: int, stride: int, expected: list[int]
) -> None:
    write_episodes(tmp_path / "a.hdf5", [recording(steps, stride)], ATTRIBUTES)
    (episode,) = read_episodes(tmp_path)
    assert episode.image_steps.tolist() == expected


def test_images_lie_upside_down_in_the_file_as_libero_has_them(tmp_path: Path) -> None:
    given = recording()
    write_episodes(tmp_path / "a.hdf5", [given], ATTRIBUTES)
    with h5py.File(tmp_path / "a.hdf5") as file:
        stored = np.asarray(file["data/demo_0/obs/agentview_rgb"])
        info = json.loads(file["data"].attrs["problem_info"])
    np.testing.assert_array_equal(stored, given.images["agentview_rgb"][:, ::-1, ::-1])
    assert info["language_instruction"] == "lift the mug"


def test_failures_and_tasks_can_be_selected(tmp_path: Path) -> None:
    others = [recording(success=False), replace(recording(), task_id=5)]
    write_episodes(tmp_path / "a.hdf5", [recording(), *others], ATTRIBUTES)
    assert [e.success for e in read_episodes(tmp_path, successes=False)] == [False]
    assert [e.task_id for e in read_episodes(tmp_path, tasks=[5])] == [5]


def test_the_tenth_episode_follows_the_ninth(tmp_path: Path) -> None:
    write_episodes(tmp_path / "a.hdf5", [recording() for _ in range(12)], ATTRIBUTES)
    assert [e.name for e in read_episodes(tmp_path)] == [f"demo_{i}" for i in range(12)]


def official_file(path: Path, steps: int = 5) -> None:
    """The layout of LIBERO's published demonstrations."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["bddl_file_name"] = "chiliocosm/bddl_files/libero_object/pick_up_the_milk.bddl"
        data.attrs["env_args"] = json.dumps({"type": 1, "env_name": "Libero_Floor_Manipulation"})
        data.attrs["env_name"] = "Libero_Floor_Manipulation"
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["num_demos"] = 1
        data.attrs["problem_info"] = json.dumps(
            {"problem_name": "floor", "domain_name": "robosuite", "language_instruction": "pick up the milk"}
        )
        data.attrs["tag"] = "libero-v1"
        data.attrs["total"] = steps
        demo = data.create_group("demo_0")
        demo.attrs["init_state"] = random.normal(size=20)
        demo.attrs["model_file"] = "<mujoco/>"
        demo.attrs["num_samples"] = steps
        demo["actions"] = random.uniform(-1, 1, (steps, 7))
        demo["dones"] = demo["rewards"] = np.eye(1, steps, steps - 1, dtype=np.uint8)[0]
        demo["robot_states"], demo["states"] = random.normal(size=(steps, 9)), random.normal(size=(steps, 20))
        obs = demo.create_group("obs")
        for name, size in (("ee_pos", 3), ("ee_ori", 3), ("ee_states", 6), ("gripper_states", 2)):
            obs[name] = random.normal(size=(steps, size))
        obs["joint_states"] = random.normal(size=(steps, 7))
        for camera in ("agentview_rgb", "eye_in_hand_rgb"):
            obs[camera] = random.integers(0, 255, (steps, 4, 4, 3), dtype=np.uint8)


def test_an_official_demonstration_file_loads_unchanged(tmp_path: Path) -> None:
    official_file(tmp_path / "pick_up_the_milk_demo.hdf5")
    (episode,) = read_episodes(tmp_path)
    with h5py.File(tmp_path / "pick_up_the_milk_demo.hdf5") as file:
        obs = {name: np.asarray(value) for name, value in file["data/demo_0/obs"].items()}
    assert (episode.instruction, episode.success, episode.source) == (
        "pick up the milk",
        True,
        "demonstration",
    )
    assert (episode.init_state, episode.task_id, episode.privileged) == (None, None, None)
    np.testing.assert_allclose(episode.proprioception[:, :3], obs["ee_pos"], rtol=1e-6)
    np.testing.assert_allclose(episode.proprioception[:, 6:], obs["gripper_states"], rtol=1e-6)
    np.testing.assert_array_equal(episode.images("eye_in_hand_rgb"), obs["eye_in_hand_rgb"][:, ::-1, ::-1])
    assert episode.image_steps.tolist() == [0, 1, 2, 3, 4]
    assert episode.executed_actions is episode.actions


def test_a_file_cut_off_in_the_middle_is_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.hdf5"
    write_episodes(whole, [recording()], ATTRIBUTES)
    (tmp_path / "whole.hdf5").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ForethoughtError, match=r"whole\.hdf5.*cut off.*(?i:delete)"):
        list(read_episodes(tmp_path))


@pytest.mark.parametrize("key", ["data/demo_0/actions", "data/demo_0/obs", "data/demo_0/obs/ee_ori", "data"])
def test_what_a_file_lacks_is_named(tmp_path: Path, key: str) -> None:
    official_file(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file[key]
    with pytest.raises(ForethoughtError, match=rf"a\.hdf5.*{key.rsplit('/', 1)[-1]}"):
        list(read_episodes(tmp_path))


def test_a_file_that_does_not_say_its_task_is_refused(tmp_path: Path) -> None:
    official_file(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["data"].attrs["problem_info"]
    with pytest.raises(ForethoughtError, match=r"a\.hdf5.*problem_info"):
        list(read_episodes(tmp_path))


def test_lengths_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    official_file(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        frames = file["data/demo_0/obs/agentview_rgb"][:3]
        del file["data/demo_0/obs/agentview_rgb"]
        file["data/demo_0/obs/agentview_rgb"] = frames
    with pytest.raises(ForethoughtError, match=r"agentview_rgb.*3 frames.*expected 5"):
        list(read_episodes(tmp_path))


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    official_file(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["data/demo_0/actions"][2, 1] = np.nan
    with pytest.raises(ForethoughtError, match=r"actions.*1 numbers not finite"):
        list(read_episodes(tmp_path))


def test_a_camera_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    write_episodes(tmp_path / "a.hdf5", [recording()], ATTRIBUTES)
    (episode,) = read_episodes(tmp_path)
    with pytest.raises(ForethoughtError, match=r"eye_in_hand_rgb.*\['agentview_rgb'\]"):
        episode.images("eye_in_hand_rgb")


def test_an_empty_folder_and_a_missing_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="no HDF5 file"):
        find_files(tmp_path)
    with pytest.raises(ForethoughtError, match="does not exist"):
        find_files(tmp_path / "nowhere")
