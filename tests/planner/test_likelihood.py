"""A policy's likelihoods in the prior."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import ARM, ArmWorld, NearTarget, arm_planner, observe, policy_samples

from forethought.interfaces import ActionSamples, ForethoughtError
from forethought.planner import (
    Budget,
    Context,
    KernelProposals,
    PolicyKernels,
    PolicySamples,
    Puct,
    TreeSearch,
)
from forethought.planner.likelihood import resampled, sample_weights

CHUNKS = policy_samples(ARM, 2, 4, 8).chunks


def context(log_probability, chunks=CHUNKS):
    rows = len(chunks)
    weights = sample_weights(chunks, log_probability)
    return Context(
        chunks,
        np.zeros((rows, 7)),
        ("task",) * rows,
        np.arange(rows),
        np.zeros(rows, np.int64),
        weights=weights,
    )


def test_weights_are_the_probabilities_of_the_samples_normalised():
    logs = np.log([[0.4, 0.2, 0.1, 0.1], [0.01, 0.03, 0.02, 0.04]])
    np.testing.assert_allclose(
        sample_weights(CHUNKS, logs), [[0.5, 0.25, 0.125, 0.125], [0.1, 0.3, 0.2, 0.4]], rtol=1e-12
    )
    assert sample_weights(CHUNKS, None) is None


def test_a_chunk_that_was_drawn_twice_is_weighed_once():
    chunks = CHUNKS[:, [0, 1, 1, 2]]
    weights = sample_weights(chunks, np.log([[0.2, 0.4, 0.4, 0.2]] * 2))
    np.testing.assert_allclose(weights, [[0.25, 0.25, 0.25, 0.25]] * 2)


def test_numbers_that_are_none_weigh_nothing_and_rows_of_them_weigh_all_alike():
    logs = np.array([[0.0, np.nan, -np.inf, 0.0], [np.nan, np.nan, np.inf, -np.inf]])
    np.testing.assert_allclose(sample_weights(CHUNKS, logs), [[0.5, 0.0, 0.0, 0.5], [0.25] * 4])


def test_resampling_takes_each_sample_as_often_as_it_weighs_to_within_one():
    weights = np.random.default_rng(0).dirichlet(np.ones(16), size=200)
    index = resampled(weights)
    counts = (index[:, :, None] == np.arange(16)).sum(axis=1)
    assert (np.abs(counts - 16 * weights) < 1.0).all()
    np.testing.assert_array_equal(resampled(np.full((1, 5), 0.2)), [np.arange(5)])


def test_kernels_stand_where_the_policy_is_likely():
    sure = np.array([[-100.0, 0.0, -100.0, -100.0], [0.0, 0.0, -100.0, -100.0]])
    centres = PolicyKernels().centres(context(sure))
    np.testing.assert_array_equal(centres[0], np.repeat(CHUNKS[0, 1:2], 4, axis=0))
    np.testing.assert_array_equal(centres[1], CHUNKS[1, [0, 0, 1, 1]])
    np.testing.assert_array_equal(PolicyKernels().centres(context(None)), CHUNKS)


def test_the_density_follows_the_likelihood():
    logs = np.log([[0.625, 0.125, 0.125, 0.125]] * 2)
    eight = np.repeat(CHUNKS, 2, axis=1)  # enough samples that eighths can be told
    eight_logs = np.repeat(logs, 2, axis=1)
    narrow = KernelProposals(ARM, (PolicyKernels(1.0, (0.01,)),), flip_probability=0.0)
    density = narrow.log_density(context(eight_logs, eight), CHUNKS)
    np.testing.assert_allclose(density[0, 0] - density[0, 1], np.log(5.0), atol=1e-6)


def test_the_prior_of_samples_is_their_likelihood():
    logs = np.log([[0.4, 0.2, 0.3, 0.1]] * 2)
    offered = PolicySamples(ARM).propose(context(logs), 3, keep_policy=True)
    np.testing.assert_allclose(offered.prior[0], np.array([4, 2, 3]) / 9)
    drawn = PolicySamples(ARM).draw(context(logs), np.array([3, 0]))
    np.testing.assert_allclose(np.exp(drawn.log_prior), [0.1, 0.4])


def test_a_tree_visits_what_the_policy_holds_likely():
    def flat(state):
        return np.full(len(state), 0.5)

    class Same(NearTarget):
        def score(self, latent, instruction):
            score = super().score(latent, instruction)
            return type(score)(flat(latent), np.zeros(len(latent)))

    search = TreeSearch(
        ArmWorld(),
        Same(),
        PolicySamples(ARM),
        ARM,
        Budget(simulations=60),
        children=4,
        inner_children=4,
        depth=3,
        root_rule=Puct(),
    )
    logs = np.log([[0.05, 0.05, 0.85, 0.05]] * 2)
    decision = search.plan(observe(np.zeros((2, 7))), ActionSamples(CHUNKS, logs), np.arange(2))
    assert decision.candidates is not None
    np.testing.assert_allclose(decision.candidates.prior[0], [0.05, 0.05, 0.85, 0.05], rtol=1e-6)
    assert (decision.candidates.visits.argmax(axis=1) == 2).all()


@pytest.mark.parametrize("name", ["forethought", "cem", "icem", "mppi", "random_shooting"])
def test_every_planner_takes_likelihoods_and_equal_ones_change_nothing(name):
    planner = arm_planner(name, simulations=24)
    plain = planner.plan(observe(np.zeros((2, 7))), ActionSamples(CHUNKS), np.arange(2))
    equal = planner.plan(observe(np.zeros((2, 7))), ActionSamples(CHUNKS, np.zeros((2, 4))), np.arange(2))
    np.testing.assert_array_equal(plain.chunk, equal.chunk)
    sure = np.array([[-50.0, 0.0, -50.0, -50.0]] * 2)
    other = planner.plan(observe(np.zeros((2, 7))), ActionSamples(CHUNKS, sure), np.arange(2))
    assert other.candidates is not None
    assert plain.candidates is not None
    assert not np.array_equal(other.candidates.chunks, plain.candidates.chunks)


def test_likelihoods_of_another_shape_are_refused():
    with pytest.raises(ForethoughtError, match=r"log_probability must be \[B, N\]"):
        arm_planner("forethought").plan(
            observe(np.zeros((2, 7))), ActionSamples(CHUNKS, np.zeros((2, 3))), np.arange(2)
        )
