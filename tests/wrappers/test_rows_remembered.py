"""A planner that remembers each row is told which rows of the batch it plans for."""

from __future__ import annotations

import numpy as np
import pytest

from forethought.interfaces import ActionSamples, Observation, Planner, Prediction, RowPlanner, Score
from forethought.planner import PRESETS, Gate, SequenceSearch, TreeReuse
from forethought.wrappers.controller import Controller

ROWS = np.array([0, 1, 2])


class Walking:
    """The state is the proprioception; a chunk moves it by its mean action."""

    def encode(self, observation):
        return observation.proprioception.astype(np.float64)

    def step(self, latent, chunks):
        zero = np.zeros(len(chunks))
        return Prediction(np.asarray(latent) + walked(chunks), zero, zero)


class Nearer:
    def score(self, latent, instruction):
        gap = ((np.asarray(latent)[:, :3] - 0.4) ** 2).sum(axis=1)
        return Score(np.exp(-gap), np.zeros(len(gap)))


class Wavering:
    """Chunks that differ by seed; asked about a row of a seed in ``fails`` it raises."""

    horizon = 4

    def __init__(self, spec, fails=()) -> None:
        self.action_spec, self.fails = spec, set(fails)

    def propose(self, observation, n, seeds):
        if self.fails & set(seeds.tolist()):
            raise RuntimeError("no frame")
        draws = [np.random.default_rng(int(seed)).uniform(-0.3, 0.3, (n, 4, 7)) for seed in seeds]
        return ActionSamples(self.action_spec.clip(np.stack(draws).astype(np.float32)))


def walked(chunks):
    return np.pad(0.2 * np.asarray(chunks, np.float64).mean(axis=1), ((0, 0), (0, 1)))


REMEMBERING = {
    "tree": ("forethought", {"simulations": 48, "depth": 2, "children": 12, "reuse": True}),
    "gated tree": (
        "forethought",
        {"simulations": 48, "depth": 2, "children": 12, "reuse": True, "gate_drop": 0.02},
    ),
    "icem": ("icem", {"simulations": 48, "depth": 2}),
    "mppi": ("mppi", {"simulations": 48, "depth": 2}),
}


def episode(spec, kind, *, blind=(), failing=(), forget=False):
    """Four decisions of three rows. ``blind`` and ``failing`` are (decision, row) without an observation or
    without a policy; their rows stay where they are."""
    name, options = REMEMBERING[kind]
    planner = PRESETS[name](Walking(), Nearer(), action_spec=spec, **options)
    fails = [10 * index + row for index, row in failing]
    controller = Controller(Wavering(spec, fails), planner, samples=6)
    state, decisions = 0.1 * np.arange(24.0).reshape(3, 8) / 24, []
    for index in range(4):
        if forget:
            planner.reset()
        seen = state.copy()
        for when, row in blind:
            seen[row] = np.nan if when == index else seen[row]
        observation = Observation({}, seen, ("push",) * 3)
        decision = controller.decide(observation, 10 * index + ROWS)
        decisions.append(decision)
        state = state + walked(decision.chunk)
    return controller, decisions


def same(one, other, rows) -> bool:
    names = ("chunk", "value", "policy_value", "slot", "simulations")
    return all(np.array_equal(getattr(one, name)[rows], getattr(other, name)[rows]) for name in names)


@pytest.mark.parametrize("kind", REMEMBERING)
@pytest.mark.parametrize("what", ["blind", "failing"])
def test_a_row_that_is_dropped_does_not_cost_its_neighbours_their_memory(spec, kind, what):
    _, whole = episode(spec, kind)
    _, forgetful = episode(spec, kind, forget=True)
    assert not same(whole[2], forgetful[2], [1, 2])  # remembering matters here
    controller, dropped = episode(spec, kind, **{what: [(1, 0), (2, 0)]})
    assert sum(controller.counters.values()) == 2
    assert [decision.fallback.tolist() for decision in dropped[1:3]] == [[True, False, False]] * 2
    for index in range(4):
        assert same(whole[index], dropped[index], [1, 2]), index


@pytest.mark.parametrize("kind", REMEMBERING)
def test_different_rows_dropped_in_turn_are_not_taken_for_one_another(spec, kind):
    """Twice two rows of three: the planner sees batches of one size that hold different rows."""
    _, whole = episode(spec, kind)
    _, dropped = episode(spec, kind, blind=[(1, 0), (2, 2)])
    for index in range(4):
        assert same(whole[index], dropped[index], [1]), index


class Named:
    """Remembers which rows it was asked about, and that it was asked to forget."""

    def __init__(self, planner) -> None:
        self.planner, self.asked, self.resets = planner, [], 0

    def plan(self, observation, samples, seeds):
        raise AssertionError("asked without names")

    def plan_rows(self, observation, samples, seeds, rows):
        self.asked.append(rows.tolist())
        return self.planner.plan(observation, samples, seeds)

    def reset(self, rows=None):
        self.resets += 1


@pytest.mark.parametrize("deadline_ms", [None, 60_000])
def test_names_are_places_in_the_whole_batch(policy, planner, observe, deadline_ms):
    named = Named(planner())
    controller = Controller(policy, named, deadline_ms=deadline_ms)
    for broken in ([], [0], [0, 2], []):
        controller.decide(observe(3, broken), ROWS)
    assert named.asked == [[0, 1, 2], [1, 2], [1], [0, 1, 2]]
    assert named.resets == 0
    assert controller.counters == {"observation": 3}


def test_a_batch_of_another_size_holds_other_rows(policy, planner, observe):
    named = Named(planner())
    controller = Controller(policy, named)
    for batch, resets in ((3, 0), (3, 0), (2, 1), (3, 2)):
        controller.decide(observe(batch), np.arange(batch))
        assert named.resets == resets


def test_a_planner_that_forgets_between_decisions_needs_no_names(policy, planner, observe):
    plans = planner()
    assert not isinstance(plans, RowPlanner)
    controller = Controller(policy, plans)
    for batch in (3, 2):
        assert not controller.decide(observe(batch, [1]), np.arange(batch)).overridden[1]
    assert plans.resets == 0


def test_the_planners_that_remember_say_so(spec):
    def build(name, **options) -> Planner:
        return PRESETS[name](Walking(), Nearer(), action_spec=spec, **options)

    for planner, kind in (
        (build("forethought", depth=2, reuse=True), TreeReuse),
        (build("forethought", gate_spread=0.1), Gate),
        (build("icem"), SequenceSearch),
    ):
        assert isinstance(planner, kind)
        assert isinstance(planner, RowPlanner)
    assert not isinstance(build("forethought"), RowPlanner)
    assert not isinstance(build("best_of_n"), RowPlanner)
