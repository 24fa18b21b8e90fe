"""Numbers that are not finite disqualify what they touch and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import (
    ARM,
    ArmWorld,
    FixedMemory,
    NearTarget,
    arm_planner,
    observe,
    policy_samples,
)

from forethought.interfaces import Prediction
from forethought.planner import (
    forethought,
)


class TestNumbersThatAreNotFinite:
    def poisoned(self, where, bad=np.nan, part="value"):
        """An arm world in which ``where(first position command)`` yields a number that is not finite."""

        class World(ArmWorld):
            def step(self, latent, chunks):
                prediction = super().step(latent, chunks)
                hit = where(chunks)
                after = np.asarray(prediction.latent).copy()
                done = np.array(prediction.done)
                if part == "latent":
                    after[hit] = bad
                if part == "done":
                    done[hit] = bad
                self.hit = hit
                return Prediction(after, prediction.disagreement, done)

        world = World()

        class Reward(NearTarget):
            def score(self, latent, instruction):
                score = super().score(latent, instruction)
                if part == "value":
                    score.value[world.hit] = bad
                return score

        return world, Reward()

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("part", ["value", "latent", "done"])
    @pytest.mark.parametrize("depth", [1, 2])
    def test_a_candidate_with_such_a_future_is_out_and_nobody_else(self, part, bad, depth):
        samples = policy_samples(ARM, 2, 4, 8)
        own = samples.chunks[:, :1, 0, 0]

        def where(chunks):
            return (chunks[:, 0, 0] > 0.0) & ~np.isin(chunks[:, 0, 0], own)

        world, reward = self.poisoned(where, bad, part)
        planner = forethought(
            world, reward, action_spec=ARM, simulations=64, children=32, depth=depth, margin=0.0
        )
        decision = planner.plan(observe(np.zeros((2, 7))), samples, np.array([0, 1]))
        first = decision.candidates.chunks[:, :, 0, 0]
        hit = where(decision.candidates.chunks.reshape(-1, 8, 7)).reshape(2, 32)
        assert hit.any()
        assert np.isneginf(decision.candidates.value[hit]).all()
        assert np.isfinite(decision.candidates.value[~hit]).all()
        chosen = first[np.arange(2), decision.slot]
        assert ((chosen <= 0.0) | (decision.slot == 0)).all()
        assert not decision.fallback.any()
        assert np.isfinite(decision.value).all()

    def test_a_row_whose_policy_chunk_has_no_future_falls_back_and_the_others_do_not_notice(self):
        samples, seeds = policy_samples(ARM, 3, 4, 8), np.array([4, 5, 6])
        bad = samples.chunks[1, 0]
        world, reward = self.poisoned(lambda chunks: (chunks == bad).all(axis=(1, 2)))
        options = {"action_spec": ARM, "simulations": 48, "depth": 2}
        decision = forethought(world, reward, **options).plan(observe(np.zeros((3, 7))), samples, seeds)
        clean = forethought(ArmWorld(), NearTarget(), **options).plan(
            observe(np.zeros((3, 7))), samples, seeds
        )
        assert decision.fallback.tolist() == [False, True, False]
        assert decision.simulations.tolist() == [48, 24, 48]
        assert not decision.overridden[1]
        np.testing.assert_array_equal(decision.chunk[1], bad)
        assert np.isnan(decision.value[1])
        assert decision.reason[1].startswith("fallback")
        np.testing.assert_array_equal(decision.chunk[[0, 2]], clean.chunk[[0, 2]])
        np.testing.assert_array_equal(decision.value[[0, 2]], clean.value[[0, 2]])

    @pytest.mark.parametrize("rows", [[1], [0, 1, 2]])
    def test_a_state_that_is_not_finite_never_reaches_the_models(self, rows):
        class Careful(FixedMemory):
            def nearest(self, latent, instruction, k):
                assert np.isfinite(latent).all()
                return super().nearest(latent, instruction, k)

        states = np.zeros((3, 7))
        states[rows, 2] = np.nan
        samples = policy_samples(ARM, 3, 4, 8)
        planner = forethought(ArmWorld(), NearTarget(), action_spec=ARM, memory=Careful())
        decision = planner.plan(observe(states), samples, np.arange(3))
        assert np.flatnonzero(decision.fallback).tolist() == rows
        np.testing.assert_array_equal(decision.chunk[rows], samples.chunks[rows, 0])
        assert np.isfinite(decision.chunk).all()

    def test_samples_that_are_not_finite_are_no_kernels_and_a_broken_policy_chunk_leaves_as_it_came(self):
        samples = policy_samples(ARM, 2, 4, 8)
        samples.chunks[0, 2] = np.nan
        samples.chunks[1, 0, 3, 1] = np.inf
        decision = arm_planner("forethought").plan(observe(np.zeros((2, 7))), samples, np.arange(2))
        assert decision.fallback.tolist() == [False, True]
        assert np.isfinite(decision.candidates.chunks).all()
        assert np.isfinite(decision.candidates.prior).all()
        np.testing.assert_array_equal(decision.chunk[1], samples.chunks[1, 0])

    def test_exceptions_of_the_world_model_pass_through(self):
        class Broken(ArmWorld):
            def step(self, latent, chunks):
                raise RuntimeError("out of order")

        with pytest.raises(RuntimeError, match="out of order"):
            forethought(Broken(), NearTarget(), action_spec=ARM).plan(
                observe(np.zeros((1, 7))), policy_samples(ARM, 1, 4, 8), np.array([0])
            )
