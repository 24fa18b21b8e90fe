"""The search against brute force, and waves of one against the sequential algorithm."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from planner_fakes import (
    FunctionReward,
    FunctionWorld,
    add,
    line_samples,
    line_search,
    observe,
)

from forethought.planner import (
    BACKUPS,
    Budget,
    MaximumBackup,
    MeanBackup,
    ProgressiveWidening,
    Puct,
    Scoring,
    TemporalDifferenceMix,
)


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
    root.children, root.opened = [make(root, a) for a in actions], len(actions)
    refresh(root)
    for _ in range(simulations - len(actions)):
        path = [root]
        while True:
            node = path[-1]
            if not node.children:
                node.children, node.opened = [None] * len(actions), 0
            free = [i for i, c in enumerate(node.children) if c is None or not c.closed]
            if node is not root:
                limit = int(np.ceil(widening.factor * node.visits**widening.power))
                node.opened = max(node.opened, min(limit, len(actions)))
                if not any(i < node.opened for i in free):
                    node.opened += 1
                free = [i for i in free if i < node.opened]
            scores = score(node, node.children[: node.opened])
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
