"""Simulations and milliseconds are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
from forethought.planner.inputs import checked


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


class TestAnyMoment:
    def begun(self, search, rows=2, now=None):
        clock = search.budget.start() if now is None else search.budget.start(now)
        samples = policy_samples(ARM, rows, 4, 8)
        inputs = checked(samples, observe(np.zeros((rows, 7))), np.arange(rows), ARM)
        waves = search.waves(np.zeros((rows, 7)), ("",) * rows, inputs.chunks, inputs.seeds, clock)
        return waves, inputs, clock

    def test_a_decision_is_ready_after_every_wave(self):
        search = forethought(
            ArmWorld(), NearTarget(), action_spec=ARM, simulations=96, children=16, depth=3, wave=4
        )
        waves, inputs, _ = self.begun(search)
        spent, alive = [], np.ones(2, bool)
        for run in waves:
            decision = search.decide(run, inputs, alive)
            spent.append(int(decision.simulations[0]))
            assert not decision.fallback.any()
            assert np.isfinite(decision.value).all()
            assert (decision.value >= decision.policy_value).all()
            assert np.isin(decision.chunk[..., 6], (-1.0, 1.0)).all()
        assert spent == [16, *range(20, 100, 4)]
        whole = search.plan(observe(np.zeros((2, 7))), policy_samples(ARM, 2, 4, 8), np.arange(2))
        np.testing.assert_array_equal(decision.candidates.value, whole.candidates.value)

    def test_looking_at_a_decision_does_not_change_the_search(self):
        search = forethought(ArmWorld(), NearTarget(), action_spec=ARM, simulations=60, children=12, depth=2)
        waves, inputs, _ = self.begun(search)
        *_, run = waves
        unseen = search.decide(run, inputs, np.ones(2, bool))
        waves, inputs, _ = self.begun(search)
        for run in waves:
            seen = search.decide(run, inputs, np.ones(2, bool))
            seen.candidates.value[:] = 0.0
            seen.candidates.visits[:] = 99
            seen.chunk[:] = 0.0
        seen = search.decide(run, inputs, np.ones(2, bool))
        np.testing.assert_array_equal(seen.chunk, unseen.chunk)
        np.testing.assert_array_equal(seen.candidates.value, unseen.candidates.value)
        np.testing.assert_array_equal(seen.candidates.visits, unseen.candidates.visits)

    @settings(max_examples=20, deadline=None)
    @given(
        limit=st.floats(1.0, 60.0),
        lengths=st.lists(st.floats(2.0, 20.0), min_size=1, max_size=40),
        wave=st.integers(1, 16),
    )
    def test_the_overshoot_is_at_most_one_wave_however_long_waves_take(self, limit, lengths, wave):
        now, calls = [0.0], []

        def transition(state, chunks):
            calls.append(lengths[len(calls) % len(lengths)])
            now[0] += 1e-3 * calls[-1]
            return state + chunks.astype(np.float64).mean(axis=1)

        search = forethought(
            FunctionWorld(transition),
            NearTarget(),
            action_spec=ARM,
            simulations=None,
            milliseconds=limit,
            children=8,
            depth=4,
            wave=wave,
        )
        waves, inputs, clock = self.begun(search, rows=1, now=lambda: now[0])
        *_, run = waves
        assert clock.milliseconds <= max(limit, calls[0]) + (max(calls[1:]) if calls[1:] else 0.0) + 1e-9
        # What was begun when the limit had passed is nothing but the first wave.
        assert len(calls) == 1 or sum(calls[:-1]) <= limit
        assert not search.decide(run, inputs, np.ones(1, bool)).fallback.any()
