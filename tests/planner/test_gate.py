"""The gate: who is searched, why, and that nobody notices his neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fakes import ARM, LINE, ArmWorld, FunctionReward, FunctionWorld, NearTarget, arm_planner, observe

from forethought.interfaces import ActionSamples, ForethoughtError, Planner
from forethought.planner import Gate, StateValue, TreeReuse, best_of_n, forethought
from forethought.planner.chunk_space import ChunkSpace
from forethought.planner.gate import gripper_dissent, sample_spread
from forethought.planner.noise import normals, stream_keys


def scattered(spreads, n=8, seed=0, grippers=0) -> ActionSamples:
    """Samples that scatter like kernels of these bandwidths; the last ``grippers`` of a row invert theirs."""
    space = ChunkSpace(ARM, 8)
    rows = []
    for row, spread in enumerate(spreads):
        rng = np.random.default_rng([seed, row])
        centre = np.repeat(rng.uniform(-0.2, 0.2, (1, 8, 7)), n, axis=0)
        centre[..., 6] = 1.0
        centre[n - grippers :, 4:, 6] = -1.0
        rows.append(space.perturb(centre, spread * rng.normal(size=(n, 48)), np.zeros((n, 1), bool)))
    return ActionSamples(np.stack(rows))


def gated(planner=None, **options) -> Gate:
    planner = arm_planner("forethought") if planner is None else planner
    return Gate(planner, ARM, StateValue(ArmWorld(), NearTarget()), **options)


START = observe(np.zeros((3, 7)))
SEEDS = np.array([1, 2, 3])


class TestDisagreement:
    def test_rows_whose_samples_agree_keep_the_policy_and_cost_nothing(self):
        samples = scattered([0.01, 0.2, 0.01])
        decision = gated(spread=0.05).plan(START, samples, SEEDS)
        assert decision.simulations.tolist() == [0, 32, 0]
        assert decision.reason[0].startswith("policy: not searched, samples agree within 0.0")
        assert "(searched: samples spread by 0." in decision.reason[1]
        np.testing.assert_array_equal(decision.chunk[[0, 2]], samples.chunks[[0, 2], 0])
        assert not decision.overridden[[0, 2]].any()
        assert not decision.fallback.any()

    def test_the_value_of_a_row_that_is_not_searched_is_its_states(self):
        decision = gated(spread=0.05).plan(START, scattered([0.01] * 3), SEEDS)
        expected = np.exp(-3 * 0.4**2)
        np.testing.assert_allclose(decision.value, expected, rtol=1e-6)
        np.testing.assert_allclose(decision.policy_value, expected, rtol=1e-6)
        assert decision.candidates is None

    def test_a_searched_row_decides_as_it_would_without_the_gate(self):
        samples = scattered([0.2, 0.01, 0.3])
        decision = gated(spread=0.05).plan(START, samples, SEEDS)
        plain = arm_planner("forethought").plan(START, samples, SEEDS)
        for name in ("chunk", "slot", "value", "policy_value", "overridden", "simulations"):
            np.testing.assert_array_equal(getattr(decision, name)[[0, 2]], getattr(plain, name)[[0, 2]])
        for name in ("chunks", "value", "visits", "prior", "source"):
            np.testing.assert_array_equal(
                getattr(decision.candidates, name)[[0, 2]], getattr(plain.candidates, name)[[0, 2]]
            )
        assert not decision.candidates.visits[1].any()
        assert np.isnan(decision.candidates.value[1]).all()
        assert decision.candidates.prior[1].tolist() == [1.0] + [0.0] * 31

    def test_a_row_whose_own_chunk_is_not_finite_is_searched_and_says_why(self):
        samples = scattered([0.01, 0.01, 0.01])
        samples.chunks[1, 0, 2] = np.nan
        decision = gated().plan(START, samples, SEEDS)
        assert "no finite chunk" in decision.reason[1]
        assert "agree" in decision.reason[0]
        assert decision.fallback.tolist() == [False, True, False]

    def test_samples_that_differ_in_the_gripper_disagree(self):
        samples = scattered([0.01], grippers=2)
        one = observe(np.zeros((1, 7)))
        for dissent, simulations in ((0.25, 32), (0.3, 0), (None, 0)):
            decision = gated(spread=0.05, dissent=dissent).plan(one, samples, SEEDS[:1])
            assert decision.simulations[0] == simulations
        assert "25 % of the samples" in gated().plan(one, samples, SEEDS[:1]).reason[0]

    def test_a_single_sample_says_nothing_about_agreement(self):
        samples = ActionSamples(scattered([0.01] * 3).chunks[:, :1])
        decision = gated().plan(START, samples, SEEDS)
        assert (decision.simulations == 32).all()
        assert "too few samples" in decision.reason[0]

    @settings(max_examples=25, deadline=None)
    @given(width=st.floats(1e-3, 0.5), horizon=st.integers(1, 8), shared=st.floats(0.0, 0.95))
    def test_the_spread_of_a_kernels_samples_is_its_bandwidth(self, width, horizon, shared):
        space = ChunkSpace(ARM, horizon, shared)
        white = normals(stream_keys(np.array([1]), 0), 400 * space.dimension).reshape(1, 400, -1) * width
        centre = np.zeros((1, 400, horizon, 7))
        centre[..., space.continuous] = 1e-3 * space.deviation(white)  # far inside the bounds
        np.testing.assert_allclose(sample_spread(centre, space), 1e-3 * width, rtol=0.06)

    def test_few_samples_do_not_look_closer_than_many(self):
        space = ChunkSpace(ARM, 8)
        spread = [sample_spread(scattered([0.05] * 300, n=n).chunks, space) for n in (2, 16)]
        assert np.sqrt((spread[0] ** 2).mean()) == pytest.approx(np.sqrt((spread[1] ** 2).mean()), rel=0.03)

    def test_spread_and_dissent_of_actions_without_these_parts_are_nothing(self):
        line = ChunkSpace(LINE, 2)
        assert gripper_dissent(np.zeros((2, 3, 2, 1)), line).tolist() == [0.0, 0.0]
        assert np.isnan(sample_spread(np.zeros((1, 1, 2, 1)), line)).all()


class TestDrop:
    def test_the_first_decision_is_searched_and_later_ones_only_when_the_value_falls(self):
        gate = gated(spread=None, drop=0.05)
        samples = scattered([0.2])
        seen = []
        for place in (0.0, 0.1, 0.3, 0.0, 0.0):
            seen.append(gate.plan(observe(np.full((1, 7), place)), samples, SEEDS[:1]))
        assert [int(decision.simulations[0]) for decision in seen] == [32, 0, 0, 32, 0]
        assert "first decision" in seen[0].reason[0]
        assert "value fell by 0." in seen[3].reason[0]
        assert seen[1].reason[0] == "policy: not searched, value fell by no more than 0.05"

    def test_a_new_episode_begins_with_a_search(self):
        gate = gated(spread=None, drop=0.05)
        samples = scattered([0.2, 0.2])
        two = observe(np.zeros((2, 7)))
        plan = lambda: gate.plan(two, samples, SEEDS[:2]).simulations.tolist()  # noqa: E731
        assert plan() == [32, 32]
        assert plan() == [0, 0]
        gate.reset([1])
        assert plan() == [0, 32]
        gate.reset()
        assert plan() == [32, 32]

    def test_either_reason_is_enough(self):
        gate = gated(spread=0.05, drop=0.05)
        one = observe(np.zeros((1, 7)))
        spent = [gate.plan(one, scattered([width]), SEEDS[:1]) for width in (0.01, 0.01, 0.2)]
        assert [int(decision.simulations[0]) for decision in spent] == [32, 0, 32]
        assert "samples agree" in spent[1].reason[0] and "no more than" in spent[1].reason[0]


class TestFailures:
    def test_what_is_not_finite_is_left_to_the_planner(self):
        samples, states = scattered([0.01] * 3), np.zeros((3, 7))
        samples.chunks[1, 0] = np.nan
        states[2] = np.nan
        decision = gated().plan(observe(states), samples, SEEDS)
        assert decision.fallback.tolist() == [False, True, True]
        assert np.isfinite(decision.value[0])
        assert np.isnan(decision.chunk[1]).all()
        np.testing.assert_array_equal(decision.chunk[2], samples.chunks[2, 0])

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_a_value_that_is_not_finite_does_not_stay_unsearched(self, bad):
        reward = FunctionReward(lambda s: np.where(s[:, 0] == 0.0, bad, 0.5))
        world = FunctionWorld(lambda s, c: s + 1.0)
        planner = forethought(world, reward, action_spec=ARM)
        gate = Gate(planner, ARM, StateValue(world, reward))
        decision = gate.plan(observe(np.zeros((1, 7))), scattered([0.01]), SEEDS[:1])
        assert decision.simulations[0] == 32
        assert "no finite value" in decision.reason[0]

    def test_every_value_is_finite_where_nothing_fell_back(self):
        decision = gated(drop=0.01).plan(START, scattered([0.01, 0.2, 0.01]), SEEDS)
        assert np.isfinite(decision.value).all()
        assert np.isfinite(decision.policy_value).all()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"spread": None}, "needs spread or drop"),
            ({"spread": -0.1}, "negative"),
            ({"spread": float("nan")}, "negative"),
            ({"drop": -0.1}, "negative"),
            ({"dissent": 0.0}, "share"),
            ({"shared": 1.0}, "shared"),
        ],
    )
    def test_settings_that_cannot_work_are_refused(self, options, words):
        with pytest.raises(ForethoughtError, match=words):
            gated(**options)


class TestComposition:
    def test_any_planner_can_be_gated(self):
        inner = best_of_n(ArmWorld(), NearTarget(), action_spec=ARM, n=5)
        gate = gated(inner)
        assert isinstance(gate, Planner)
        assert gate.n == 5
        assert getattr(gated(), "n", 8) == 8
        assert gate.plan(START, scattered([0.01, 0.2, 0.01]), SEEDS).simulations.tolist() == [0, 5, 0]

    def test_a_planner_with_memory_is_told_which_rows_it_plans_for(self):
        search = arm_planner("forethought", simulations=64, depth=2)
        gate = gated(TreeReuse(search))
        first = gate.plan(START, scattered([0.2, 0.2, 0.2]), SEEDS)
        states = first.chunk.astype(np.float64).mean(axis=1)
        second = gate.plan(observe(states), scattered([0.01, 0.01, 0.2]), SEEDS)
        source = second.candidates.source_names.index("inherited")
        assert ((second.candidates.source == source).sum(axis=1) > 0).tolist() == [False, False, True]
        gate.reset()
        assert not gate.planner._kept

    def test_one_row_can_be_reset_alone_and_a_planner_without_rows_forgets_everything(self):
        inner = arm_planner("icem", simulations=40, depth=2)
        gate = gated(inner)
        gate.plan(START, scattered([0.2, 0.2, 0.2]), SEEDS)
        gate.reset([1])
        assert sorted(inner._carried.rows) == [0, 2]

        class Forgetting:
            resets = 0

            def plan(self, *_):
                raise AssertionError

            def reset(self):
                self.resets += 1

        plain = Forgetting()
        gated(plain).reset([1])
        assert plain.resets == 1

    def test_two_rows_of_one_name_are_refused(self):
        with pytest.raises(ForethoughtError, match="distinct"):
            gated().plan_rows(START, scattered([0.2, 0.2, 0.2]), SEEDS, np.array([1, 1, 2]))

    def test_the_preset_builds_it(self):
        options = {"action_spec": ARM, "simulations": 40, "depth": 2}
        gate = forethought(ArmWorld(), NearTarget(), reuse=True, gate_spread=0.1, gate_drop=0.2, **options)
        assert isinstance(gate, Gate) and isinstance(gate.planner, TreeReuse)
        assert (gate.spread, gate.drop) == (0.1, 0.2)
        assert type(forethought(ArmWorld(), NearTarget(), **options)).__name__ == "TreeSearch"


@settings(max_examples=25, deadline=None)
@given(
    spreads=st.lists(st.sampled_from([0.01, 0.2]), min_size=4, max_size=4),
    rows=st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True),
    drop=st.sampled_from([None, 0.01]),
)
def test_a_row_does_not_depend_on_its_neighbours(spreads, rows, drop):
    def episode(names):
        gate, decisions = gated(arm_planner("forethought", simulations=8), drop=drop), []
        for index in range(3):
            states = np.random.default_rng(index).uniform(-0.5, 0.5, (4, 7))
            samples = ActionSamples(scattered(np.roll(spreads, index), seed=index).chunks[names])
            decisions.append(gate.plan_rows(observe(states[names]), samples, 10 * index + names, names))
        return decisions

    whole, part = episode(np.arange(4)), episode(np.asarray(rows))
    for one, other in zip(whole, part):
        for name in ("chunk", "value", "simulations", "slot"):
            np.testing.assert_array_equal(getattr(one, name)[rows], getattr(other, name))
        assert [one.reason[row] for row in rows] == list(other.reason)
