"""The mean of a policy's samples as a policy."""

from __future__ import annotations

import numpy as np
import pytest

import forethought
from forethought.interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation, Policy
from forethought.planner import running_averages
from forethought.wrappers.policies.averaged import AveragedPolicy, load

ARM = ActionSpec(low=-np.ones(7), high=np.ones(7), position=(0, 1, 2), rotation=(3, 4, 5), gripper=(6,))


class Sampling:
    action_spec, horizon, cameras = ARM, 4, ("wrist",)

    def __init__(self) -> None:
        self.asked: list[int] = []

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        self.asked.append(n)
        draws = [np.random.default_rng(seed).uniform(-0.8, 0.8, (32, 4, 7))[:n] for seed in seeds]
        return ActionSamples(ARM.clip(np.float32(draws)))


SEEDS = np.array([3, 4])
SEEN = Observation({}, np.zeros((2, 8), np.float32), ("task",) * 2)


def test_it_executes_the_mean_and_offers_the_policys_further_samples():
    policy = Sampling()
    averaged = AveragedPolicy(policy, 6)
    assert isinstance(averaged, Policy)
    assert (averaged.horizon, averaged.action_spec, averaged.cameras) == (4, ARM, ("wrist",))
    single = policy.propose(SEEN, 9, SEEDS).chunks
    found = averaged.propose(SEEN, 9, SEEDS).chunks
    np.testing.assert_array_equal(found[:, 0], running_averages(single[:, :6], ARM)[:, -1])
    np.testing.assert_array_equal(found[:, 1:], single[:, 1:])


def test_what_it_executes_does_not_depend_on_how_many_are_asked_for():
    policy = Sampling()
    averaged = AveragedPolicy(policy, 6)
    one, many = averaged.propose(SEEN, 1, SEEDS).chunks, averaged.propose(SEEN, 9, SEEDS).chunks
    assert policy.asked == [6, 9]
    assert one.shape == (2, 1, 4, 7)
    np.testing.assert_array_equal(one[:, 0], many[:, 0])


def test_the_mean_of_one_sample_is_that_sample():
    policy = Sampling()
    one = AveragedPolicy(policy, 1).propose(SEEN, 3, SEEDS).chunks
    np.testing.assert_allclose(one, policy.propose(SEEN, 3, SEEDS).chunks, atol=1e-6)


@pytest.mark.parametrize("average", [0, -1, 1.5])
def test_a_number_that_is_none_is_refused(average):
    with pytest.raises(ForethoughtError, match="at least 1 sample"):
        AveragedPolicy(Sampling(), average)


def test_wrapped_it_looks_ahead(planner):
    plans = planner("rising")
    wrapped = forethought.wrap(AveragedPolicy(Sampling(), 6), planner=plans)
    planned = wrapped.propose(SEEN, 1, SEEDS).chunks
    assert np.allclose(planned[0, 0, :, 0], 0.1 * np.arange(1, 5))
    mean = AveragedPolicy(Sampling(), 6).propose(SEEN, 1, SEEDS).chunks[:, 0]
    np.testing.assert_array_equal(plans.samples[0].chunks[:, 0], mean)


def test_a_shipped_policy_is_averaged_by_name():
    averaged = load("libero_object", average=4)
    assert averaged.average == 4
    assert averaged.cameras == averaged.policy.cameras
