"""Gumbel's rules: against a plain sequential halving, and the improvement that they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fakes import ARM, arm_planner, observe, policy_samples

from forethought.interfaces import ForethoughtError
from forethought.planner import INNER_RULES, ROOT_RULES, ImprovedPolicy, SequentialHalving, Tree
from forethought.planner.noise import gumbels, stream_keys
from forethought.planner.rules import inner_rule, root_rule
from forethought.planner.selection import Siblings


def siblings(value, visits, prior, seed=3) -> Siblings:
    tree = Tree(1, 2, 1, ARM.size)
    nodes = tree.add_children(np.array([0]), np.array([0]), len(value))[0]
    tree.own[0, 0] = 0.5
    tree.value[0, nodes], tree.visits[0, nodes], tree.prior[0, nodes] = value, visits, prior
    return Siblings(tree, np.array([0]), np.array([0]), np.array([seed]))


def visited(rule, value, prior, simulations, seed=3):
    """Visits after all children were looked at once and the rule chose the rest."""
    visits = np.ones(len(value), int)
    for _ in range(simulations - len(value)):
        visits[rule(siblings(value, visits, prior, seed))[0].argmax()] += 1
    return visits


def sequential_halving(score, simulations):
    """The algorithm as it is told: visit all, keep the better half, visit those, and so on."""
    count = len(score)
    visits, kept = np.zeros(count, int), np.argsort(-score, kind="stable")
    phases = int(np.ceil(np.log2(count)))
    while visits.sum() < simulations:
        for _ in range(max(1, simulations // (phases * kept.size))):
            visits[kept[: simulations - visits.sum()]] += 1
        kept = kept[: max(2, kept.size // 2)]
    return visits


problem = {
    "count": st.sampled_from([2, 4, 8, 16, 32]),
    "rounds": st.integers(1, 9),
    "seed": st.integers(0, 2**31),
}


@settings(max_examples=60, deadline=None)
@given(**problem, scale=st.sampled_from([0.0, 1.0]))
def test_the_schedule_of_visits_is_sequential_halving(count, rounds, seed, scale):
    rng = np.random.default_rng(seed)
    value, prior = rng.uniform(size=count), rng.dirichlet(np.ones(count))
    noise = scale * gumbels(stream_keys(np.array([seed]), -1), count)[0]
    simulations = count * rounds
    # σ's growth with the visits, which may let two children change places on the way, is made negligible.
    rule = SequentialHalving(simulations, scale, visit_offset=1e12, value_scale=5e-12)
    found = visited(rule, value, prior, simulations, seed)
    scaled = (value - value.min()) / (value.max() - value.min())
    score = noise + np.log(prior) + 5.0 * scaled
    assert found.tolist() == sequential_halving(score, simulations).tolist()


@settings(max_examples=12, deadline=None)
@given(count=st.integers(2, 12), seed=st.integers(0, 2**31))
def test_gumbel_improves_on_the_prior_in_expectation(count, seed):
    """Exact values: the child of the highest score is worth no less than a draw from the prior."""
    rng = np.random.default_rng(seed)
    value, prior = rng.uniform(size=count), rng.dirichlet(np.ones(count))
    rule, ones = SequentialHalving(2 * count, gumbel_scale=1.0), np.ones(count)
    chosen = [rule(siblings(value, ones, prior, s))[0].argmax() for s in range(100)]
    error = value.std() / np.sqrt(100)
    assert value[chosen].mean() >= prior @ value - 3 * error


def test_noise_alone_draws_from_the_prior():
    """With equal values the highest score is a draw from the prior: Gumbel's trick."""
    prior = np.array([0.6, 0.3, 0.1])
    rule = SequentialHalving(6, gumbel_scale=1.0)
    chosen = [rule(siblings([0.5] * 3, [1] * 3, prior, s))[0].argmax() for s in range(1500)]
    np.testing.assert_allclose(np.bincount(chosen, minlength=3) / 1500, prior, atol=0.04)


def test_inner_visits_follow_the_improved_policy():
    value, prior = np.array([0.1, 0.9, 0.5, 0.9]), np.array([0.4, 0.3, 0.2, 0.1])
    rule = ImprovedPolicy(visit_offset=2.0, value_scale=1e-9)  # σ must not move with the visits here
    visits = visited(rule, value, prior, 2000)
    np.testing.assert_allclose(visits / 2000, prior, atol=2e-3)
    sharp = visited(ImprovedPolicy(), value, prior, 400)
    assert sharp[1] > sharp[3] > sharp[0]
    assert sharp[1] > 200


def test_the_inner_rule_looks_at_an_unseen_child_by_its_completed_value():
    score = ImprovedPolicy()(siblings([0.2, np.nan, 0.1], [3, 0, 3], [0.1, 0.8, 0.1]))[0]
    assert score.argmax() == 1
    assert np.isfinite(score).all()


@pytest.mark.parametrize("root", sorted(ROOT_RULES))
@pytest.mark.parametrize("inner", sorted(INNER_RULES))
def test_every_pair_of_rules_searches_and_keeps_the_policy(root, inner):
    samples = policy_samples(ARM, 2, 6, 8)
    planner = arm_planner("forethought", simulations=64, depth=3, root=root, inner=inner)
    decision = planner.plan(observe(np.zeros((2, 7))), samples, np.array([1, 2]))
    assert decision.simulations.tolist() == [64, 64]
    np.testing.assert_array_equal(decision.candidates.chunks[:, 0], samples.chunks[:, 0])
    assert np.isfinite(decision.candidates.value[:, 0]).all()
    assert (decision.value >= decision.policy_value).all()


def test_the_rules_do_choose_differently():
    def values(**options):
        planner = arm_planner("forethought", simulations=120, depth=4, **options)
        rows = 6
        decision = planner.plan(
            observe(np.zeros((rows, 7))), policy_samples(ARM, rows, 6, 8), np.arange(rows)
        )
        return tuple(decision.candidates.value.ravel())

    assert len({values(root=root, children=16) for root in ROOT_RULES}) == 3
    assert len({values(inner=inner, children=2) for inner in INNER_RULES}) == 2


def test_unknown_rules_are_refused_with_those_there_are():
    with pytest.raises(ForethoughtError, match="gumbel, puct, sequential_halving"):
        root_rule("thompson", children=8)
    with pytest.raises(ForethoughtError, match="gumbel, puct"):
        inner_rule("thompson")
    with pytest.raises(ForethoughtError, match="thompson"):
        arm_planner("forethought", root="thompson")
