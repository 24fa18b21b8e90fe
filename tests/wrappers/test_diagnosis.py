"""The doctor finds each of the common mistakes, and finds nothing where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from forethought.experiments import doctor
from forethought.interfaces import ActionSpec, ForethoughtError
from forethought.wrappers.diagnosis import Range, Seen, diagnose, read_statistics
from forethought.wrappers.models import Models

SPEC = ActionSpec(
    -np.ones(7), np.ones(7), (0, 1, 2), (3, 4, 5), (6,), position_scale=0.05, rotation_scale=0.5
)
STATE = np.array([0.1, 0.0, 1.0, 3.0, 0.1, -0.2, 0.02, -0.02])
STATE_RANGE = Range(STATE - 0.5, STATE + 0.5)
INSTRUCTIONS = ("pick up the milk and place it in the basket", "open the drawer")


def scene(seed: int = 0) -> np.ndarray:
    """A picture that no view of itself looks like."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 6, 3))
    return np.kron(coarse, np.ones((16, 16, 1))).astype(np.uint8)


def arm_actions() -> np.ndarray:
    """Sixteen actions in environment units, the gripper open (-1), of moderate size."""
    actions = np.random.default_rng(1).uniform(-0.5, 0.5, (16, 7))
    actions[:, 6] = -1.0
    return actions


class Memory:
    """Recorded chunks of moderate size with the gripper open; the key is the mean colour of the picture."""

    instructions = INSTRUCTIONS

    def __init__(self) -> None:
        self.chunks = np.random.default_rng(2).uniform(-0.6, 0.6, (64, 8, 7)).astype(np.float32)
        self.chunks[..., 6] = -1.0
        self.keys = np.tile(scene()[::16, ::16].reshape(1, -1).astype(np.float32), (64, 1))
        self.weights = np.ones(self.keys.shape[1], np.float32)

    def nearest(self, latent: Any, instruction: Any, k: int) -> np.ndarray:
        return self.chunks[None, :k]

    def all_chunks(self) -> np.ndarray:
        return self.chunks


class Encoder:
    def encode(self, observation):
        pixels = observation.images["agentview_rgb"][:, ::16, ::16]
        return pixels.reshape(len(pixels), 1, -1).astype(np.float32)

    def step(self, latent, chunks): ...


@pytest.fixture
def models() -> Models:
    return Models(Encoder(), None, Memory(), 8, ("agentview_rgb",), SPEC)


def good() -> dict[str, Any]:
    return {
        "full_image": scene(),
        "wrist_image": scene(1),
        "state": STATE.copy(),
        "instruction": INSTRUCTIONS[0],
        "actions": arm_actions(),
    }


def symptoms(models: Models | None, entries: dict[str, Any], **known: Any) -> dict[str, Any]:
    known = {"reference": {"full_image": scene(), "wrist": scene(1)}, **known}
    found = diagnose(Seen.of(entries), models=models, **known)
    return {symptom.name: symptom for symptom in found if symptom.wrong is not False}


def test_nothing_is_found_where_nothing_is_wrong(models):
    assert not symptoms(models, good(), statistics={"state": STATE_RANGE})
    assert not symptoms(None, good(), spec=SPEC)
    assert not symptoms(None, {"actions": arm_actions(), "instruction": "open it"}, reference={})
    everything = diagnose(Seen.of(good()), models=models)
    assert [one.name for one in everything] == [
        "image full_image", "image wrist_image", "state", "instruction", "actions", "gripper",
    ]  # fmt: skip


