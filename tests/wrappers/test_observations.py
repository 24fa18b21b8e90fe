"""Observations of other projects are understood, or the error says what was found and what was expected."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError, Observation
from forethought.wrappers.observations import from_call

IMAGE = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
WRIST = IMAGE + 1
STATE = np.arange(8, dtype=np.float64)
CAMERAS = ("agentview_rgb", "eye_in_hand_rgb")

SPELLINGS = {
    "openpi": {
        "observation/image": IMAGE,
        "observation/wrist_image": WRIST,
        "observation/state": STATE,
        "prompt": "open it",
    },
    "OpenVLA": {
        "full_image": IMAGE,
        "wrist_image": WRIST,
        "state": STATE,
        "task_description": "open it",
    },
    "nested": {
        "observation": {"images": {"agentview": IMAGE, "eye_in_hand": WRIST}, "state": STATE},
        "task": ["open it"],
    },
    "flat with dots": {
        "observation.images.image": IMAGE,
        "observation.images.image2": WRIST,
        "observation.state": torch.from_numpy(STATE),
        "task": b"open it",
    },
}


@pytest.mark.parametrize("entries", SPELLINGS.values(), ids=SPELLINGS)
def test_the_usual_spellings_give_one_observation(entries):
    observation = from_call((entries,), {}, CAMERAS)
    assert np.array_equal(observation.images["agentview_rgb"], IMAGE[None])
    assert np.array_equal(observation.images["eye_in_hand_rgb"], WRIST[None])
    assert observation.proprioception.dtype == np.float32
    assert np.array_equal(observation.proprioception, STATE[None])
    assert observation.instruction == ("open it",)


def test_a_batch_keeps_its_rows_and_one_instruction_serves_all():
    entries = {"image": np.stack([IMAGE, WRIST]), "state": np.stack([STATE, STATE + 1]), "prompt": "open it"}
    observation = from_call((entries,), {}, ("agentview_rgb",))
    assert observation.batch == 2
    assert np.array_equal(observation.images["agentview_rgb"][1], WRIST)
    assert observation.proprioception[1, 0] == 1.0


def test_an_observation_of_ours_passes_unchanged():
    ours = Observation({"c": IMAGE[None]}, STATE[None], ("a",))
    assert from_call((), {"observation": ours}) is ours


def test_the_instruction_may_be_an_argument_of_its_own():
    entries = {"image": IMAGE, "state": STATE}
    assert from_call((entries, "open it"), {}).instruction == ("open it",)
    assert from_call((entries,), {"instruction": "open it"}).instruction == ("open it",)


def test_all_images_are_kept_under_their_names_when_no_camera_is_asked_for():
    entries = {"observation/front": IMAGE, "observation/top": WRIST, "state": STATE, "prompt": "open it"}
    assert set(from_call((entries,), {}).images) == {"front", "top"}


def without(*names: str) -> dict:
    entries = {"image": IMAGE, "state": STATE, "prompt": "open it"}
    return {name: value for name, value in entries.items() if name not in names}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (without("state"), r"state vector.*Found.*'image': 'uint8 \[6, 5, 3\]'.*proprioception"),
        (without("prompt"), "instruction.*Found.*prompt"),
        (without("image"), "camera 'agentview_rgb'.*Found.*full_image"),
        ({**without(), "image": IMAGE.astype(np.float32)}, "uint8"),
        ({**without(), "state": STATE[None]}, "all have a batch axis"),
        ({**without(), "image": IMAGE[None], "state": STATE[None].repeat(2, 0)}, "one batch size"),
        ({**without(), "prompt": ["one", "two"]}, "instruction"),
        ({**without(), "state": "left"}, "state vector"),
    ],
)
def test_what_is_missing_is_named_beside_what_was_found(entries, words):
    with pytest.raises(ForethoughtError, match=words):
        from_call((entries,), {}, ("agentview_rgb",))


def test_a_call_without_an_observation_points_to_the_general_way():
    with pytest.raises(ForethoughtError, match="observation="):
        from_call((np.zeros(3),), {})
