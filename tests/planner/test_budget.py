"""Simulations and milliseconds are kept."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import (
    ARM,
    ArmWorld,
    FunctionWorld,
    NearTarget,
    observe,
    policy_samples,
)

from forethought.interfaces import ForethoughtError
from forethought.planner import (
    Budget,
    forethought,
)


class TestBudget:
    @pytest.mark.parametrize("given", [{}, {"simulations": 0}, {"simulations": -3}, {"milliseconds": 0.0}])
    def test_a_budget_of_nothing_is_refused_with_what_to_do(self, given):
        with pytest.raises(ForethoughtError, match=r"budget.*got"):
            Budget(**given)

    @pytest.mark.parametrize(
        "given", [{"simulations": 2.5}, {"milliseconds": -1}, {"milliseconds": float("nan")}]
    )
    def test_a_budget_that_is_no_budget_is_refused(self, given):
        with pytest.raises(ForethoughtError):
            Budget(**given)

    @pytest.mark.parametrize("simulations", [1, 3, 31, 47, 200])
    def test_simulations_are_never_exceeded(self, simulations):
        world = FunctionWorld(lambda s, c: s + c.astype(np.float64).mean(axis=1))
        planner = forethought(
            world, NearTarget(), action_spec=ARM, simulations=simulations, children=16, depth=3, wave=7
        )
        decision = planner.plan(observe(np.zeros((3, 7))), policy_samples(ARM, 3, 4, 8), np.arange(3))
        assert (decision.simulations == simulations).all()
        assert sum(world.calls) == 3 * simulations

    def test_milliseconds_are_kept_but_for_one_wave(self):
        """With a clock that only the world model moves: 5 ms a call."""
        now = [0.0]

        def transition(state, chunks):
            now[0] += 5e-3
            return state + chunks.astype(np.float64).mean(axis=1)

        search = forethought(
            FunctionWorld(transition),
            NearTarget(),
            action_spec=ARM,
            simulations=None,
            milliseconds=52,
            depth=3,
        )
        clock = search.budget.start(lambda: now[0])
        run = search.search(
            np.zeros((1, 7)), ("",), policy_samples(ARM, 1, 4, 8).chunks, np.array([0]), clock
        )
        assert 52 - 5 <= clock.milliseconds <= 52
        assert run.spent[0] == 32 + 9 * search.wave

    def test_the_first_wave_runs_whatever_the_clock_says(self):
        search = forethought(
            ArmWorld(), NearTarget(), action_spec=ARM, simulations=None, milliseconds=1e-6, depth=2
        )
        decision = search.plan(observe(np.zeros((1, 7))), policy_samples(ARM, 1, 4, 8), np.array([0]))
        assert decision.simulations[0] == 32
        assert np.isfinite(decision.policy_value[0])

    def test_of_two_limits_the_first_to_end_counts(self):
        search = forethought(
            ArmWorld(), NearTarget(), action_spec=ARM, simulations=40, milliseconds=60_000, depth=2
        )
        decision = search.plan(observe(np.zeros((1, 7))), policy_samples(ARM, 1, 4, 8), np.array([0]))
        assert decision.simulations[0] == 40
