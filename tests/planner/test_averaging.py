"""The policy's mean: a baseline without foresight."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import ARM, ArmWorld, NearTarget, observe, policy_samples

from forethought.interfaces import ActionSamples, ForethoughtError, Planner
from forethought.planner import PolicyMean, policy_mean, running_averages
from forethought.wrappers.controller import Controller


def plan(samples: ActionSamples, n: int = 8):
    rows = len(samples.chunks)
    return PolicyMean(ARM, n).plan(observe(np.zeros((rows, 7))), samples, np.arange(rows))


@pytest.mark.parametrize(("n", "counted"), [(1, 1), (3, 3), (8, 6)])
def test_it_executes_the_mean_of_the_first_samples(n, counted):
    samples = policy_samples(ARM, 3, 6, 8)
    decision = plan(samples, n)
    np.testing.assert_array_equal(decision.chunk, running_averages(samples.chunks, ARM)[:, counted - 1])
    assert decision.overridden.tolist() == [counted > 1] * 3
    assert not decision.fallback.any()
    assert decision.reason == (f"policy: the mean of {counted} samples",) * 3
    assert (decision.value == 0.0).all()
    assert decision.candidates is None
    assert not decision.simulations.any()


def test_one_sample_is_the_policys_own_chunk():
    samples = policy_samples(ARM, 2, 4, 8)
    np.testing.assert_allclose(plan(samples, 1).chunk, samples.chunks[:, 0], atol=1e-6)


def test_likelier_samples_weigh_more():
    chunks = policy_samples(ARM, 1, 4, 8).chunks
    likely = ActionSamples(chunks, np.array([[-np.inf, 0.0, 0.0, -np.inf]]))
    np.testing.assert_allclose(plan(likely, 4).chunk[0, :, :3], chunks[0, 1:3, :, :3].mean(axis=0), atol=1e-6)


def test_what_is_not_finite_is_no_part_of_the_mean_and_an_own_chunk_that_is_not_leaves_as_it_came():
    chunks = policy_samples(ARM, 2, 3, 8).chunks
    chunks[0, 1, 2, 3] = np.nan
    chunks[1, 0, 0, 0] = np.inf
    decision = plan(ActionSamples(chunks))
    own, other = chunks[0, 0], chunks[0, 2]
    expected = running_averages(np.stack([own, own, other])[None], ARM)[0, -1]
    np.testing.assert_array_equal(decision.chunk[0], expected)
    np.testing.assert_array_equal(decision.chunk[1], chunks[1, 0])
    assert decision.fallback.tolist() == [False, True]
    assert np.isnan(decision.value).tolist() == [False, True]
    assert decision.reason[1].startswith("fallback")


def test_the_controller_executes_it():
    samples = policy_samples(ARM, 2, 4, 8)

    class Sampling:
        action_spec, horizon = ARM, 8

        def propose(self, observation, n, seeds):
            return ActionSamples(samples.chunks[:, :n])

    controller = Controller(Sampling(), PolicyMean(ARM, 4))
    assert controller.samples == 4
    decision = controller.decide(observe(np.zeros((2, 7))), np.arange(2))
    np.testing.assert_array_equal(decision.chunk, running_averages(samples.chunks, ARM)[:, -1])
    assert not decision.fallback.any()


def test_it_is_a_planner_by_name_and_refuses_a_number_that_is_none():
    planner = policy_mean(ArmWorld(), NearTarget(), action_spec=ARM, n=4)
    assert isinstance(planner, Planner)
    assert planner.n == 4
    with pytest.raises(ForethoughtError, match="n=0"):
        policy_mean(ArmWorld(), NearTarget(), action_spec=ARM, n=0)
