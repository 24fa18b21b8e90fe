"""A policy that breaks: the controller holds the robot still, in the rows concerned and no others."""

from __future__ import annotations

import numpy as np
import pytest
from controller_fakes import SEEDS, Raising, own_chunk

from forethought.interfaces import ActionSamples, ActionSpec
from forethought.wrappers.controller import Controller, hold_still
from forethought.wrappers.guard import Guard


def test_a_policy_that_fails_holds_still_with_the_gripper_as_last_commanded(policy, planner, observe, spec):
    controller = Controller(policy, planner())
    good = controller.decide(observe(), SEEDS).chunk
    assert good[0, -1, 6] == 1.0
    controller.policy = Raising()
    for _ in range(2):
        decision = controller.decide(observe(), SEEDS)
        assert np.array_equal(decision.chunk, np.tile([0, 0, 0, 0, 0, 0, 1.0], (1, 4, 1)))
        assert decision.fallback.all()
    assert controller.counters == {"policy": 2}


def test_a_policy_that_fails_from_the_start_holds_still_with_the_gripper_at_its_lower_bound(observe, spec):
    class Broken:
        action_spec, horizon = spec, 4

        def propose(self, observation, n, seeds):
            return ActionSamples(np.full((1, n, 4, 7), np.nan, np.float32))

    decision = Controller(Broken(), None).decide(observe(), SEEDS)
    assert np.array_equal(decision.chunk, np.tile([0, 0, 0, 0, 0, 0, -1.0], (1, 4, 1)))


def test_the_held_action_is_forgotten_at_reset(policy, observe):
    controller = Controller(policy, None)
    controller.decide(observe(), SEEDS)
    controller.reset()
    controller.policy = Raising()
    assert controller.decide(observe(), SEEDS).chunk[0, 0, 6] == -1.0


def test_one_row_that_makes_the_policy_raise_does_not_stop_its_neighbours(spec, planner, observe):
    class Picky:
        action_spec, horizon = spec, 4

        def propose(self, observation, n, seeds):
            if (seeds == 11).any():
                raise ValueError("not this one")
            return ActionSamples(np.repeat(own_chunk(len(seeds))[:, None], n, axis=1))

    controller = Controller(Picky(), planner())
    decision = controller.decide(observe(3), np.array([10, 11, 12]))
    assert decision.overridden.tolist() == [True, False, True]
    assert np.array_equal(decision.chunk[1, :, :6], np.zeros((4, 6)))
    assert controller.counters == {"policy": 1}


@pytest.mark.parametrize("shape", [(4, 7), (1, 4, 7), (1, 2, 3, 7), (1, 2, 4, 6), (2, 1, 4, 7), (1, 0, 4, 7)])
def test_samples_of_a_wrong_shape_hold_still(spec, observe, shape):
    class Misshapen:
        action_spec, horizon = spec, 4

        def propose(self, observation, n, seeds):
            return ActionSamples(np.zeros(shape, np.float32))

    controller = Controller(Misshapen(), None)
    assert controller.decide(observe(), SEEDS).fallback.all()
    assert str(list(shape)) in str(controller.first["policy"])


def test_nan_in_a_further_sample_is_replaced_by_the_policys_own_chunk(spec, planner, observe):
    seen = []

    class PartlyBroken:
        action_spec, horizon = spec, 4

        def propose(self, observation, n, seeds):
            chunks = np.repeat(own_chunk()[:, None], n, axis=1)
            chunks[0, 2, 1, 1] = np.nan
            return ActionSamples(chunks, np.zeros((1, n), np.float32))

    plans = planner()
    original = plans.plan
    plans.plan = lambda o, samples, seeds: (seen.append(samples), original(o, samples, seeds))[1]
    controller = Controller(PartlyBroken(), plans)
    assert controller.decide(observe(), SEEDS).overridden.all()
    assert np.array_equal(seen[0].chunks[0, 2], own_chunk()[0])
    assert seen[0].log_probability is None
    assert controller.counters == {"samples": 1}


def test_a_policy_that_the_guard_rejects_too_holds_still(observe, spec):
    class Far:
        action_spec, horizon = spec, 4

        def propose(self, observation, n, seeds):
            return ActionSamples(np.full((1, n, 4, 7), 9.0, np.float32))

    controller = Controller(Far(), None, guard=Guard(spec, clip=False))
    assert np.array_equal(controller.decide(observe(), SEEDS).chunk[0, :, :6], np.zeros((4, 6)))


def test_interrupting_with_the_keyboard_is_not_swallowed(spec, observe):
    class Interrupted:
        action_spec, horizon = spec, 4

        def propose(self, observation, n, seeds):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Controller(Interrupted(), None).decide(observe(), SEEDS)


def test_holding_still_keeps_numbers_that_are_neither_motion_nor_gripper():
    spec = ActionSpec(np.full(4, -1.0), np.ones(4), position=(0,), gripper=(1,))
    held = hold_still(spec, 2, np.array([[0.5, 1.0, 0.3, -0.2]]))
    assert np.allclose(held, np.tile([0.0, 1.0, 0.3, -0.2], (1, 2, 1)))
