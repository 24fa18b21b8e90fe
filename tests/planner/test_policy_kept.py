"""The policy's own chunk is always a candidate, and executed unless something is better."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import (
    ARM,
    ArmWorld,
    FunctionReward,
    FunctionWorld,
    NearTarget,
    add,
    line_samples,
    line_search,
    observe,
    policy_samples,
)

from forethought.planner import (
    DecisionRule,
    forethought,
)


class TestThePolicyIsKept:
    def test_the_policy_chunk_is_returned_when_nothing_is_better(self):
        world = FunctionWorld(add)
        reward = FunctionReward(lambda s: 1.0 - np.abs(s[:, 0]))
        decision = line_search(world, reward, [0.0, 0.5, -0.5]).plan(
            observe([0.0]), line_samples(1), np.array([0])
        )
        assert not decision.overridden[0]
        assert decision.slot[0] == 0
        assert decision.chunk[0, 0, 0] == 0.0
        assert decision.reason[0].startswith("policy")

    def test_equal_values_leave_the_policy_alone(self):
        reward = FunctionReward(lambda s: np.full(len(s), 0.5))
        search = line_search(FunctionWorld(add), reward, [0.0, 0.5, -0.5], depth=2)
        assert search.plan(observe([0.0]), line_samples(1), np.array([0])).slot[0] == 0

    def test_a_gain_within_the_margin_does_not_switch_and_one_past_it_does(self):
        reward = FunctionReward(lambda s: 0.5 + 0.1 * s[:, 0])
        for margin, slot in ((0.11, 0), (0.09, 1)):
            search = line_search(FunctionWorld(add), reward, [0.0, 1.0], decision=DecisionRule(margin=margin))
            assert search.plan(observe([0.0]), line_samples(1), np.array([0])).slot[0] == slot

    @pytest.mark.parametrize("simulations", [1, 2, 5])
    def test_slot_zero_is_the_policy_chunk_and_is_evaluated_at_any_budget(self, simulations):
        samples = policy_samples(ARM, 2, 4, 8)
        planner = forethought(ArmWorld(), NearTarget(), action_spec=ARM, simulations=simulations)
        decision = planner.plan(observe(np.zeros((2, 7))), samples, np.array([1, 2]))
        np.testing.assert_array_equal(decision.candidates.chunks[:, 0], samples.chunks[:, 0])
        assert np.isfinite(decision.candidates.value[:, 0]).all()
        assert (decision.simulations == simulations).all()
