"""The decision rule and what is executed when policy and search are blended."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fakes import (
    ARM,
    FunctionReward,
    FunctionWorld,
    add,
    line_samples,
    line_search,
    observe,
    policy_samples,
)
from scipy.spatial.transform import Rotation, Slerp

from forethought.interfaces import ActionSpec, ForethoughtError
from forethought.planner import Budget, DecisionRule
from forethought.planner.decision import RootStatistics, blend, vote
from forethought.planner.rotation import slerp, to_quaternion, to_vector


def root(value, visits=None, spread=None, closed=None, chunks=None) -> RootStatistics:
    value = np.atleast_2d(np.asarray(value, float))
    shape = value.shape
    return RootStatistics(
        chunks=policy_samples(ARM, shape[0], shape[1], 4).chunks if chunks is None else chunks,
        source=np.repeat(np.arange(shape[1])[None] > 0, shape[0], axis=0).astype(np.int8),
        source_names=("policy", "kernels"),
        value=value,
        spread=np.zeros(shape) if spread is None else np.atleast_2d(spread),
        visits=np.ones(shape, np.int32) if visits is None else np.atleast_2d(visits).astype(np.int32),
        closed=np.zeros(shape, bool) if closed is None else np.atleast_2d(closed),
    )


class TestChoice:
    def test_value_decides_and_not_visits(self):
        choice = DecisionRule(visit_fraction=0.25)(root([0.2, 0.5, 0.6], visits=[4, 9, 3]), ARM)
        assert choice.slot[0] == 2
        assert choice.reason == ("search: kernels is better by 0.400",)
        assert (choice.value[0], choice.policy_value[0]) == (np.float32(0.6), np.float32(0.2))

    def test_a_child_with_too_few_visits_is_passed_over_unless_nothing_is_left_below_it(self):
        options = {"value": [0.2, 0.5, 0.6], "visits": [4, 9, 2]}
        assert DecisionRule(visit_fraction=0.25)(root(**options), ARM).slot[0] == 1
        closed = root(**options, closed=[False, False, True])
        assert DecisionRule(visit_fraction=0.25)(closed, ARM).slot[0] == 2

    def test_the_policys_chunk_is_a_candidate_however_few_its_visits(self):
        assert DecisionRule()(root([0.9, 0.5], visits=[1, 50]), ARM).slot[0] == 0

    def test_the_margin_is_measured_against_the_policys_own_value(self):
        values = [[0.50, 0.52], [0.50, 0.54], [0.10, 0.05]]
        choice = DecisionRule(margin=0.03)(root(values), ARM)
        assert choice.overridden.tolist() == [False, True, False]
        assert "within the margin of 0.03" in choice.reason[0]
        assert choice.reason[2] == "policy: nothing is better"

    def test_the_lower_bound_prefers_what_is_certain(self):
        statistics = root([0.2, 0.6, 0.5], spread=[0.0, 0.4, 0.0])
        assert DecisionRule(confidence=0.0)(statistics, ARM).slot[0] == 1
        assert DecisionRule(confidence=1.0)(statistics, ARM).slot[0] == 2

    def test_disqualified_and_unseen_children_are_never_chosen(self):
        choice = DecisionRule(margin=0.0)(root([0.2, np.nan, -np.inf, 0.3], visits=[1, 0, 0, 1]), ARM)
        assert choice.slot[0] == 3

    @pytest.mark.parametrize("own", [np.nan, -np.inf])
    def test_without_a_value_for_the_policy_the_row_falls_back(self, own):
        choice = DecisionRule()(root([[own, 0.9], [0.1, 0.9]]), ARM)
        assert choice.fallback.tolist() == [True, False]
        assert choice.slot.tolist() == [0, 1]
        assert np.isnan(choice.value[0])

    @pytest.mark.parametrize(
        "options",
        [
            {"margin": -0.1},
            {"confidence": -1.0},
            {"visit_fraction": 1.5},
            {"policy_weight": 1.0},
            {"gripper_votes": 0},
        ],
    )
    def test_bad_settings_are_refused(self, options):
        with pytest.raises(ForethoughtError, match=next(iter(options))):
            DecisionRule(**options)


class TestInjection:
    def test_positions_are_linear_rotations_on_the_arc_and_the_gripper_is_the_chosen_ones(self):
        chunks = policy_samples(ARM, 2, 3, 4).chunks
        chunks[:, 0, :, 6], chunks[:, 1, :, 6] = -1.0, 1.0
        choice = DecisionRule(margin=0.0, policy_weight=0.6)(root([[0.1, 0.9, 0.0]] * 2, chunks=chunks), ARM)
        own, chosen = chunks[:, 0].astype(float), chunks[:, 1].astype(float)
        np.testing.assert_allclose(choice.chunk[..., :3], (0.6 * own + 0.4 * chosen)[..., :3], atol=1e-6)
        np.testing.assert_array_equal(choice.chunk[..., 6], 1.0)
        for row in range(2):
            for t in range(4):
                ends = Rotation.from_rotvec(0.5 * np.stack([own[row, t, 3:6], chosen[row, t, 3:6]]))
                expected = Slerp([0, 1], ends)(0.4).as_rotvec() / 0.5
                np.testing.assert_allclose(choice.chunk[row, t, 3:6], expected, atol=1e-5)

    def test_a_policy_that_is_kept_is_not_blended(self):
        statistics = root([0.9, 0.1])
        choice = DecisionRule(policy_weight=0.6)(statistics, ARM)
        np.testing.assert_array_equal(choice.chunk, statistics.chunks[:, 0])

    @settings(max_examples=50, deadline=None)
    @given(
        weight=st.floats(0.0, 0.99),
        votes=st.integers(1, 6),
        seed=st.integers(0, 1000),
        closed_value=st.sampled_from([1.0, 0.04]),
    )
    def test_a_binary_gripper_only_ever_takes_its_two_values(self, weight, votes, seed, closed_value):
        spec = ActionSpec(
            low=np.array([-1.0] * 6 + [0.0]),
            high=np.array([1.0] * 6 + [closed_value]),
            position=(0, 1, 2),
            rotation=(3, 4, 5),
            gripper=(6,),
        )
        rng = np.random.default_rng(seed)
        chunks = spec.clip(rng.uniform(-1, 1, (3, 5, 4, 7)).astype(np.float32))
        rule = DecisionRule(margin=0.0, policy_weight=weight, gripper_votes=votes)
        choice = rule(root(rng.uniform(size=(3, 5)), chunks=chunks), spec)
        assert set(np.unique(choice.chunk[..., 6])) <= {np.float32(0.0), np.float32(closed_value)}

    def test_the_best_children_outvote_the_chosen_one(self):
        chunks = np.full((1, 4, 1, 7), 0.0, np.float32)
        chunks[0, :, 0, 6] = [-1.0, -1.0, 1.0, 1.0]
        statistics = root([0.1, 0.9, 0.8, 0.7], chunks=chunks)
        for votes, gripper in ((1, -1.0), (2, -1.0), (3, 1.0), (4, -1.0)):
            rule = DecisionRule(margin=0.0, policy_weight=0.5, gripper_votes=votes)
            assert rule(statistics, ARM).chunk[0, 0, 6] == gripper

    def test_voters_that_are_out_have_no_vote(self):
        chunks = np.array([[[[1.0]], [[0.0]], [[0.0]]]], np.float32)
        for voters, expected in (([True, True, True], 0.0), ([True, True, False], 1.0)):
            assert vote(chunks, np.array([voters]), chunks[:, 0])[0, 0, 0] == expected

    def test_a_gripper_that_is_not_binary_is_blended_like_a_position(self):
        spec = ActionSpec(low=np.zeros(1), high=np.ones(1), gripper=(0,), gripper_is_binary=False)
        one, zero = np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)
        assert blend(zero, one, one, 0.75, spec)[0, 0, 0] == pytest.approx(0.25)


class TestRotation:
    def test_vectors_survive_the_quaternion(self):
        vectors = Rotation.random(200, rng=np.random.default_rng(0)).as_rotvec()
        vectors = np.concatenate([vectors, np.zeros((1, 3)), np.full((1, 3), 1e-9)])
        np.testing.assert_allclose(to_vector(to_quaternion(vectors)), vectors, atol=1e-9)

    def test_slerp_is_that_of_scipy(self):
        rng = np.random.default_rng(1)
        start, end = Rotation.random(100, rng=rng), Rotation.random(100, rng=rng)
        found = Rotation.from_rotvec(slerp(start.as_rotvec(), end.as_rotvec(), 0.3))
        for i in range(100):
            expected = Slerp([0, 1], Rotation.concatenate([start[i], end[i]]))(0.3)
            assert (expected.inv() * found[i]).magnitude() < 1e-7

    def test_equal_rotations_stay_where_they_are(self):
        vector = np.array([[0.3, -0.2, 0.1], [0.0, 0.0, 0.0]])
        np.testing.assert_allclose(slerp(vector, vector, 0.7), vector, atol=1e-12)


class OwnRule(DecisionRule):
    """Takes the way of rules that choose otherwise."""


@pytest.mark.parametrize("options", [{}, {"margin": 0.2}, {"visit_fraction": 1.0, "confidence": 1.0}])
def test_the_choice_from_trees_is_that_from_their_statistics(options):
    settings = {"depth": 2, "budget": Budget(simulations=24)}
    reward = FunctionReward(lambda s: np.where(s[:, 0] > 3.5, np.nan, 0.5 + 0.3 * np.sin(3.0 * s[:, 0])))
    start = observe([0.0, 0.4, 5.0]), line_samples(3), np.array([0, 1, 2])
    one, other = (
        line_search(FunctionWorld(add), reward, [0.0, 0.3, 0.6, 0.9], decision=rule, **settings).plan(*start)
        for rule in (DecisionRule(**options), OwnRule(**options))
    )
    assert one.fallback.tolist() == [False, False, True]
    assert one.reason == other.reason
    for name in ("chunk", "slot", "value", "policy_value", "overridden", "fallback", "simulations"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    for name in ("chunks", "source", "prior", "value", "visits"):
        np.testing.assert_array_equal(getattr(one.candidates, name), getattr(other.candidates, name))
        assert getattr(one.candidates, name).dtype == getattr(other.candidates, name).dtype
