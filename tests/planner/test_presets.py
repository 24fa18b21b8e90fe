"""The planners by name."""

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

from forethought.interfaces import ActionSamples, ForethoughtError, Planner
from forethought.planner import (
    PRESETS,
    best_of_n,
    forethought,
    vla_reasoner,
)


class TestPresets:
    @pytest.mark.parametrize("name", sorted(PRESETS))
    def test_every_preset_is_a_planner_and_finds_a_better_chunk(self, name):
        planner = arm_planner(name, simulations=64)
        assert isinstance(planner, Planner)
        decision = planner.plan(observe(np.zeros((4, 7))), policy_samples(ARM, 4, 64, 8), np.arange(4))
        assert (decision.value >= decision.policy_value).all()
        assert decision.overridden.any()
        assert set(decision.milliseconds) == {"encode", "search"}

    def test_half_of_the_proposals_are_retrieved_when_there_is_a_memory(self):
        decision = arm_planner("forethought").plan(
            observe(np.zeros((1, 7))), policy_samples(ARM, 1, 6, 8), np.array([0])
        )
        names = [decision.candidates.source_names[i] for i in decision.candidates.source[0]]
        assert names.count("policy") == 1
        assert names.count("policy_kernels") == 15
        assert names.count("averaged") == 16

    @pytest.mark.parametrize("depth", [1, 2])
    def test_proposals_whatever_the_state_leave_the_policy_its_own_chunk(self, depth):
        planner = arm_planner("forethought", offline_share=1.0, offline_kernels=10, depth=depth)
        samples = policy_samples(ARM, 1, 6, 8)
        decision = planner.plan(observe(np.zeros((1, 7))), samples, np.array([0]))
        names = [decision.candidates.source_names[i] for i in decision.candidates.source[0]]
        assert names == ["policy"] + ["dataset"] * (len(names) - 1)
        np.testing.assert_array_equal(decision.candidates.chunks[0, 0], samples.chunks[0, 0])
        assert decision.simulations[0] == 32

    def test_the_memory_is_asked_again_at_imagined_states(self):
        memory = FixedMemory()
        planner = forethought(
            ArmWorld(), NearTarget(), action_spec=ARM, memory=memory, simulations=40, depth=2
        )
        planner.plan(observe(np.zeros((1, 7))), policy_samples(ARM, 1, 6, 8), np.array([0]))
        assert memory.asked[0] == 1
        assert len(memory.asked) > 1

    def test_more_simulations_mean_more_candidates_at_depth_one(self):
        for simulations in (8, 32, 128):
            decision = arm_planner("forethought", simulations=simulations).plan(
                observe(np.zeros((1, 7))), policy_samples(ARM, 1, 6, 8), np.array([0])
            )
            assert decision.candidates.chunks.shape[1] == decision.simulations[0] == simulations

    def test_the_paper_needs_a_memory(self):
        with pytest.raises(ForethoughtError, match="memory=None"):
            vla_reasoner(ArmWorld(), NearTarget(), action_spec=ARM)

    def test_the_paper_executes_a_blend_of_policy_and_search(self):
        samples = policy_samples(ARM, 1, 6, 8)
        decision = arm_planner("vla_reasoner").plan(observe(np.zeros((1, 7))), samples, np.array([0]))
        assert decision.overridden[0]
        chosen = decision.candidates.chunks[0, decision.slot[0]]
        expected = 0.6 * samples.chunks[0, 0] + 0.4 * chosen
        np.testing.assert_allclose(decision.chunk[0, :, :3], expected[:, :3], atol=1e-6)
        np.testing.assert_array_equal(decision.chunk[0, :, 6], chosen[:, 6])

    def test_best_of_n_compares_the_samples_themselves(self):
        samples = policy_samples(ARM, 2, 5, 8)
        decision = best_of_n(ArmWorld(), NearTarget(), action_spec=ARM, n=4, margin=0.0).plan(
            observe(np.zeros((2, 7))), samples, np.arange(2)
        )
        np.testing.assert_array_equal(decision.candidates.chunks, samples.chunks[:, :4])
        reached = samples.chunks[:, :4].astype(np.float64).mean(axis=2)[..., :3]
        best = np.exp(-((reached - 0.4) ** 2).sum(-1)).argmax(axis=1)
        np.testing.assert_array_equal(decision.slot, best)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"simulations": 0}, "simulations"),
            ({"backup": "median"}, "td_mix"),
            ({"memory_share": 1.0}, "memory_share"),
            ({"offline_share": 2.0}, "offline_share"),
            ({"bandwidths": ()}, "Bandwidths"),
            ({"margin": -1.0}, "margin"),
            ({"depth": 0}, "depth"),
            ({"shared_noise": 1.0}, "shared"),
            ({"discount": 0.0}, "discount"),
        ],
    )
    def test_bad_options_are_refused_with_their_name(self, options, words):
        with pytest.raises(ForethoughtError, match=words):
            arm_planner("forethought", **options).plan(
                observe(np.zeros((1, 7))), policy_samples(ARM, 1, 2, 8), np.array([0])
            )

    def test_chunks_of_another_action_size_are_refused(self):
        with pytest.raises(ForethoughtError, match=r"A=7"):
            arm_planner("forethought").plan(
                observe(np.zeros((1, 7))), ActionSamples(np.zeros((1, 2, 8, 6), np.float32)), np.array([0])
            )

    def test_a_memory_of_another_horizon_is_refused(self):
        with pytest.raises(ForethoughtError, match="Rebuild the memory"):
            arm_planner("forethought").plan(
                observe(np.zeros((1, 7))), policy_samples(ARM, 1, 2, 5), np.array([0])
            )
