"""What is evaluated, when, and how it is scored."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import (
    FunctionReward,
    FunctionWorld,
    add,
    line_samples,
    line_search,
    observe,
)

from forethought.planner import (
    Budget,
    ProgressiveWidening,
    Puct,
    Scoring,
)


class TestEvaluation:
    def test_phase_one_is_one_call_for_all_rows(self):
        world = FunctionWorld(add)
        line_search(world, FunctionReward(lambda s: s[:, 0]), [0.0, 0.5, 1.0]).plan(
            observe([0.0, 0.0]), line_samples(2), np.array([0, 1])
        )
        assert world.calls == [6]

    @pytest.mark.parametrize("wave", [1, 4, 16, 100])
    def test_no_leaf_is_evaluated_twice_and_no_call_exceeds_the_wave(self, wave):
        world = FunctionWorld(lambda s, c: 10.0 * s + c[:, 0].astype(np.float64))
        actions = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        search = line_search(
            world, FunctionReward(lambda s: np.sin(s[:, 0])), actions, depth=3, wave=wave,
            budget=Budget(simulations=90),
        )  # fmt: skip
        decision = search.plan(observe([0.0]), line_samples(1), np.array([0]))
        assert decision.simulations[0] == 90 == sum(world.calls) == len(set(world.asked))
        assert max(world.calls[1:]) <= wave

    def test_virtual_visits_spread_a_wave_over_the_root(self):
        reward = FunctionReward(lambda s: 0.5 + 0.1 * (np.round(s[:, 0], 2) == 0.2))
        search = line_search(
            FunctionWorld(add),
            reward,
            [0.1, 0.2, 0.3, 0.4],
            depth=2,
            inner_children=4,
            wave=4,
            budget=Budget(simulations=8),
            root_rule=Puct(10.0),
            widening=ProgressiveWidening(factor=4),
        )
        visits = search.plan(observe([0.0]), line_samples(1), np.array([0])).candidates.visits[0]
        assert visits.sum() == 8
        assert visits[1] == visits.max()
        assert (visits > 1).sum() > 1

    def test_nothing_is_searched_below_the_end(self):
        world = FunctionWorld(add, done=lambda s: (s[:, 0] > 0.9).astype(float))
        reward = FunctionReward(lambda s: np.full(len(s), 0.2))
        decision = line_search(world, reward, [0.0, 1.0], depth=4, scoring=Scoring(0.0, discount=0.9)).plan(
            observe([0.0]), line_samples(1), np.array([0])
        )
        states = np.array([np.frombuffer(state)[0] for state, _ in world.asked])
        assert states.max() < 0.9
        assert decision.slot[0] == 1
        assert decision.value[0] == 1.0

    def test_the_probability_of_the_end_mixes_in_the_value_one(self):
        world = FunctionWorld(add, done=lambda s: np.full(len(s), 0.25))
        decision = line_search(world, FunctionReward(lambda s: np.full(len(s), 0.4)), [0.0, 1.0]).plan(
            observe([0.0]), line_samples(1), np.array([0])
        )
        assert decision.value[0] == pytest.approx(0.25 + 0.75 * 0.4)

    def test_pessimism_prefers_the_candidate_that_the_ensemble_agrees_on(self):
        reward = FunctionReward(lambda s: 0.5 + 0.2 * s[:, 0], spread=lambda s: np.maximum(s[:, 0], 0.0))
        for pessimism, slot in ((0.0, 1), (1.0, 0)):
            search = line_search(FunctionWorld(add), reward, [0.0, 0.8], scoring=Scoring(pessimism=pessimism))
            assert search.plan(observe([0.0]), line_samples(1), np.array([0])).slot[0] == slot

    def test_disagreement_of_the_world_model_counts_when_weighted(self):
        world = FunctionWorld(add, disagreement=lambda s: np.maximum(s[:, 0], 0.0))
        reward = FunctionReward(lambda s: 0.5 + 0.2 * s[:, 0])
        for weight, slot in ((0.0, 1), (1.0, 0)):
            search = line_search(world, reward, [0.0, 0.8], scoring=Scoring(0.0, weight))
            assert search.plan(observe([0.0]), line_samples(1), np.array([0])).slot[0] == slot
