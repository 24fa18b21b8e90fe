"""The sampling planners: random shooting, CEM, iCEM and MPPI, under the protocol of the tree search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
from scipy.spatial.transform import Rotation

from forethought.interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation, Planner, Score
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
    SharedNoise,
    TreeSearch,
    cem,
    icem,
)
from forethought.planner.noise import coloured, normals, stream_keys
from forethought.planner.refinement import Distribution, draw, fit
from forethought.planner.rotation import weighted_mean

SAMPLERS = ("random_shooting", "cem", "icem", "mppi")
REFINEMENTS = [
    CrossEntropy(),
    CrossEntropy(0.2, keep=0.5, noise=ColouredNoise(), name="icem"),
    PathIntegral(),
]
PLAIN = Scoring(pessimism=0.0, discount=1.0)


def sampler(name: str, **options) -> Planner:
    return PRESETS[name](ArmWorld(), NearTarget(), action_spec=ARM, memory=FixedMemory(), **options)


def still(batch: int, n: int = 4) -> ActionSamples:
    """A policy that barely moves, its gripper open."""
    samples = 0.1 * policy_samples(ARM, batch, n, 8).chunks
    samples[..., 6] = -1.0
    return ActionSamples(samples.astype(np.float32))


def plan(planner: Planner, batch: int = 1, samples: ActionSamples | None = None, seed: int = 0):
    samples = samples or policy_samples(ARM, batch, 6, 8)
    return planner.plan(observe(np.zeros((batch, 7))), samples, seed + np.arange(batch))


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


class TestCarrying:
    """iCEM at depth 2 along an exact world: the rest of the elites is the next decision's start."""

    def decide(self, planner, state, seed=0, samples=None):
        samples = samples or still(len(state))
        return planner.plan(observe(state), samples, seed + np.arange(len(state)))

    def carried(self, decision) -> np.ndarray:
        name = decision.candidates.source_names.index("carried")
        return (decision.candidates.source == name).sum(axis=1)

    def after(self, state, decision):
        return (state + decision.chunk.astype(np.float64).mean(axis=1)).astype(np.float32)

    def test_the_rest_of_the_best_sequences_joins_the_next_decision(self):
        planner = sampler("icem", depth=2, simulations=60)
        start = np.zeros((2, 7), np.float32)
        first = self.decide(planner, start)
        assert (self.carried(first) == 0).all()
        rest = [planner._carried.rows[row].rest.copy() for row in range(2)]
        second = self.decide(planner, self.after(start, first), 9)
        assert (self.carried(second) == 3).all()
        label = second.candidates.source_names.index("carried")
        for row in range(2):
            found = second.candidates.chunks[row, second.candidates.source[row] == label]
            np.testing.assert_array_equal(found, rest[row][:, 0])

    def test_only_rows_whose_world_went_as_imagined_continue(self):
        planner = sampler("icem", depth=2, simulations=60)
        start = np.zeros((2, 7), np.float32)
        after = self.after(start, self.decide(planner, start))
        after[1] += 0.5
        second = self.decide(planner, after, 9)
        assert self.carried(second).tolist() == [3, 0]
        fresh = self.decide(sampler("icem", depth=2, simulations=60), after, 9)
        np.testing.assert_array_equal(second.candidates.chunks[1], fresh.candidates.chunks[1])

    @pytest.mark.parametrize("what", ["reset", "instruction", "batch", "depth"])
    def test_episodes_do_not_mix(self, what):
        depth = 1 if what == "depth" else 2
        planner = sampler("icem", depth=depth, simulations=60)
        start = np.zeros((2, 7), np.float32)
        after, samples = self.after(start, self.decide(planner, start)), still(2)
        observation = observe(after)
        if what == "reset":
            planner.reset()
        elif what == "instruction":
            observation = Observation({}, after, ("another", "task"))
        elif what == "batch":
            observation, samples = observe(after[:1]), still(1)
        seeds = 9 + np.arange(observation.batch)
        second = planner.plan(observation, samples, seeds)
        fresh = sampler("icem", depth=depth, simulations=60).plan(observation, samples, seeds)
        assert (self.carried(second) == 0).all()
        np.testing.assert_array_equal(second.candidates.chunks, fresh.candidates.chunks)

    def test_rows_with_names_are_found_again_in_any_company(self):
        planner, start = sampler("icem", depth=2, simulations=60), np.zeros((2, 7), np.float32)
        samples = still(2)
        first = planner.plan_rows(observe(start), samples, np.array([4, 7]), np.array([4, 7]))
        after = self.after(start, first)
        instruction = ("task 1",)
        seen = Observation({}, after[1:], instruction)
        later = planner.plan_rows(seen, still(1), np.array([9]), np.array([7]))
        assert self.carried(later).tolist() == [3]
        assert sorted(planner._carried.rows) == [4, 7]
        other = planner.plan_rows(seen, still(1), np.array([9]), np.array([5]))
        assert self.carried(other).tolist() == [0]
        planner.reset([4])
        assert sorted(planner._carried.rows) == [5, 7]
        with pytest.raises(ForethoughtError, match="distinct"):
            planner.plan_rows(observe(start), samples, np.arange(2), np.array([3, 3]))

    def test_states_that_are_objects_are_never_compared(self):
        class Boxes(ArmWorld):
            def encode(self, observation):
                return _boxed(super().encode(observation))

            def step(self, latent, chunks):
                prediction = super().step(np.stack(latent), chunks)
                return type(prediction)(_boxed(prediction.latent), prediction.disagreement, prediction.done)

        class Reward(NearTarget):
            def score(self, latent, instruction) -> Score:
                return super().score(np.stack(latent), instruction)

        planner = icem(Boxes(), Reward(), action_spec=ARM, depth=2)
        start = np.zeros((1, 7), np.float32)
        first = self.decide(planner, start)
        assert self.carried(self.decide(planner, self.after(start, first))).tolist() == [0]


