"""Wrapped policies and planners: our own protocol, the presets, and where models come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from wrap_fakes import PLANNED, Actor, foreign

import forethought
from forethought.interfaces import ActionSpec, ForethoughtError, Observation
from forethought.wrappers.models import Models


class TestProtocolPolicies:
    """Objects that follow our Policy protocol, as the reference policy does."""

    def test_sample_0_and_the_acted_chunk_are_planned(self, wrap, policy, observe):
        wrapped = wrap(policy)
        samples = wrapped.propose(observe(2), 3, np.array([1, 2]))
        assert isinstance(wrapped, type(policy))
        assert samples.chunks.shape == (2, 3, 4, 7)
        assert np.allclose(samples.chunks[:, 0, :, 0], [PLANNED] * 2)
        assert np.allclose(samples.chunks[:, 1:, :, 0], 0.25)
        assert np.allclose(wrapped.act(observe())[0, :, 0], PLANNED)
        assert np.allclose(policy.act(observe()), policy.propose(observe(), 1, np.zeros(1)).chunks[:, 0])

    def test_the_seeds_of_the_caller_reach_the_planner(self, wrap, policy, observe):
        wrapped = wrap(policy)
        wrapped.propose(observe(2), 1, np.array([7, 8]))
        assert wrapped.forethought.controller.planner.calls[0].tolist() == [7, 8]

    def test_models_of_another_chunk_length_are_refused(self, wrap, policy):
        with pytest.raises(ForethoughtError, match="chunk length 4.*8"):
            wrap(policy, horizon=8)

    def test_models_of_another_action_size_are_refused(self, wrap, policy):
        with pytest.raises(ForethoughtError, match="action size 7.*2"):
            wrap(policy, action_spec=ActionSpec(np.zeros(2), np.ones(2)))


class TestWithTheRealPlanner:
    """The presets, over a model of a point in which further is better."""

    @pytest.fixture
    def wrapped(self, point_models):
        return forethought.wrap(Actor(), models=point_models, simulations=16, margin=0.0)

    def test_the_planned_chunk_goes_further_than_the_policys(self, wrapped):
        assert wrapped.act(foreign())[:, 0].sum() > 4 * 0.25 + 0.05
        assert wrapped.forethought.last.overridden.all()
        assert not wrapped.forethought.counters

    def test_the_same_seed_gives_the_same_actions_and_another_seed_others(self, point_models):
        def run(seed):
            wrapped = forethought.wrap(Actor(), models=point_models, simulations=8, margin=0.0, seed=seed)
            return np.stack([wrapped.act(foreign()) for _ in range(3)])

        assert np.array_equal(run(1), run(1))
        assert not np.array_equal(run(1), run(2))

    def test_best_of_n_asks_for_as_many_samples_as_it_compares(self, point_models, policy, observe):
        wrapped = forethought.wrap(policy, models=point_models, planner="best_of_n", simulations=5)
        wrapped.propose(observe(), 1, np.array([1]))
        assert wrapped.asked == [5]

    def test_every_decision_of_every_episode_draws_anew(self, wrap):
        wrapped = wrap(Actor())
        for _ in range(2):
            wrapped.act(foreign())
            wrapped.act(foreign())
            wrapped.reset()
        seeds = [int(call[0]) for call in wrapped.forethought.controller.planner.calls]
        assert len(set(seeds)) == 4

    def test_a_margin_that_nothing_reaches_leaves_the_policy_alone(self, point_models):
        wrapped = forethought.wrap(Actor(), models=point_models, simulations=8, margin=2.0)
        assert np.array_equal(wrapped.act(foreign()), Actor().act(foreign()))

    def test_an_unknown_option_names_those_that_exist(self, point_models):
        with pytest.raises(ForethoughtError, match="simulations"):
            forethought.wrap(Actor(), models=point_models, simulation=8)

    def test_an_unknown_planner_names_those_that_exist(self, point_models):
        with pytest.raises(ForethoughtError, match="vla_reasoner"):
            forethought.wrap(Actor(), models=point_models, planner="oracle")

    def test_the_camera_is_found_under_another_projects_name(self, wrapped):
        observation = foreign()
        observation["observation/wrist"] = observation.pop("observation/image")
        with pytest.raises(ForethoughtError, match="agentview_rgb.*observation\\.wrist"):
            wrapped.act(observation)


def test_models_may_be_a_folder_that_does_not_exist(wrap):
    with pytest.raises(ForethoughtError, match="no such folder"):
        forethought.wrap(Actor(), models="runs/never")


def test_models_of_another_type_are_refused():
    with pytest.raises(ForethoughtError, match="dict"):
        forethought.wrap(Actor(), models={"world_model": 1})


def test_the_models_tell_horizon_and_action_spec(point_models: Models):
    wrapped = forethought.wrap(Actor(), models=point_models, simulations=4)
    assert wrapped.forethought.controller.policy.horizon == 4


def test_the_reference_policy_is_wrapped_like_any_other(wrap, spec):
    from forethought.wrappers.policies.reference import FlowPolicyNetwork, ReferencePolicy

    torch.manual_seed(0)
    policy = ReferencePolicy(FlowPolicyNetwork(("agentview_rgb",), 64, 32, 4, 7, 16), spec)
    image = np.zeros((1, 64, 64, 3), np.uint8)
    observation = Observation({"agentview_rgb": image}, np.zeros((1, 8), np.float32), ("push",))
    before = policy.propose(observation, 3, np.array([5])).chunks
    wrapped = wrap(policy)
    after = wrapped.propose(observation, 3, np.array([5])).chunks
    assert isinstance(wrapped, ReferencePolicy)
    assert np.allclose(after[0, 0, :, 0], PLANNED)
    assert np.array_equal(after[:, 1:], before[:, 1:])
    assert np.allclose(wrapped.act(observation)[0, :, 0], PLANNED)
    assert np.array_equal(policy.propose(observation, 3, np.array([5])).chunks, before)
