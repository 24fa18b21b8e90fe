"""The sampling planners when numbers are not finite, rows are bad, or settings make no sense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fakes import ARM, LINE, FunctionReward, FunctionWorld, observe, policy_samples
from sampling_fakes import SAMPLERS, plan, sampler

from forethought.interfaces import ActionSamples, ForethoughtError
from forethought.planner import PRESETS


class TestRobust:
    @settings(max_examples=40, deadline=None)
    @given(
        name=st.sampled_from(SAMPLERS),
        simulations=st.integers(1, 40),
        depth=st.integers(1, 3),
        bad=st.sampled_from([np.nan, np.inf, -np.inf]),
        share=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
        where=st.sampled_from(["value", "spread", "latent", "done", "disagreement"]),
        tie=st.booleans(),
        seed=st.integers(0, 99),
    )
    def test_numbers_that_are_not_finite_never_win(
        self, name, simulations, depth, bad, share, where, tie, seed
    ):
        def broken(quantity, normal):
            def read(state):
                unlucky = np.abs(np.sin(1e5 * np.nan_to_num(state[:, 0]))) < share
                return np.where(unlucky & (quantity == where), bad, normal(state))

            return read

        zero = lambda s: np.zeros(len(s))  # noqa: E731
        inner = broken("latent", lambda s: s[:, 1])

        def step(state, chunks):
            after = state + chunks.astype(np.float64).mean(axis=1)
            return np.concatenate([after[:, :1], inner(after)[:, None], after[:, 2:]], axis=1)

        world = FunctionWorld(step, broken("done", zero), broken("disagreement", zero))
        value = zero if tie else lambda s: np.tanh(np.nan_to_num(s[:, 2]))
        reward = FunctionReward(broken("value", value), broken("spread", zero))
        planner = PRESETS[name](world, reward, action_spec=ARM, simulations=simulations, depth=depth)
        samples = policy_samples(ARM, 2, 3, 4)
        decision = planner.plan(observe(np.zeros((2, 7))), samples, np.array([seed, seed + 1]))
        assert np.isfinite(decision.chunk).all()
        assert (decision.simulations <= simulations).all()
        assert (np.isfinite(decision.value) | decision.fallback).all()
        np.testing.assert_array_equal(
            decision.chunk[decision.slot == 0], samples.chunks[decision.slot == 0, 0]
        )

    @pytest.mark.parametrize("name", SAMPLERS)
    def test_one_bad_row_falls_back_alone(self, name):
        states = np.zeros((3, 7), np.float32)
        states[1] = np.nan
        samples = policy_samples(ARM, 3, 4, 8)
        planner = sampler(name, depth=2, simulations=40)
        decision = planner.plan(observe(states), samples, np.arange(3))
        assert decision.fallback.tolist() == [False, True, False]
        np.testing.assert_array_equal(decision.chunk[1], samples.chunks[1, 0])
        alone = sampler(name, depth=2, simulations=40).plan(
            observe(states[2:]), ActionSamples(samples.chunks[2:]), np.array([2])
        )
        np.testing.assert_array_equal(decision.chunk[2:], alone.chunk)
        nothing = planner.plan(observe(np.full((2, 7), np.nan)), policy_samples(ARM, 2, 4, 8), np.arange(2))
        assert nothing.fallback.all()

    @pytest.mark.parametrize("name", SAMPLERS)
    def test_a_policy_chunk_that_is_not_finite_leaves_as_it_came(self, name):
        samples = policy_samples(ARM, 2, 4, 8)
        samples.chunks[1, 0, 3] = np.nan
        decision = plan(sampler(name), 2, samples)
        assert decision.fallback.tolist() == [False, True]
        np.testing.assert_array_equal(decision.chunk[1], samples.chunks[1, 0])

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"depth": 0}, "depth"),
            ({"iterations": 0}, "iterations"),
            ({"population": 1.5}, "population"),
            ({"elites": 0.0}, "elites"),
            ({"momentum": 1.0}, "momentum"),
            ({"least_deviation": 0.0}, "least_deviation"),
            ({"flip_probability": 1.0}, "flip_probability"),
            ({"decay": 0.5}, "decay"),
            ({"carry": -1}, "carry"),
            ({"tolerance": -0.1}, "tolerance"),
            ({"simulations": None}, "simulations"),
        ],
    )
    def test_bad_settings_are_refused(self, options, words):
        with pytest.raises(ForethoughtError, match=words):
            sampler("icem", **options)
        if words in ("depth", "elites"):
            with pytest.raises(ForethoughtError, match="temperature"):
                sampler("mppi", temperature=0.0)

    def test_wrong_shapes_are_refused(self):
        with pytest.raises(ForethoughtError, match=r"\[B, N, H, A\]"):
            plan(sampler("cem"), 2, policy_samples(LINE, 2, 3, 8))
        with pytest.raises(ForethoughtError, match="one seed per row"):
            sampler("cem").plan(observe(np.zeros((2, 7))), policy_samples(ARM, 2, 3, 8), np.arange(3))