def _boxed(states: np.ndarray) -> np.ndarray:
    boxes = np.empty(len(states), object)
    for index, state in enumerate(states):
        boxes[index] = state
    return boxes


class TestRefinement:
    def test_rotations_are_averaged_on_the_group(self):
        rng = np.random.default_rng(0)
        vectors, weights = rng.normal(0, 0.4, (4, 9, 3)), rng.uniform(0, 1, (4, 9))
        found = weighted_mean(vectors, weights)
        for row in range(4):
            exact = Rotation.from_rotvec(vectors[row]).mean(weights[row])
            assert (exact.inv() * Rotation.from_rotvec(found[row])).magnitude() < 0.02
        half = np.array([[0.0, 0.0, 3.0], [0.0, 0.0, -3.0]])
        assert abs(weighted_mean(half, np.array([0.5, 0.5]))[2]) == pytest.approx(np.pi, abs=1e-6)

    def test_a_fit_has_the_weighted_moments_and_the_grippers_majority(self):
        rng = np.random.default_rng(1)
        sequences = ARM.clip(rng.uniform(-0.3, 0.3, (1, 6, 2, 4, 7)).astype(np.float32))
        weight = np.array([[0.3, 0.0, 0.15, 0.1, 0.45, 0.0]])
        found = fit(sequences, weight, ARM)
        mean = np.average(sequences[0, ..., :3], axis=0, weights=weight[0])
        spread = np.sqrt(np.average((sequences[0, ..., :3] - mean) ** 2, axis=0, weights=weight[0]))
        np.testing.assert_allclose(found.mean[0, ..., :3], mean, atol=1e-6)
        np.testing.assert_allclose(found.deviation[0, ..., :3], spread, atol=1e-6)
        majority = np.sign(np.average(sequences[0, ..., 6], axis=0, weights=weight[0]))
        np.testing.assert_array_equal(found.mean[0, ..., 6], majority)

    def test_draws_have_the_moments_of_the_distribution_and_the_gripper_patterns_of_the_fitted(self):
        rng = np.random.default_rng(2)
        mean = ARM.clip(rng.uniform(-0.2, 0.2, (1, 2, 4, 7)).astype(np.float32))
        patterns = rng.choice([-1.0, 1.0], (1, 3, 2, 4, 1)).astype(np.float32)
        deviation = np.full((1, 2, 4, 6), 0.05)
        distribution = Distribution(mean, deviation, patterns, np.array([[0.5, 0.0, 0.5]]))
        for noise in (SharedNoise(), ColouredNoise(2.0)):
            drawn = draw(distribution, 20_000, np.array([3]), -1, noise, 0.0, ARM)[0]
            np.testing.assert_allclose(drawn[..., :6].mean(axis=0), mean[0, ..., :6], atol=2e-3)
            np.testing.assert_allclose(drawn[..., :6].std(axis=0), 0.05, rtol=0.03)
            like = (drawn[:, None, ..., 6:] == patterns[0]).all(axis=(2, 3, 4))
            np.testing.assert_allclose(like.mean(axis=0), [0.5, 0.0, 0.5], atol=0.02)
        flipped = draw(distribution, 20_000, np.array([3]), -1, SharedNoise(), 0.2, ARM)[0]
        unlike = (flipped[:, None, ..., 6:] == -patterns[0]).all(axis=(3, 4)).any(axis=1)
        np.testing.assert_allclose(unlike.mean(axis=0), 0.2, atol=0.02)

    @pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
    def test_coloured_noise_has_unit_variance_and_the_power_that_its_exponent_says(self, exponent):
        white = normals(stream_keys(np.array([5]), 0), 4000 * 64).reshape(4000, 64, 1)
        noise = coloured(white, exponent)[..., 0]
        np.testing.assert_allclose(noise.std(axis=0), 1.0, rtol=0.1)
        power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean(axis=0)[1:]
        slope = np.polyfit(np.log(np.arange(1, 33)), np.log(power), 1)[0]
        assert slope == pytest.approx(-exponent, abs=0.05)

    def test_cem_fits_the_elites_alone_and_never_those_that_are_out(self):
        sequences = np.arange(8.0, dtype=np.float32).reshape(1, 8, 1, 1, 1) / 10.0
        value = np.array([[0.1, 0.9, -np.inf, 0.8, 0.2, 0.3, 0.0, 0.7]])
        found = CrossEntropy(elites=0.25).update(None, sequences, value, LINE)
        assert found.mean[0, 0, 0, 0] == pytest.approx(0.2)
        assert found.deviation[0, 0, 0, 0] == pytest.approx(0.1)
        again = CrossEntropy(elites=0.25, momentum=0.5).update(found, sequences[:, 7:], value[:, 7:], LINE)
        assert again.mean[0, 0, 0, 0] == pytest.approx(0.5 * 0.2 + 0.5 * 0.7)
        assert again.deviation[0, 0, 0, 0] == pytest.approx(0.5 * 0.1)
        lost = CrossEntropy().update(None, sequences, np.full((1, 8), -np.inf), LINE)
        assert lost.mean[0, 0, 0, 0] == 0.0

    def test_mppi_weighs_by_the_exponential_of_the_value(self):
        sequences = np.array([0.0, 0.5, 1.0], np.float32).reshape(1, 3, 1, 1, 1)
        value = np.array([[0.1, 0.3, -np.inf]])
        found = PathIntegral(temperature=0.1, deviation=0.07).update(None, sequences, value, LINE)
        weight = np.exp([-2.0, 0.0])
        assert found.mean[0, 0, 0, 0] == pytest.approx(0.5 * weight[1] / weight.sum())
        assert found.deviation[0, 0, 0, 0] == 0.07

    def test_kept_elites_stay_without_being_imagined_again(self):
        """A population of draws that are all worse: with elites kept, the fit stays with the old ones."""
        keeping = sampler("icem", simulations=64, iterations=4, keep=1.0)
        assert plan(keeping, 1, still(1)).simulations[0] == 64
        assert CrossEntropy(keep=0.3).kept(40) == 3
        assert CrossEntropy().kept(40) == 0


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