def change(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda entries: {**entries, **changes}


def actions(function: Callable[[np.ndarray], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def changed(entries):
        made = entries["actions"].copy()
        result = function(made)
        return {**entries, "actions": made if result is None else result}

    return changed


def set_gripper(values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return actions(lambda made: made.__setitem__((slice(None), 6), values))


def quaternion(entries):
    q = np.array([0.0, 0.6, 0.0, 0.8])
    return {**entries, "state": np.concatenate([STATE[:3], q, STATE[6:]])}


def long_way_round(entries):
    turn = STATE[3:6]
    other = turn * (1 - 2 * np.pi / np.linalg.norm(turn))
    return {**entries, "state": np.concatenate([STATE[:3], other, STATE[6:]])}


def arm_times(factor: float) -> np.ndarray:
    return np.array([factor] * 6 + [1.0])


HALF = np.where(np.arange(16) < 8, 1.0, 0.0)
MISTAKES = {
    "colours first": (change(full_image=scene().transpose(2, 0, 1)), "image full_image", True, "transpose"),
    "floats": (change(full_image=scene() / 255.0), "image full_image", True, "uint8"),
    "black": (change(wrist_image=scene() * 0), "image wrist_image", True, "camera"),
    "doubled": (change(wrist_image=scene()), "image wrist_image", True, "own image"),
    "turned": (change(full_image=scene()[::-1, ::-1]), "image full_image", True, "180 degrees"),
    "upside down": (change(full_image=scene()[::-1]), "image full_image", True, "upside down"),
    "mirrored": (change(wrist_image=scene(1)[:, ::-1]), "image wrist_image", True, "mirrored"),
    "blue": (change(full_image=scene()[..., ::-1]), "image full_image", True, "red and blue"),
    "swapped": (
        change(full_image=scene(1), wrist_image=scene()), "image full_image", True, "wrist_image instead",
    ),
    "quaternion": (quaternion, "state", True, "axis-angle"),
    "long way round": (long_way_round, "state", True, "negate"),
    "degrees": (change(state=STATE * [1, 1, 1, 57.3, 57.3, 57.3, 1, 1]), "state", True, "radians"),
    "millimetres": (change(state=STATE * [1e3, 1e3, 1e3, 1, 1, 1, 1, 1]), "state", True, "metres"),
    "a missing number": (change(state=STATE[:7]), "state", True, "trained on"),
    "elsewhere": (change(state=STATE + 3 * np.eye(8)[1]), "state", None, "order, units"),
    "state NaN": (change(state=STATE * np.nan), "state", True, "interface"),
    "no instruction": (change(instruction=""), "instruction", None, "in words"),
    "a prompt": (
        change(instruction="In: What action should the robot take to open it?\nOut:"),
        "instruction", True, "task alone",
    ),
    "underscores": (change(instruction="Open_the_drawer."), "instruction", True, "'open the drawer'"),
    "another task": (change(instruction="wash the car"), "instruction", None, "models know"),
    "NaN": (actions(lambda made: made * np.nan), "actions", True, "statistics"),
    "padded": (actions(lambda made: np.pad(made, ((0, 0), (0, 25)))), "actions", True, "padding"),
    "stuck": (actions(lambda made: made * 0 + 0.2), "actions", None, "new observation"),
    "too large": (actions(lambda made: made * arm_times(40.0)), "actions", True, "units"),
    "too small": (actions(lambda made: made * arm_times(0.01)), "actions", None, "scaled twice"),
    "zero to one": (set_gripper(HALF), "gripper", True, "gripper_open"),
    "inverted": (set_gripper(1.0), "gripper", None, "invert the sign"),
    "half open": (set_gripper(0.5 * HALF - 0.3), "gripper", None, "binarise"),
}  # fmt: skip


@pytest.mark.parametrize(("mistake", "name", "wrong", "mend"), MISTAKES.values(), ids=MISTAKES)
def test_a_common_mistake_is_found_with_what_mends_it(models, mistake, name, wrong, mend):
    found = symptoms(models, mistake(good()), statistics={"state": STATE_RANGE})
    assert name in found
    assert found[name].wrong is wrong
    assert mend in found[name].mend + found[name].detail


def test_actions_that_are_still_normalised_are_told_from_small_ones():
    small = {"action": Range(np.full(7, -0.03), np.full(7, 0.03))}
    spec = ActionSpec(np.full(7, -0.1), np.full(7, 0.1), (0, 1, 2), (3, 4, 5))
    found = symptoms(None, good(), spec=spec, statistics=small)
    assert found["actions"].wrong and "still normalised" in found["actions"].detail
    degrees = {**good(), "actions": 57.3 * 0.03 * np.sign(arm_actions())}
    assert "degrees" in symptoms(None, degrees, spec=spec, statistics=small)["actions"].detail
    right = {**good(), "actions": arm_actions() * 0.05}
    assert not symptoms(None, right, spec=spec, statistics=small)


def test_places_are_told_from_displacements():
    entries = good()
    entries["actions"][:, :3] = STATE[:3] + 0.005 * np.arange(16)[:, None]
    spec = ActionSpec(np.full(7, -2.0), np.full(7, 2.0), (0, 1, 2), (3, 4, 5))
    assert "displacements" in symptoms(None, entries, spec=spec)["actions"].detail


def test_without_a_picture_of_the_training_data_the_memory_suspects_a_view(models):
    entries = {**good(), "full_image": scene()[..., ::-1]}
    found = symptoms(models, entries, reference={})
    assert found["images ['agentview_rgb']"].wrong is None
    assert "red and blue" in found["images ['agentview_rgb']"].mend


ACTION = {"q01": [-1.0] * 7, "q99": [1.0] * 7}
BODY = {"q01": [0.0], "q99": [1.0]}
EXTREMES = {
    "action": {"min": [-1.0] * 7, "max": [1.0] * 7},
    "observation.state": {"min": [0.0], "max": [1.0]},
}
STATISTICS = {
    "OpenVLA": {"libero": {"action": ACTION, "proprio": BODY}},
    "openpi": {"norm_stats": {"actions": ACTION, "state": BODY}},
    "LeRobot": EXTREMES,
}


@pytest.mark.parametrize("content", STATISTICS.values(), ids=STATISTICS)
def test_statistics_of_each_project_are_read(content):
    found = read_statistics(content)
    assert found["action"].size == 7 and found["state"].high.tolist() == [1.0]


def test_statistics_of_several_data_sets_need_a_name():
    both = {"a": STATISTICS["OpenVLA"]["libero"], "b": STATISTICS["OpenVLA"]["libero"]}
    with pytest.raises(ForethoughtError, match="--key"):
        read_statistics(both)
    assert read_statistics(both, "a")["action"].size == 7
    with pytest.raises(ForethoughtError, match="no data set 'c'"):
        read_statistics(both, "c")
    with pytest.raises(ForethoughtError, match="q01"):
        read_statistics({"x": {"y": 1}})


def test_actions_are_needed():
    with pytest.raises(ForethoughtError, match=r"actions \[T, A\].*full_image"):
        Seen.of({"full_image": scene()})


class TestCommand:
    def test_a_healthy_policy_ends_with_code_0(self, tmp_path, capsys):
        np.savez(tmp_path / "seen.npz", **good())
        assert doctor.main(["--policy", str(tmp_path / "seen.npz"), "--models", "libero_object"]) == 0
        assert "Nothing is plainly wrong" in capsys.readouterr().out

    def test_a_mistake_ends_with_code_1_and_what_to_do(self, tmp_path, capsys):
        np.savez(tmp_path / "seen.npz", **{**good(), "full_image": scene()[::-1, ::-1]})
        np.savez(tmp_path / "training.npz", full_image=scene())
        (tmp_path / "statistics.json").write_text(json.dumps(STATISTICS["LeRobot"]))
        code = doctor.main(
            ["--json", "--policy", str(tmp_path / "seen.npz"), "--reference", str(tmp_path / "training.npz"),
             "--statistics", str(tmp_path / "statistics.json")]
        )  # fmt: skip
        report = json.loads(capsys.readouterr().out)
        broken = {one["name"]: one for one in report["findings"] if one["needed"]}
        assert code == 1 and not report["ready"]
        assert "180 degrees" in broken["image full_image"]["mend"]

    def test_files_that_hold_something_else_are_refused(self, tmp_path):
        np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(ForethoughtError, match=r"np\.savez"):
            doctor.main(["--policy", str(tmp_path / "object.npy")])
        with pytest.raises(ForethoughtError, match="does not hold"):
            doctor.main(["--policy", str(tmp_path / "none.npz")])
