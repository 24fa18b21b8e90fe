"""The sampling planners: random shooting, CEM, iCEM and MPPI, under the protocol of the tree search."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import (
    ARM,
    LINE,
    ArmWorld,
    EveryAction,
    FixedMemory,
    FunctionReward,
    FunctionWorld,
    NearTarget,
    action_set,
    observe,
    policy_samples,
)
from sampling_fakes import SAMPLERS, plan, sampler, still

from forethought.interfaces import ActionSamples, ActionSpec
from forethought.planner import (
    PRESETS,
    Budget,
    ColouredNoise,
    CrossEntropy,
    DecisionRule,
    MaximumBackup,
    PathIntegral,
    Scoring,
    SequenceSearch,
    TreeSearch,
    cem,
    icem,
)
from forethought.planner.noise import normals, stream_keys

REFINEMENTS = [
    CrossEntropy(),
    CrossEntropy(0.2, keep=0.5, noise=ColouredNoise(), name="icem"),
    PathIntegral(),
]
PLAIN = Scoring(pessimism=0.0, discount=1.0)


class TestProtocol:
    @pytest.mark.parametrize("name", SAMPLERS)
    @pytest.mark.parametrize(
        ("simulations", "depth"), [(1, 1), (2, 1), (7, 1), (32, 1), (1, 3), (5, 2), (33, 3)]
    )
    def test_the_policys_chunk_is_slot_zero_and_evaluated_and_the_budget_is_kept(
        self, name, simulations, depth
    ):
        samples = policy_samples(ARM, 2, 3, 8)
        decision = plan(sampler(name, simulations=simulations, depth=depth), 2, samples)
        np.testing.assert_array_equal(decision.candidates.chunks[:, 0], samples.chunks[:, 0])
        assert np.isfinite(decision.candidates.value[:, 0]).all()
        assert (decision.candidates.source[:, 0] == 0).all()
        assert ((decision.candidates.source == 0).sum(axis=1) == 1).all()
        assert (decision.simulations <= simulations).all()
        assert (decision.simulations > simulations - depth).all()
        np.testing.assert_array_equal(decision.candidates.visits.sum(axis=1), decision.simulations)
        np.testing.assert_allclose(decision.candidates.prior.sum(axis=1), 1.0, rtol=1e-5)

    @pytest.mark.parametrize("name", SAMPLERS)
    @pytest.mark.parametrize("depth", [1, 3])
    def test_what_is_counted_is_what_the_world_was_asked_and_nothing_is_asked_twice(self, name, depth):
        world = FunctionWorld(lambda s, c: 0.5 * s + c.astype(np.float64).mean(axis=1))
        reward = FunctionReward(lambda s: np.exp(-((s[:, :3] - 0.4) ** 2).sum(axis=1)))
        planner = PRESETS[name](world, reward, action_spec=ARM, simulations=60, depth=depth)
        decision = plan(planner, 2)
        assert decision.simulations.sum() == sum(world.calls) == len(world.asked) == len(set(world.asked))

    @pytest.mark.parametrize("name", SAMPLERS)
    @pytest.mark.parametrize("options", [{}, {"depth": 2, "simulations": 50, "memory_share": 0.5}])
    def test_a_row_does_not_depend_on_its_neighbours(self, name, options):
        states = np.random.default_rng(3).uniform(-1, 1, (5, 7))
        samples, seeds = policy_samples(ARM, 5, 6, 8), np.arange(50, 55)
        together = sampler(name, flip_probability=0.1, **options).plan(observe(states), samples, seeds)
        for rows in ([3], [4, 0, 3]):
            apart = sampler(name, flip_probability=0.1, **options).plan(
                observe(states[rows]), ActionSamples(samples.chunks[rows]), seeds[rows]
            )
            for field in ("chunks", "value", "visits", "source"):
                whole, part = getattr(together.candidates, field), getattr(apart.candidates, field)
                np.testing.assert_array_equal(whole[rows], part)
            np.testing.assert_array_equal(together.chunk[rows], apart.chunk)
            np.testing.assert_array_equal(together.simulations[rows], apart.simulations)

    @pytest.mark.parametrize("name", SAMPLERS)
    def test_the_same_seed_gives_the_same_decision_and_another_seed_other_candidates(self, name):
        first, again, other = (plan(sampler(name), seed=seed) for seed in (7, 7, 8))
        np.testing.assert_array_equal(first.chunk, again.chunk)
        np.testing.assert_array_equal(first.candidates.value, again.candidates.value)
        later = np.s_[:, 12:]
        assert (
            not np.isclose(first.candidates.chunks[later], other.candidates.chunks[later]).all((2, 3)).any()
        )

    @pytest.mark.parametrize("name", SAMPLERS)
    def test_chunks_stay_inside_the_bounds_and_a_binary_gripper_is_never_between(self, name):
        spec = ActionSpec(
            low=np.array([-2.0, -1.0, 0.0, -3.0, 0.0]), high=np.array([2.0, 1.0, 4.0, 3.0, 0.08]),
            position=(0, 1), rotation=(3,), gripper=(4,),
        )  # fmt: skip
        samples = policy_samples(spec, 2, 4, 5)
        samples.chunks[:] = spec.clip(samples.chunks + np.array([1.9, 0, 0, 0, 0.04], np.float32))
        planner = PRESETS[name](
            FunctionWorld(lambda s, c: s + c[:, -1]), FunctionReward(lambda s: s[:, 0]), action_spec=spec,
            flip_probability=0.3, depth=2, simulations=90,
        )  # fmt: skip
        chunks = planner.plan(observe(np.zeros((2, 5))), samples, np.arange(2)).candidates.chunks
        assert (chunks >= spec.low).all()
        assert (chunks <= spec.high).all()
        assert set(np.unique(chunks[..., 4])) == {np.float32(0.0), np.float32(0.08)}

    def test_random_shooting_of_single_chunks_is_the_tree_search_of_depth_one(self):
        options = {"simulations": 40, "memory_share": 0.5, "bandwidths": (0.05, 0.1), "discount": 0.99}
        tree = PRESETS["forethought"](
            ArmWorld(),
            NearTarget(),
            action_spec=ARM,
            memory=FixedMemory(),
            average_over=(4, 8, 16, 32),
            **options,
        )
        found, expected = plan(sampler("random_shooting", **options), 2), plan(tree, 2)
        np.testing.assert_array_equal(found.candidates.chunks, expected.candidates.chunks)
        np.testing.assert_array_equal(found.candidates.value, expected.candidates.value)
        np.testing.assert_array_equal(found.chunk, expected.chunk)
        assert found.reason == expected.reason

    def test_milliseconds_end_the_search_after_a_population(self):
        ticks = iter(np.arange(0.0, 100.0, 0.004))
        for name in SAMPLERS:
            planner = sampler(name, simulations=None, milliseconds=40.0, population=8, depth=2)
            object.__setattr__(planner, "budget", _Ticking(planner.budget, lambda: next(ticks)))
            decision = plan(planner)
            populations = decision.simulations[0] / 16
            assert 1.5 < populations < 10
            chunks = decision.candidates.chunks[0]
            assert len(np.unique(chunks.reshape(len(chunks), -1), axis=0)) == len(chunks)


class _Ticking:
    def __init__(self, budget: Budget, now) -> None:
        self.simulations, self._budget, self._now = budget.simulations, budget, now

    def start(self):
        return self._budget.start(self._now)


class TestRight:
    @pytest.mark.parametrize("name", SAMPLERS)
    def test_the_decision_improves_on_the_policy_and_more_simulations_do_not_hurt(self, name):
        values = []
        for simulations in (2, 8, 32, 128, 512):
            decision = plan(sampler(name, simulations=simulations), 20, still(20))
            assert (decision.value >= decision.policy_value).all()
            values.append(decision.value.mean())
        assert (np.diff(values) > 0).all()

    @pytest.mark.parametrize("name", ["cem", "icem", "mppi"])
    def test_refining_finds_what_shooting_with_as_many_simulations_does_not(self, name):
        """The target lies beyond the reach of the kernels around the policy."""
        options = {"simulations": 256, "pessimism": 0.0}
        refined = plan(sampler(name, iterations=8, **options), 20, still(20))
        shot = plan(sampler("random_shooting", **options), 20, still(20))
        assert 1.0 - refined.value.mean() < 0.75 * (1.0 - shot.value.mean())  # 1 is the best there is
        assert (refined.simulations == shot.simulations).all()

    @pytest.mark.parametrize("name", ["cem", "icem"])
    def test_the_elites_close_in_on_the_best_chunk(self, name):
        decision = plan(sampler(name, simulations=4000, iterations=40), 4, still(4))
        reached = decision.chunk[..., :3].astype(np.float64).mean(axis=1)
        np.testing.assert_allclose(reached, 0.4, atol=0.02)

    @pytest.mark.parametrize("refinement", [None, *REFINEMENTS], ids=["none", "cem", "icem", "mppi"])
    def test_a_sequence_of_two_chunks_sees_past_the_trap(self, refinement):
        """+0.5 pays at once and leads nowhere; -0.5 costs, and the next chunk pays."""

        def step(state, chunks):
            action = np.round(chunks[:, 0, 0].astype(np.float64), 1)
            started = state[:, 0] != 0.0
            return np.where(started, state[:, 0] * 10.0 + np.sign(action), np.sign(action))[:, None]

        def worth(state):
            table = {1.0: 0.6, -1.0: 0.1, -9.0: 1.0, -10.0: 0.0, 11.0: 0.3, 9.0: 0.3}
            return np.array([table.get(float(s), 0.2) for s in state[:, 0]])

        actions = action_set([0.0, 0.5, -0.5, 0.4, -0.4])
        samples = ActionSamples(np.zeros((3, 1, 1, 1), np.float32))
        chosen = {}
        for depth in (1, 2):
            planner = SequenceSearch(
                FunctionWorld(step), FunctionReward(worth), _Shuffled(actions), LINE, refinement,
                Budget(120), depth, iterations=2, backup=MaximumBackup(), scoring=PLAIN,
                decision=DecisionRule(margin=0.0),
            )  # fmt: skip
            decision = planner.plan(observe(np.zeros(3)), samples, np.arange(3))
            chosen[depth] = np.sign(decision.chunk[:, 0, 0]).tolist()
        assert chosen == {1: [1.0] * 3, 2: [-1.0] * 3}

    def test_the_value_of_a_sequence_is_that_of_a_tree_that_is_one_branch(self):
        world = FunctionWorld(
            lambda s, c: s + c[:, 0].astype(np.float64), done=lambda s: 0.1 * np.abs(s[:, 0]),
            disagreement=lambda s: 0.01 * np.ones(len(s)),
        )  # fmt: skip
        reward = FunctionReward(lambda s: np.cos(s[:, 0]), lambda s: 0.1 * np.abs(s[:, 0]))
        scoring = Scoring(1.0, 1.0, 0.9)
        samples, start = ActionSamples(np.full((1, 1, 1, 1), 0.3, np.float32)), observe([0.2])
        one = EveryAction(action_set([0.3]))
        options = {"budget": Budget(3), "depth": 3, "scoring": scoring}
        tree = TreeSearch(world, reward, one, LINE, children=1, inner_children=1, wave=1, **options)
        line = SequenceSearch(world, reward, one, LINE, **options)
        first, second = (p.plan(start, samples, np.array([0])) for p in (tree, line))
        assert second.simulations[0] == first.simulations[0] == 3
        assert second.value[0] == pytest.approx(first.value[0], rel=1e-7)

    def test_the_policys_chunk_is_judged_by_its_best_future(self):
        planner = sampler("cem", simulations=60, depth=2, iterations=3)
        decision = plan(planner, 1, still(1))
        assert decision.candidates.visits[0, 0] == 2 + 2
        assert (decision.candidates.visits[0, 1:] == 2).all()
        repeated = plan(sampler("cem", simulations=2, depth=2), 1, still(1))
        assert decision.policy_value[0] > repeated.policy_value[0]

    def test_nothing_is_imagined_beyond_the_end(self):
        world = FunctionWorld(
            lambda s, c: s + c[:, 0].astype(np.float64), done=lambda s: (s[:, 0] > 0.2) * 1.0
        )
        planner = SequenceSearch(
            world, FunctionReward(lambda s: np.zeros(len(s))), EveryAction(action_set([0.0, 0.5, 0.6])), LINE,
            budget=Budget(9), depth=3, scoring=PLAIN,
        )  # fmt: skip
        decision = planner.plan(
            observe([0.0]), ActionSamples(np.zeros((1, 1, 1, 1), np.float32)), np.array([0])
        )
        assert decision.simulations[0] == 5
        np.testing.assert_array_equal(decision.candidates.value[0], [0.0, 1.0, 1.0])


class _Shuffled:
    """Any of a finite set of chunks, drawn by seed and node."""

    source_names = ("policy", "any")

    def __init__(self, chunks: np.ndarray) -> None:
        self.chunks = chunks

    def propose(self, context, count, *, keep_policy):
        keys = stream_keys(context.seeds, context.nodes)
        index = (np.abs(normals(keys, count)) * 1e6).astype(int) % len(self.chunks)
        proposed = EveryAction(self.chunks).propose(context, 1, keep_policy=keep_policy)
        chunks = self.chunks[index]
        if keep_policy:
            chunks[:, 0] = context.samples[:, 0]
        shape = index.shape
        source = np.ones(shape, np.int8)
        source[:, 0] = 0 if keep_policy else 1
        uniform = np.full(shape, 1.0 / count)
        return type(proposed)(chunks.astype(np.float32), source, uniform, np.log(uniform))


def test_a_better_start_helps_every_sampler():
    """With the memory's kernels in the first population, as in the tree search."""
    for name in SAMPLERS:
        decision = plan(sampler(name, memory_share=0.5, simulations=60), 2)
        names = [decision.candidates.source_names[i] for i in decision.candidates.source[0]]
        first = 60 if name == "random_shooting" else names.index(f"{name}_mean")
        assert names[:first].count("averaged") == pytest.approx(first / 2, abs=0.5)


def test_populations_shrink_by_the_decay():
    planner = icem(ArmWorld(), NearTarget(), action_spec=ARM, simulations=122, iterations=3, decay=2.0)
    assert list(planner._sizes()) == [70, 35, 17]
    assert list(cem(ArmWorld(), NearTarget(), action_spec=ARM, simulations=32)._sizes()) == [11, 11, 10]
    assert list(cem(ArmWorld(), NearTarget(), action_spec=ARM, simulations=3)._sizes()) == [3]
    deep = cem(ArmWorld(), NearTarget(), action_spec=ARM, simulations=33, depth=2)._sizes()
    assert list(deep) == [5, 6, 6]
