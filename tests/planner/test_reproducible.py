"""Decisions depend on the row's seed, state and task, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import (
    ARM,
    FunctionReward,
    FunctionWorld,
    add,
    arm_planner,
    line_samples,
    line_search,
    observe,
    policy_samples,
)

from forethought.interfaces import ActionSamples

PLANNERS = [
    ("forethought", {}),
    ("forethought", {"simulations": 48, "depth": 2}),
    ("forethought", {"simulations": 60, "depth": 3, "wave": 5, "kernel_regression": 0.2}),
    ("vla_reasoner", {"wave": 3}),
    ("best_of_n", {}),
]


@pytest.mark.parametrize(("name", "options"), PLANNERS)
def test_the_same_seed_gives_the_same_decision_and_another_seed_other_candidates(name, options):
    samples, start = policy_samples(ARM, 1, 6, 8), observe(np.zeros((1, 7)))
    first, again, other = (
        arm_planner(name, **options).plan(start, samples, np.array([seed])) for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first.chunk, again.chunk)
    np.testing.assert_array_equal(first.candidates.value, again.candidates.value)
    if name != "best_of_n":
        assert not np.array_equal(first.candidates.chunks[:, 1:], other.candidates.chunks[:, 1:])


@pytest.mark.parametrize(("name", "options"), PLANNERS)
def test_a_row_does_not_depend_on_its_neighbours(name, options):
    rng = np.random.default_rng(3)
    samples, states, seeds = policy_samples(ARM, 5, 6, 8), rng.uniform(-1, 1, (5, 7)), np.arange(50, 55)
    together = arm_planner(name, **options).plan(observe(states), samples, seeds)
    for rows in ([3], [4, 0, 3]):
        apart = arm_planner(name, **options).plan(
            observe(states[rows]), ActionSamples(samples.chunks[rows]), seeds[rows]
        )
        for whole, part in (
            (together.chunk, apart.chunk),
            (together.candidates.chunks, apart.candidates.chunks),
            (together.candidates.value, apart.candidates.value),
            (together.candidates.visits, apart.candidates.visits),
            (together.candidates.prior, apart.candidates.prior),
            (together.simulations, apart.simulations),
        ):
            np.testing.assert_array_equal(whole[rows], part)


def test_each_row_is_scored_with_its_own_instruction():
    reward = FunctionReward(lambda s: s[:, 0])
    search = line_search(FunctionWorld(add), reward, [0.0, 0.5], depth=2, wave=1)
    search.plan(observe([0.0, 1.0]), line_samples(2), np.array([0, 1]))
    counts = {word: reward.instructions.count(word) for word in set(reward.instructions)}
    assert counts == {"task 0": 6, "task 1": 6}
