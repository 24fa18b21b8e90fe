"""Objects with reset(task) and step(image, task), as SimplerEnv's policies are."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

import forethought
from forethought.interfaces import ForethoughtError

IMAGE = np.zeros((6, 6, 3), np.uint8)


class Inference:
    """Remembers images, resets itself when the task changes, answers with two dictionaries."""

    def __init__(self) -> None:
        self.task_description: str | None = None
        self.image_history: deque = deque(maxlen=2)
        self.steps, self.resets = 0, 0

    def reset(self, task_description: str) -> None:
        self.task_description = task_description
        self.image_history.clear()
        self.steps, self.resets = 0, self.resets + 1

    def step(self, image, task_description=None, *args, **kwargs):
        """Returns (raw_action, action)."""
        if task_description is not None and task_description != self.task_description:
            self.reset(task_description)
        self.image_history.append(image)
        self.steps += 1
        small = 0.01 * self.steps
        raw = {"world_vector": np.full(3, small), "open_gripper": np.array([1.0])}
        action = {
            "world_vector": np.full(3, small),
            "rot_axangle": np.full(3, 0.1, np.float32),
            "gripper": np.array([1.0]),
            "terminate_episode": np.array([0.0]),
        }
        return raw, action


def test_it_keeps_its_class_and_gives_the_original_back(wrap):
    original = Inference()
    wrapped = wrap(original)
    assert isinstance(wrapped, Inference) and forethought.unwrap(wrapped) is original
    wrapped.reset("put the carrot on the plate")
    wrapped.step(IMAGE)
    assert (wrapped.steps, original.steps) == (1, 0)
    assert wrapped.task_description == "put the carrot on the plate"


def test_a_kept_action_is_the_originals_to_the_bit(wrap):
    alone, wrapped = Inference(), wrap(Inference())
    for policy in (alone, wrapped):
        policy.reset("stack")
    for _ in range(5):
        ours, theirs = wrapped.step(IMAGE, "stack"), alone.step(IMAGE, "stack")
        for one, other in zip(ours, theirs, strict=True):
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not wrapped.forethought.counters


def test_a_planned_action_goes_to_the_environment_and_the_raw_one_stays(wrap):
    wrapped = wrap(Inference(), "rising")
    wrapped.reset("stack")
    answers = [wrapped.step(IMAGE, "stack") for _ in range(9)]
    assert np.allclose([action["world_vector"][0] for _, action in answers], [*(0.1 * np.arange(1, 9)), 0.1])
    raw, action = answers[2]
    assert np.allclose(raw["world_vector"], 0.03)
    assert action["rot_axangle"].dtype == np.float32 and action["gripper"].shape == (1,)
    assert action["terminate_episode"] == 0.0
    assert wrapped.steps == 9  # asked at every step


def test_models_see_the_image_and_the_task(wrap):
    wrapped = wrap(Inference())
    wrapped.reset("stack")
    wrapped.step(IMAGE + 3, "stack")
    wrapped.step(IMAGE + 4)
    seen = wrapped.forethought.controller.planner.observations
    assert [one.instruction for one in seen] == [("stack",), ("stack",)]
    assert seen[1].images["image"][0, 0, 0, 0] == 4
    assert seen[0].proprioception.shape == (1, 0)


def test_the_state_may_come_from_where_the_robot_is(wrap, scene):
    wrapped = wrap(Inference())
    wrapped.reset("stack")
    with forethought.seeing(scene, "stack"):
        wrapped.step(IMAGE, "stack")
    assert wrapped.forethought.controller.planner.observations[0].proprioception.shape == (1, 8)


def test_an_observation_function_of_the_users_gets_the_arguments_of_step(wrap):
    def observe(image, task):
        return forethought.Observation({"front": image[None]}, np.zeros((1, 2), np.float32), (task,))

    wrapped = wrap(Inference(), observation=observe)
    wrapped.step(IMAGE, "stack")
    assert "front" in wrapped.forethought.controller.planner.observations[0].images


def test_another_task_begins_an_episode_and_drops_what_was_planned(wrap):
    wrapped = wrap(Inference(), "rising")
    wrapped.reset("stack")
    for _ in range(3):
        wrapped.step(IMAGE, "stack")
    assert wrapped.step(IMAGE, "carrot")[1]["world_vector"][0] == pytest.approx(0.1)
    assert wrapped.forethought.controller.planner.resets == 2


def test_a_reset_to_another_task_begins_one_episode_and_not_two(wrap):
    wrapped = wrap(Inference())
    for task in ("stack", "carrot"):
        wrapped.reset(task)
        wrapped.step(IMAGE, task)
    assert wrapped.forethought.controller.planner.resets == 2


def test_an_answer_of_another_shape_says_what_was_expected(wrap):
    class Other(Inference):
        def step(self, image, task_description=None):
            return np.zeros(7)

    with pytest.raises(ForethoughtError, match="world_vector"):
        wrap(Other()).step(IMAGE, "stack")


def test_environments_are_not_taken_for_policies():
    from forethought.wrappers.policies import simpler

    class Environment:
        def reset(self): ...

        def step(self, action): ...

    assert not simpler.matches(Environment())
    assert simpler.matches(Inference()) and not simpler.matches(Inference)
