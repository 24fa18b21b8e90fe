"""With exact models the search never makes the policy worse, and more thought makes it better."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    INNER_RULES,
    ROOT_RULES,
    Budget,
    MaximumBackup,
    ProgressiveWidening,
    TemporalDifferenceMix,
    forethought,
)
from forethought.planner.rules import inner_rule, root_rule

PAIRS = [(root, inner) for root in sorted(ROOT_RULES) for inner in sorted(INNER_RULES)]


def landscape(seed, waves=4):
    """A smooth random value in [0, 1] of a place on the line."""
    rng = np.random.default_rng(seed)
    frequency, phase, weight = (
        rng.uniform(1, 8, waves),
        rng.uniform(0, 6, waves),
        rng.dirichlet(np.ones(waves)),
    )
    return lambda s: (weight * (0.5 + 0.5 * np.sin(frequency * s[:, :1] + phase))).sum(axis=1)


def best_after(value, first, actions, depth):
    """The best value that can be reached when ``first`` is the first of ``depth`` chunks."""
    rests = itertools.product(np.float32(actions).astype(np.float64), repeat=depth - 1)
    return max(float(value(np.array([[np.float64(np.float32(first)) + sum(rest)]]))[0]) for rest in rests)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 8), seed=st.integers(0, 2**31), margin=st.sampled_from([0.0, 0.05]))
def test_at_tiny_budgets_the_chosen_chunk_is_worth_no_less_than_the_policys(count, seed, margin):
    """Depth 1, K = 2..8, exact values: true of every single decision."""
    samples = policy_samples(ARM, 3, 4, 8, seed)
    planner = forethought(ArmWorld(), NearTarget(), action_spec=ARM, simulations=count, margin=margin)
    decision = planner.plan(observe(np.zeros((3, 7))), samples, seed + np.arange(3))

    def worth(chunks):
        moved = chunks.astype(np.float64).mean(axis=1)
        return NearTarget().score(moved, [""] * 3).value

    own, chosen = worth(samples.chunks[:, 0]), worth(decision.chunk)
    assert (chosen >= own).all()
    np.testing.assert_allclose(decision.value, chosen, rtol=1e-6)
    assert (chosen[decision.overridden] > own[decision.overridden] + margin).all()


def test_more_candidates_improve_the_policy_further():
    worth = []
    samples, start = policy_samples(ARM, 40, 4, 8), observe(np.zeros((40, 7)))
    for count in (1, 2, 4, 8, 32, 128):
        planner = forethought(ArmWorld(), NearTarget(), action_spec=ARM, simulations=count, bandwidths=(0.3,))
        worth.append(float(planner.plan(start, samples, np.arange(40)).value.mean()))
    assert worth == sorted(worth)
    assert worth[-1] > worth[1] > worth[0]


@pytest.mark.parametrize(("root", "inner"), PAIRS)
@pytest.mark.parametrize("count", [2, 5, 8])
def test_two_chunks_ahead_the_choice_is_better_on_average_whatever_the_rules(count, root, inner):
    """K root candidates and twice as many simulations: far fewer than the tree has leaves."""
    gain = []
    for seed in range(25):
        value = landscape(seed)
        rng = np.random.default_rng(seed)
        actions = [0.0, *rng.uniform(-1, 1, count - 1)]
        search = line_search(
            FunctionWorld(add),
            FunctionReward(value),
            actions,
            depth=2,
            budget=Budget(simulations=2 * count),
            root_rule=root_rule(root, children=count, simulations=2 * count),
            inner_rule=inner_rule(inner),
        )
        decision = search.plan(observe([0.0]), line_samples(1), np.array([seed]))
        chosen = float(decision.chunk[0, 0, 0])
        gain.append(best_after(value, chosen, actions, 2) - best_after(value, 0.0, actions, 2))
    assert np.mean(gain) > 0.0


@pytest.mark.parametrize(("root", "inner"), PAIRS)
def test_values_converge_to_brute_force_and_regret_falls_whatever_the_rules(root, inner):
    depth, actions = 3, [0.0, -0.8, 0.45, 0.9]
    regret, error = [], []
    for simulations in (6, 20, 84):
        lost, off = [], []
        for seed in range(8):
            value = landscape(seed)
            search = line_search(
                FunctionWorld(add),
                FunctionReward(value),
                actions,
                depth=depth,
                wave=2,
                budget=Budget(simulations=simulations),
                root_rule=root_rule(root, children=4, simulations=simulations),
                inner_rule=inner_rule(inner),
                widening=ProgressiveWidening(factor=4),
            )
            decision = search.plan(observe([0.0]), line_samples(1), np.array([seed]))
            exact = np.array([best_after(value, action, actions, depth) for action in actions])
            lost.append(exact.max() - exact[decision.slot[0]])
            off.append(np.abs(decision.candidates.value[0] - exact).mean())
        regret.append(np.mean(lost))
        error.append(np.mean(off))
    assert error[0] > error[1] > error[2]
    assert error[2] == pytest.approx(0.0, abs=1e-6)
    assert regret[0] > regret[2]
    assert regret[2] == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    good=st.floats(0.7, 1.0),
    bait=st.floats(0.45, 0.6),
    trap=st.floats(0.0, 0.3),
    wave=st.integers(1, 8),
    rules=st.sampled_from(PAIRS),
    backup=st.sampled_from([MaximumBackup(), TemporalDifferenceMix(0.7)]),
    order=st.permutations([1.0, -1.0]),
)
def test_a_trap_that_depth_one_walks_into_is_seen_at_depth_two(good, bait, trap, wave, rules, backup, order):
    """Right looks better after one chunk and leads nowhere; left looks worse and leads to success."""

    def transition(state, chunks):
        move = np.sign(chunks[:, 0, 0])
        table = {(0, 1): 1, (0, -1): 2, (0, 0): 3, (2, 1): 4}
        places = np.round(state[:, 0]).astype(int)
        return np.array([[float(table.get((int(p), int(m)), 5))] for p, m in zip(places, move)])

    worth = {0: 0.3, 1: bait, 2: 0.4, 3: 0.3, 4: good, 5: trap}
    reward = FunctionReward(lambda s: np.array([worth[int(place)] for place in s[:, 0]]))
    root, inner = rules
    chosen = []
    for depth in (1, 2):
        search = line_search(
            FunctionWorld(transition),
            reward,
            [0.0, *order],
            depth=depth,
            wave=wave,
            backup=backup,
            root_rule=root_rule(root, children=3, simulations=12),
            inner_rule=inner_rule(inner),
        )
        chosen.append(float(search.plan(observe([0.0]), line_samples(1), np.array([0])).chunk[0, 0, 0]))
    assert chosen == [1.0, -1.0]
