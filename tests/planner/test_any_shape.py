"""Any shape, budget and number gives a decision."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fakes import (
    ARM,
    FixedMemory,
    FunctionWorld,
    NearTarget,
    arm_planner,
    observe,
    policy_samples,
)

from forethought.interfaces import ActionSamples, Observation, Score
from forethought.planner import (
    BACKUPS,
    forethought,
)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 4),
    n=st.integers(1, 5),
    horizon=st.integers(1, 6),
    simulations=st.integers(1, 40),
    children=st.integers(1, 20),
    inner=st.integers(1, 5),
    depth=st.integers(1, 4),
    wave=st.integers(1, 9),
    backup=st.sampled_from(sorted(BACKUPS)),
    level=st.sampled_from([0.0, 0.5]),
    broken=st.integers(0, 3),
    seed=st.integers(0, 2**31),
)
def test_any_shape_and_budget_gives_a_decision(
    batch, n, horizon, simulations, children, inner, depth, wave, backup, level, broken, seed
):
    """Shapes, budgets, ties (level 0) and numbers that are not finite."""

    class Reward(NearTarget):
        def score(self, latent, instruction):
            score = super().score(latent, instruction)
            value = level * score.value
            digit = (np.abs(np.asarray(latent)[:, 0]) * 1e4).astype(int) % 4
            bad = np.array([np.nan, np.inf, -np.inf, np.nan])[digit]
            return Score(np.where(digit < broken, bad, value), score.spread)

    world = FunctionWorld(lambda s, c: s + c.astype(np.float64).mean(axis=1))
    planner = forethought(
        world,
        Reward(),
        action_spec=ARM,
        memory=FixedMemory(horizon),
        simulations=simulations,
        children=children,
        inner_children=inner,
        depth=depth,
        wave=wave,
        backup=backup,
    )
    samples = policy_samples(ARM, batch, n, horizon, seed)
    decision = planner.plan(observe(np.zeros((batch, 7))), samples, seed + np.arange(batch))
    most = min(children, simulations)
    assert decision.chunk.shape == (batch, horizon, 7)
    assert np.isfinite(decision.chunk).all()
    assert (decision.chunk >= ARM.low).all()
    assert (decision.chunk <= ARM.high).all()
    assert set(np.unique(decision.chunk[..., 6])) <= {-1.0, 1.0}
    assert decision.candidates.chunks.shape == (batch, most, horizon, 7)
    np.testing.assert_allclose(decision.candidates.prior.sum(axis=1), 1.0, rtol=1e-5)
    assert (decision.simulations <= simulations).all()
    assert (decision.simulations >= most).all()
    assert len(world.asked) == decision.simulations.sum()
    np.testing.assert_array_equal(decision.candidates.chunks[:, 0], samples.chunks[:, 0])
    kept = ~decision.overridden
    np.testing.assert_array_equal(decision.chunk[kept], samples.chunks[kept, 0])
    assert (decision.value[~decision.fallback] >= decision.policy_value[~decision.fallback]).all()
    assert not (decision.fallback & decision.overridden).any()
    if not broken:
        assert not decision.fallback.any()
        if level == 0.0:
            assert not decision.overridden.any()


def test_observations_are_not_touched():
    start = observe(np.zeros((1, 7)))
    samples = policy_samples(ARM, 1, 3, 8)
    before = samples.chunks.copy()
    arm_planner("vla_reasoner").plan(start, samples, np.array([0]))
    np.testing.assert_array_equal(samples.chunks, before)
    assert isinstance(start, Observation)


def test_how_the_policys_chunks_lie_in_memory_changes_nothing():
    """Transposed, of another type, or not to be written to; and they stay as they were."""
    chunks = policy_samples(ARM, 2, 5, 8).chunks
    turned = np.ascontiguousarray(chunks.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    locked = chunks.copy()
    locked.setflags(write=False)
    planner = arm_planner("forethought", simulations=40, depth=2)
    expected = planner.plan(observe(np.zeros((2, 7))), ActionSamples(chunks.copy()), np.arange(2))
    for given_ in (turned, locked, chunks.astype(np.float64)):
        found = planner.plan(observe(np.zeros((2, 7))), ActionSamples(given_), np.arange(2))
        np.testing.assert_array_equal(found.chunk, expected.chunk)
        np.testing.assert_array_equal(found.value, expected.value)
        np.testing.assert_array_equal(given_, chunks)
