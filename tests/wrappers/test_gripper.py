"""Open stays open on the way from a policy to the environment and back."""

from __future__ import annotations

import numpy as np
import pytest

from forethought.interfaces import ActionSpec, ForethoughtError
from forethought.wrappers.gripper import standardised_gripper


@pytest.mark.parametrize(("data_set", "opened"), [("libero_goal_no_noops", -1.0), ("bridge_orig", 1.0)])
def test_the_statistics_tell_which_end_is_open(spec, data_set, opened):
    gripper = standardised_gripper(spec, data_set, None)
    actions = np.zeros((3, 7), np.float32)
    actions[:, 6] = [1.0, 0.0, 0.5]
    moved = gripper.to_environment(actions, spec)
    assert moved[:, 6].tolist() == [opened, -opened, 0.0]
    assert np.array_equal(gripper.to_policy(moved, spec), actions)
    assert actions[0, 6] == 1.0  # what was given is not written to


def test_what_is_beyond_open_or_closed_is_that(spec):
    actions = np.zeros((2, 7), np.float32)
    actions[:, 6] = [1.2, -0.4]
    assert standardised_gripper(spec, "libero_10", None).to_environment(actions, spec)[:, 6].tolist() == [
        -1,
        1,
    ]


def test_the_user_goes_before_the_statistics(spec):
    assert standardised_gripper(spec, "libero_10", 1.0).open == 1.0


def test_without_a_gripper_nothing_is_asked():
    arm = ActionSpec(-np.ones(3), np.ones(3))
    assert np.array_equal(standardised_gripper(arm, "x", None).to_environment(np.ones(3), arm), np.ones(3))


def test_a_number_that_is_no_end_is_refused(spec):
    with pytest.raises(ForethoughtError, match="one of the bounds"):
        standardised_gripper(spec, "libero", 0.0)
    with pytest.raises(ForethoughtError, match="gripper_open"):
        standardised_gripper(spec, "my_robot", None)
