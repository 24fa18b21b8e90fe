"""The tree search against problems whose answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
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

from forethought.interfaces import ActionSamples, ForethoughtError, Observation, Planner, Prediction, Score
from forethought.planner import (
    BACKUPS,
    PRESETS,
    Budget,
    DecisionRule,
    MaximumBackup,
    MeanBackup,
    ProgressiveWidening,
    Puct,
    Scoring,
    TemporalDifferenceMix,
    TreeSearch,
    best_of_n,
    forethought,
    vla_reasoner,
)

PLAIN = Scoring(pessimism=0.0, discount=1.0)
FREE = DecisionRule(margin=0.0, visit_fraction=0.0)


def line_search(world, reward, actions, **options):
    settings_ = {
        "budget": Budget(simulations=10_000),
        "children": len(actions),
        "inner_children": len(actions),
        "scoring": PLAIN,
        "decision": FREE,
        "backup": MaximumBackup(),
    }
    return TreeSearch(world, reward, EveryAction(action_set(actions)), LINE, **(settings_ | options))


def line_samples(batch: int, value: float = 0.0) -> ActionSamples:
    return ActionSamples(np.full((batch, 1, 1, 1), value, np.float32))


def add(state, chunks):
    return state + chunks[:, 0].astype(np.float64)


class TestAgainstBruteForce:
    def test_a_bandit_ends_at_the_best_arm(self):
        arms = [0.0, -0.7, 0.31, 0.9, -0.2, 0.5]
        payoff = {-0.7: 0.2, 0.31: 0.93, 0.9: 0.1, -0.2: 0.4, 0.5: 0.6, 0.0: 0.3}

        def pay(state):
            return np.array([payoff[round(float(s), 2)] for s in state[:, 0]])

        world = FunctionWorld(lambda s, c: c[:, 0].astype(np.float64))
        reward = FunctionReward(
            lambda s: np.where(s[:, 0] == 9.0, 0.0, 1.0) * pay(np.where(s == 9.0, 0.0, s))
        )
        decision = line_search(world, reward, arms).plan(observe([9.0]), line_samples(1), np.array([1]))
        assert decision.chunk[0, 0, 0] == np.float32(0.31)
        assert decision.value[0] == np.float32(0.93)
        assert decision.simulations[0] == len(arms)
        assert decision.overridden[0]

    @pytest.mark.parametrize("wave", [1, 3, 32])
    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_a_deterministic_chain_is_solved_exactly(self, depth, wave):
        actions = [0.0, -0.5, 0.25, 1.0]
        target = 1.6

        def value(state):
            return 1.0 / (1.0 + np.abs(state[:, 0] - target))

        search = line_search(FunctionWorld(add), FunctionReward(value), actions, depth=depth, wave=wave)
        decision = search.plan(observe([0.0]), line_samples(1), np.array([3]))
        best = {
            first: max(
                float(value(np.array([[first + sum(rest)]]))[0])
                for rest in itertools.product(actions, repeat=depth - 1)
            )
            for first in actions
        }
        assert decision.simulations[0] == sum(len(actions) ** level for level in range(1, depth + 1))
        np.testing.assert_allclose(decision.candidates.value[0], [best[a] for a in actions], rtol=1e-6)
        assert decision.value[0] == pytest.approx(max(best.values()))

    @pytest.mark.parametrize("name", sorted(BACKUPS))
    def test_a_complete_tree_has_the_value_of_the_recursion(self, name):
        """Every backup against its formula, written as a recursion, with discount, pessimism and the end."""
        actions, depth, gamma, pessimism = [0.0, -0.5, 0.3], 3, 0.9, 0.5

        def value(state):
            return 0.5 + 0.4 * np.sin(3.0 * state[:, 0])

        def spread(state):
            return 0.1 * np.abs(state[:, 0])

        def done(state):
            return np.clip(state[:, 0], 0.0, 0.8)

        def v(state, level):
            point = np.array([[state]])
            own = float(value(point)[0] - pessimism * spread(point)[0])
            end = float(done(point)[0])
            count, backed = 1, own
            if level < depth:
                children = [v(state + np.float32(a), level + 1) for a in actions]
                if name == "mean":
                    count = 1 + sum(n for _, n in children)
                    backed = (own + gamma * sum(x * n for x, n in children)) / count
                else:
                    best = gamma * max(x for x, _ in children)
                    backed = best if name == "max" else 0.5 * own + 0.5 * best
            return end + (1.0 - end) * backed, count

        world = FunctionWorld(add, done=done)
        search = line_search(
            world,
            FunctionReward(value, spread),
            actions,
            depth=depth,
            wave=4,
            backup=BACKUPS[name],
            scoring=Scoring(pessimism=pessimism, discount=gamma, terminal=0.95),
        )
        decision = search.plan(observe([0.0]), line_samples(1), np.array([0]))
        expected = [v(float(np.float32(a)), 1)[0] for a in actions]
        np.testing.assert_allclose(decision.candidates.value[0], expected, rtol=1e-6)

    def test_depth_two_sees_what_depth_one_cannot(self):
        """+1 looks best after one chunk; −1 is the only way to where the second chunk succeeds."""

        def transition(state, chunks):
            place, move = np.round(state[:, 0]), np.sign(chunks[:, 0, 0])
            table = {(0, 1): 1, (0, -1): 2, (0, 0): 3, (2, 1): 4}
            return np.array([[float(table.get((int(p), int(m)), 5))] for p, m in zip(place, move)])

        def value(state):
            return np.array([{0: 0.3, 1: 0.6, 2: 0.2, 3: 0.3, 4: 1.0, 5: 0.1}[int(s)] for s in state[:, 0]])

        actions, reward = [0.0, 1.0, -1.0], FunctionReward(value)
        for backup in (MaximumBackup(), TemporalDifferenceMix(0.5)):
            chosen = [
                line_search(FunctionWorld(transition), reward, actions, depth=depth, backup=backup)
                .plan(observe([0.0]), line_samples(1), np.array([0]))
                .chunk[0, 0, 0]
                for depth in (1, 2)
            ]
            assert chosen == [1.0, -1.0]

    def test_regret_falls_as_simulations_grow(self):
        rng = np.random.default_rng(0)
        actions = [0.0, *rng.uniform(-1, 1, 11)]

        def value(state):
            return 0.5 + 0.5 * np.sin(7.0 * state[:, 0]) * np.cos(3.0 * state[:, 0])

        starts = rng.uniform(-1, 1, 40)
        regret = []
        for simulations in (12, 40, 156):
            search = line_search(
                FunctionWorld(add),
                FunctionReward(value),
                actions,
                depth=2,
                wave=4,
                budget=Budget(simulations=simulations),
                widening=ProgressiveWidening(factor=12),
            )
            decision = search.plan(observe(starts), line_samples(40), np.arange(40))
            moved = starts.astype(np.float32).astype(np.float64) + decision.chunk[:, 0, 0]
            reached = np.max([value((moved + np.float32(a))[:, None]) for a in actions], axis=0)
            both = itertools.product(actions, repeat=2)
            best = np.max([value((starts + a + b)[:, None]) for a, b in both], axis=0)
            regret.append(float((best - reached).mean()))
        assert regret[0] > regret[1] > regret[2]
        assert regret[2] == pytest.approx(0.0, abs=1e-6)


def sequential(world, reward, actions, depth, simulations, puct, widening, backup, gamma):
    """The algorithm one simulation at a time, with plain objects: what a wave of one must reproduce."""

    class Node:
        def __init__(self, state, level):
            self.state, self.level, self.children = state, level, []
            self.own = self.value = float(reward.value(state[None])[0])
            self.visits, self.closed = 1, level == depth

    def make(parent, action):
        chunk = np.array([[[action]]], np.float32)
        return Node(world.transition(parent.state[None], chunk)[0], parent.level + 1)

    def score(node, slots):
        seen = [c for c in slots if c is not None]
        count = sum(c.visits for c in seen)
        average = float(np.mean([c.value for c in seen])) if seen else node.own
        fill = (node.own + count * average) / (1 + count)
        filled = [fill if c is None else c.value for c in slots]
        low, high = min(filled), max(filled)
        return [
            (f - low) / max(high - low, 1e-8)
            + puct * (1 / len(slots)) * np.sqrt(max(count, 1)) / (1 + (0 if c is None else c.visits))
            for f, c in zip(filled, slots)
        ]

    def refresh(node):
        seen = [c for c in node.children if c is not None]
        node.visits = 1 + sum(c.visits for c in seen) if node.level else sum(c.visits for c in seen)
        node.value = float(
            backup(
                np.array([node.own]),
                np.array([[c.value for c in seen]]),
                np.array([[c.visits for c in seen]]),
                gamma,
            )[0]
        )
        node.closed = all(c is not None and c.closed for c in node.children)

    root = Node(np.array([0.0]), 0)
    root.children = [make(root, a) for a in actions]
    refresh(root)
    for _ in range(simulations - len(actions)):
        path = [root]
        while True:
            node = path[-1]
            if not node.children:
                node.children = [None] * len(actions)
            free = [i for i, c in enumerate(node.children) if c is None or not c.closed]
            if node is not root:
                limit = int(np.ceil(widening.factor * node.visits**widening.power))
                free = [i for i in free if i < limit] or free[:1]
            scores = score(node, node.children)
            pick = max(free, key=lambda i: (scores[i], -i))
            if node.children[pick] is None:
                node.children[pick] = make(node, actions[pick])
                break
            path.append(node.children[pick])
        for node in reversed(path):
            refresh(node)
        if root.closed:
            break
    return root


@pytest.mark.parametrize("backup", [TemporalDifferenceMix(), MaximumBackup(), MeanBackup()])
@pytest.mark.parametrize("simulations", [5, 17, 60])
def test_waves_of_one_are_the_sequential_algorithm(simulations, backup):
    actions = [0.0, -0.45, 0.3, 0.85, -0.9]
    world = FunctionWorld(add)
    reward = FunctionReward(lambda s: 0.5 + 0.4 * np.sin(5.0 * s[:, 0]))
    widening = ProgressiveWidening(1.0, 0.5)
    search = line_search(
        world,
        reward,
        actions,
        depth=3,
        wave=1,
        budget=Budget(simulations=simulations),
        root_rule=Puct(1.25),
        inner_rule=Puct(1.25),
        widening=widening,
        backup=backup,
        scoring=Scoring(pessimism=0.0, discount=0.9),
    )
    decision = search.plan(observe([0.0]), line_samples(1), np.array([0]))
    root = sequential(world, reward, actions, 3, simulations, 1.25, widening, backup, 0.9)
    np.testing.assert_allclose(decision.candidates.value[0], [c.value for c in root.children], rtol=1e-6)
    assert decision.candidates.visits[0].tolist() == [c.visits for c in root.children]
    assert decision.simulations[0] == simulations


class TestThePolicyIsKept:
    def test_the_policy_chunk_is_returned_when_nothing_is_better(self):
        world = FunctionWorld(add)
        reward = FunctionReward(lambda s: 1.0 - np.abs(s[:, 0]))
        decision = line_search(world, reward, [0.0, 0.5, -0.5]).plan(
            observe([0.0]), line_samples(1), np.array([0])
        )
        assert not decision.overridden[0]
        assert decision.slot[0] == 0
        assert decision.chunk[0, 0, 0] == 0.0
        assert decision.reason[0].startswith("policy")

    def test_equal_values_leave_the_policy_alone(self):
        reward = FunctionReward(lambda s: np.full(len(s), 0.5))
        search = line_search(FunctionWorld(add), reward, [0.0, 0.5, -0.5], depth=2)
        assert search.plan(observe([0.0]), line_samples(1), np.array([0])).slot[0] == 0

    def test_a_gain_within_the_margin_does_not_switch_and_one_past_it_does(self):
        reward = FunctionReward(lambda s: 0.5 + 0.1 * s[:, 0])
        for margin, slot in ((0.11, 0), (0.09, 1)):
            search = line_search(FunctionWorld(add), reward, [0.0, 1.0], decision=DecisionRule(margin=margin))
            assert search.plan(observe([0.0]), line_samples(1), np.array([0])).slot[0] == slot

    @pytest.mark.parametrize("simulations", [1, 2, 5])
    def test_slot_zero_is_the_policy_chunk_and_is_evaluated_at_any_budget(self, simulations):
        samples = policy_samples(ARM, 2, 4, 8)
        planner = forethought(ArmWorld(), NearTarget(), action_spec=ARM, simulations=simulations)
        decision = planner.plan(observe(np.zeros((2, 7))), samples, np.array([1, 2]))
        np.testing.assert_array_equal(decision.candidates.chunks[:, 0], samples.chunks[:, 0])
        assert np.isfinite(decision.candidates.value[:, 0]).all()
        assert (decision.simulations == simulations).all()


def arm_planner(name: str, **options) -> Planner:
    return PRESETS[name](ArmWorld(), NearTarget(), action_spec=ARM, memory=FixedMemory(), **options)


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


class TestEvaluation:
    def test_phase_one_is_one_call_for_all_rows(self):
        world = FunctionWorld(add)
        line_search(world, FunctionReward(lambda s: s[:, 0]), [0.0, 0.5, 1.0]).plan(
            observe([0.0, 0.0]), line_samples(2), np.array([0, 1])
        )
        assert world.calls == [6]

    @pytest.mark.parametrize("wave", [1, 4, 16, 100])
    def test_no_leaf_is_evaluated_twice_and_no_call_exceeds_the_wave(self, wave):
        world = FunctionWorld(lambda s, c: 10.0 * s + c[:, 0].astype(np.float64))
        actions = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        search = line_search(
            world, FunctionReward(lambda s: np.sin(s[:, 0])), actions, depth=3, wave=wave,
            budget=Budget(simulations=90),
        )  # fmt: skip
        decision = search.plan(observe([0.0]), line_samples(1), np.array([0]))
        assert decision.simulations[0] == 90 == sum(world.calls) == len(set(world.asked))
        assert max(world.calls[1:]) <= wave

    def test_virtual_visits_spread_a_wave_over_the_root(self):
        reward = FunctionReward(lambda s: 0.5 + 0.1 * (np.round(s[:, 0], 2) == 0.2))
        search = line_search(
            FunctionWorld(add),
            reward,
            [0.1, 0.2, 0.3, 0.4],
            depth=2,
            inner_children=4,
            wave=4,
            budget=Budget(simulations=8),
            root_rule=Puct(10.0),
            widening=ProgressiveWidening(factor=4),
        )
        visits = search.plan(observe([0.0]), line_samples(1), np.array([0])).candidates.visits[0]
        assert visits.sum() == 8
        assert visits[1] == visits.max()
        assert (visits > 1).sum() > 1

    def test_nothing_is_searched_below_the_end(self):
        world = FunctionWorld(add, done=lambda s: (s[:, 0] > 0.9).astype(float))
        reward = FunctionReward(lambda s: np.full(len(s), 0.2))
        decision = line_search(world, reward, [0.0, 1.0], depth=4, scoring=Scoring(0.0, discount=0.9)).plan(
            observe([0.0]), line_samples(1), np.array([0])
        )
        states = np.array([np.frombuffer(state)[0] for state, _ in world.asked])
        assert states.max() < 0.9
        assert decision.slot[0] == 1
        assert decision.value[0] == 1.0

    def test_the_probability_of_the_end_mixes_in_the_value_one(self):
        world = FunctionWorld(add, done=lambda s: np.full(len(s), 0.25))
        decision = line_search(world, FunctionReward(lambda s: np.full(len(s), 0.4)), [0.0, 1.0]).plan(
            observe([0.0]), line_samples(1), np.array([0])
        )
        assert decision.value[0] == pytest.approx(0.25 + 0.75 * 0.4)

    def test_pessimism_prefers_the_candidate_that_the_ensemble_agrees_on(self):
        reward = FunctionReward(lambda s: 0.5 + 0.2 * s[:, 0], spread=lambda s: np.maximum(s[:, 0], 0.0))
        for pessimism, slot in ((0.0, 1), (1.0, 0)):
            search = line_search(FunctionWorld(add), reward, [0.0, 0.8], scoring=Scoring(pessimism=pessimism))
            assert search.plan(observe([0.0]), line_samples(1), np.array([0])).slot[0] == slot

    def test_disagreement_of_the_world_model_counts_when_weighted(self):
        world = FunctionWorld(add, disagreement=lambda s: np.maximum(s[:, 0], 0.0))
        reward = FunctionReward(lambda s: 0.5 + 0.2 * s[:, 0])
        for weight, slot in ((0.0, 1), (1.0, 0)):
            search = line_search(world, reward, [0.0, 0.8], scoring=Scoring(0.0, weight))
            assert search.plan(observe([0.0]), line_samples(1), np.array([0])).slot[0] == slot


class TestBudget:
    @pytest.mark.parametrize("given", [{}, {"simulations": 0}, {"simulations": -3}, {"milliseconds": 0.0}])
    def test_a_budget_of_nothing_is_refused_with_what_to_do(self, given):
        with pytest.raises(ForethoughtError, match=r"budget.*got"):
            Budget(**given)

    @pytest.mark.parametrize(
        "given", [{"simulations": 2.5}, {"milliseconds": -1}, {"milliseconds": float("nan")}]
    )
    def test_a_budget_that_is_no_budget_is_refused(self, given):
        with pytest.raises(ForethoughtError):
            Budget(**given)

    @pytest.mark.parametrize("simulations", [1, 3, 31, 47, 200])
    def test_simulations_are_never_exceeded(self, simulations):
        world = FunctionWorld(lambda s, c: s + c.astype(np.float64).mean(axis=1))
        planner = forethought(
            world, NearTarget(), action_spec=ARM, simulations=simulations, children=16, depth=3, wave=7
        )
        decision = planner.plan(observe(np.zeros((3, 7))), policy_samples(ARM, 3, 4, 8), np.arange(3))
        assert (decision.simulations == simulations).all()
        assert sum(world.calls) == 3 * simulations

    def test_milliseconds_are_kept_but_for_one_wave(self):
        """With a clock that only the world model moves: 5 ms a call."""
        now = [0.0]

        def transition(state, chunks):
            now[0] += 5e-3
            return state + chunks.astype(np.float64).mean(axis=1)

        search = forethought(
            FunctionWorld(transition),
            NearTarget(),
            action_spec=ARM,
            simulations=None,
            milliseconds=52,
            depth=3,
        )
        clock = search.budget.start(lambda: now[0])
        run = search.search(
            np.zeros((1, 7)), ("",), policy_samples(ARM, 1, 4, 8).chunks, np.array([0]), clock
        )
        assert 52 - 5 <= clock.milliseconds <= 52
        assert run.spent[0] == 32 + 9 * search.wave

    def test_the_first_wave_runs_whatever_the_clock_says(self):
        search = forethought(
            ArmWorld(), NearTarget(), action_spec=ARM, simulations=None, milliseconds=1e-6, depth=2
        )
        decision = search.plan(observe(np.zeros((1, 7))), policy_samples(ARM, 1, 4, 8), np.array([0]))
        assert decision.simulations[0] == 32
        assert np.isfinite(decision.policy_value[0])

    def test_of_two_limits_the_first_to_end_counts(self):
        search = forethought(
            ArmWorld(), NearTarget(), action_spec=ARM, simulations=40, milliseconds=60_000, depth=2
        )
        decision = search.plan(observe(np.zeros((1, 7))), policy_samples(ARM, 1, 4, 8), np.array([0]))
        assert decision.simulations[0] == 40


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


class TestLatentsOfEveryKind:
    def test_torch_tensors_stay_tensors_and_give_the_same_decision(self):
        class Torch(ArmWorld):
            def encode(self, observation):
                return torch.from_numpy(observation.proprioception.astype(np.float64)).requires_grad_()

            def step(self, latent, chunks):
                assert isinstance(latent, torch.Tensor)
                zero = np.zeros(len(chunks), np.float32)
                return Prediction(latent + torch.from_numpy(chunks).double().mean(dim=1), zero, zero)

        class Reward(NearTarget):
            def score(self, latent, instruction):
                assert isinstance(latent, torch.Tensor)
                return super().score(latent.detach().numpy(), instruction)

        samples, start = policy_samples(ARM, 2, 4, 8), observe(np.zeros((2, 7)))
        options = {"action_spec": ARM, "simulations": 50, "depth": 2}
        tensor = forethought(Torch(), Reward(), **options).plan(start, samples, np.arange(2))
        array = forethought(ArmWorld(), NearTarget(), **options).plan(start, samples, np.arange(2))
        np.testing.assert_allclose(tensor.candidates.value, array.candidates.value, rtol=1e-6)
        np.testing.assert_array_equal(tensor.slot, array.slot)

    def test_object_arrays_of_snapshots_work(self):
        class Snapshots(ArmWorld):
            def encode(self, observation):
                return self.pack(observation.proprioception.astype(np.float64))

            def step(self, latent, chunks):
                assert latent.dtype == object
                after = np.stack([state["x"] for state in latent]) + chunks.astype(np.float64).mean(axis=1)
                return Prediction(self.pack(after), np.zeros(len(chunks)), np.zeros(len(chunks)))

            def pack(self, states):
                packed = np.empty(len(states), object)
                packed[:] = [{"x": state} for state in states]
                return packed

        class Reward(NearTarget):
            def score(self, latent, instruction):
                return super().score(np.stack([state["x"] for state in latent]), instruction)

        samples, start = policy_samples(ARM, 2, 4, 8), observe(np.zeros((2, 7)))
        options = {"action_spec": ARM, "simulations": 50, "depth": 2}
        boxed = forethought(Snapshots(), Reward(), **options).plan(start, samples, np.arange(2))
        array = forethought(ArmWorld(), NearTarget(), **options).plan(start, samples, np.arange(2))
        np.testing.assert_array_equal(boxed.candidates.value, array.candidates.value)


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
