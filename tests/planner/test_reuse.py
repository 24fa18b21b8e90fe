"""The tree that came true is kept, anything else is forgotten, and no row hears of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fakes import (
    ARM,
    ArmWorld,
    FixedMemory,
    FunctionWorld,
    NearTarget,
    policy_samples,
)

from forethought.interfaces import ForethoughtError, Observation, Planner, Prediction
from forethought.planner import TreeReuse, forethought, latent_distance

SEED = np.array([0])


def arm_transition(state, chunks):
    return state + 0.1 * chunks.astype(np.float64).mean(axis=1)


def reusing(world=None, *, tolerance=2.0, **options):
    options = {"simulations": 64, "depth": 3, "children": 16, "memory": FixedMemory()} | options
    world = FunctionWorld(arm_transition) if world is None else world
    search = forethought(world, NearTarget(), action_spec=ARM, **options)
    return TreeReuse(search, tolerance=tolerance)


def inherited(decision, row=0) -> int:
    """Number of candidates that come from the tree before."""
    candidates = decision.candidates
    return int((candidates.source[row] == candidates.source_names.index("inherited")).sum())


def step(planner, state, index=0, rows=None):
    """Plan from states ``[B, 7]`` with the seeds of the ``index``-th decision; the states that follow."""
    names = np.arange(len(state)) if rows is None else np.asarray(rows)
    samples = policy_samples(ARM, 10, 6, 8, seed=index)
    samples = type(samples)(samples.chunks[names])
    observation = Observation({}, state, tuple(f"task {name}" for name in names))
    seeds = 100 * index + names
    decision = (
        planner.plan(observation, samples, seeds)
        if rows is None
        else planner.plan_rows(observation, samples, seeds, names)
    )
    return decision, arm_transition(state, decision.chunk)


class TestWhatIsKept:
    def test_a_prediction_that_came_true_gives_the_next_root_its_candidates(self):
        planner = reusing()
        first, state = step(planner, np.zeros((1, 7)))
        second, _ = step(planner, state, 1)
        assert isinstance(planner, Planner)
        assert inherited(first) == 0
        assert 1 <= inherited(second) <= 7
        assert second.candidates.chunks.shape == first.candidates.chunks.shape
        assert second.candidates.source[0, 0] == 0
        np.testing.assert_allclose(second.candidates.prior.sum(axis=1), 1.0, rtol=1e-5)

    def test_what_is_inherited_costs_nothing_and_keeps_its_values(self):
        world = FunctionWorld(arm_transition)
        planner = reusing(world, simulations=200, depth=2)  # enough for all of both trees
        _, state = step(planner, np.zeros((1, 7)))
        before = set(world.asked)
        calls = len(world.calls)
        decision, _ = step(planner, state, 1)
        kept = inherited(decision)
        assert kept == 7
        assert world.calls[calls] == 16 - kept
        assert decision.simulations[0] == sum(world.calls[calls:]) == 16 - kept + 16 * 8
        chunks = decision.candidates.chunks[0]
        for slot in np.flatnonzero(decision.candidates.source[0] == 3):
            asked = [chunk for _, chunk in before if chunk == chunks[slot].tobytes()]
            assert len(asked) == 1

    @pytest.mark.parametrize("depth", [2, 3, 4])
    @pytest.mark.parametrize("backup", ["td_mix", "max", "mean"])
    def test_the_grafted_tree_is_a_tree(self, depth, backup):
        planner = reusing(depth=depth, backup=backup, simulations=90, wave=3)
        state = np.zeros((2, 7))
        total = 0
        for index in range(4):
            decision, state = step(planner, state, index)
            runs = {id(kept.subtree.tree): kept.subtree for kept in planner._kept.values()}
            for subtree in runs.values():
                check_tree(subtree.tree, planner.search)
            total += inherited(decision, 0) + inherited(decision, 1)
        assert total > 0

    def test_what_had_ended_or_was_disqualified_stays_so(self):
        def broken(state):
            digit = (np.abs(state[:, 1]) * 1e5).astype(int) % 4
            return np.where(digit == 0, np.nan, 0.0)

        world = FunctionWorld(
            lambda s, c: arm_transition(s, c),
            done=lambda s: (s[:, 0] > 0.03).astype(float),
            disagreement=broken,
        )
        planner, state = reusing(world, depth=4, simulations=150, children=8, memory=None), np.zeros((4, 7))
        ended = out = total = 0
        for index in range(4):
            decision, state = step(planner, state, index)
            total += sum(inherited(decision, row) for row in range(4))
            for subtree in {id(kept.subtree.tree): kept.subtree for kept in planner._kept.values()}.values():
                check_tree(subtree.tree, planner.search)
                ended += (subtree.tree.done == 1.0).sum()
                out += np.isneginf(subtree.tree.own).sum()
        assert min(total, ended, out) > 0

    def test_a_branch_whose_every_end_is_known_stays_closed(self):
        """Every third chunk ends the episode: below what is inherited nothing is left to evaluate."""

        def count(state, chunks):
            return np.concatenate([arm_transition(state[:, :7], chunks), state[:, 7:] + 1.0], axis=1)

        world = FunctionWorld(count, done=lambda state: (state[:, 7] >= 3.0).astype(float))
        options = {"depth": 4, "children": 6, "inner_children": 2, "memory": None, "backup": "max"}
        # More simulations than both trees have nodes; a search that did not notice would stop at the clock.
        planner = reusing(world, simulations=60, milliseconds=20_000, **options)
        first = planner.plan(Observation({}, np.zeros((1, 8)), ("task",)), policy_samples(ARM, 1, 6, 8), SEED)
        state = count(np.zeros((1, 8)), first.chunk)
        second = planner.plan(Observation({}, state, ("task",)), policy_samples(ARM, 1, 6, 8, seed=1), SEED)
        kept = inherited(second)
        assert kept == 2
        # New: the other candidates and their two chunks each; of the inherited nothing, though they lie
        # three chunks above the longest sequence.
        assert second.simulations[0] == (6 - kept) * (1 + 2)
        for remembered in planner._kept.values():
            check_tree(remembered.subtree.tree, planner.search)

    @pytest.mark.parametrize(("children", "most"), [(9, 4), (10, 4), (3, 1), (2, 0)])
    def test_at_most_half_of_the_slots_beside_the_policys_are_inherited(self, children, most):
        planner = reusing(children=children, simulations=80, depth=2)
        _, state = step(planner, np.zeros((1, 7)))
        decision, _ = step(planner, state, 1)
        assert inherited(decision) == most

    def test_a_reused_tree_decides_at_least_as_well_on_the_whole(self):
        """Equal budgets: what is inherited is known beside what is searched now."""
        gain = []
        for seed in range(12):
            state = np.random.default_rng(seed).uniform(-0.3, 0.3, (1, 7))
            planner = reusing(depth=2, backup="max", memory=None, simulations=32, children=8)
            _, state = step(planner, state, seed)
            with_reuse, _ = step(planner, state, seed + 50)
            planner.reset()
            without, _ = step(planner, state, seed + 50)
            gain.append(with_reuse.value[0] - without.value[0])
        assert np.mean(gain) > 0.0


def check_tree(tree, search):
    """Links, counts, values and closedness of every node agree with its children's."""
    discount = search.scoring.discount**8
    for row, known in enumerate(tree.known()):
        for node in np.flatnonzero(known).tolist():
            first, count = int(tree.first_child[row, node]), int(tree.child_count[row, node])
            assert tree.pending[row, node] == 0
            if node:
                assert tree.depth[row, node] == tree.depth[row, tree.parent[row, node]] + 1
                assert tree.depth[row, node] <= search.depth
            if tree.own[row, node] == -np.inf or tree.done[row, node] >= search.scoring.terminal:
                assert tree.closed[row, node]
                assert first < 0
            if first < 0:
                continue
            children = np.arange(first, first + count)
            assert (tree.parent[row, children] == node).all()
            np.testing.assert_allclose(tree.prior[row, children].sum(), 1.0)
            assert node == 0 or 0 < count <= search.inner_children
            seen = np.isfinite(tree.value[row, children])
            assert tree.visits[row, node] == (node > 0) + tree.visits[row, children].sum()
            assert (tree.latent[row, children[seen]] >= 0).all()
            if node or np.isfinite(tree.value[row, 1]):  # a row without a value for the policy is closed
                whole = node == 0 or count == search.inner_children
                assert tree.closed[row, node] == (whole and tree.closed[row, children].all())
            if node:
                backed = search.backup(
                    tree.own[row, [node]],
                    np.where(seen, tree.value[row, children], -np.inf)[None],
                    np.where(seen, tree.visits[row, children], 0)[None],
                    discount,
                )[0]
                done = tree.done[row, node]
                np.testing.assert_allclose(tree.value[row, node], done + (1 - done) * backed)


class TestWhatIsForgotten:
    def second(self, planner, change=0.0, instruction=None, world=None):
        _, state = step(planner, np.zeros((1, 7)))
        observation = Observation({}, state + change, ("task 0" if instruction is None else instruction,))
        return planner.plan(observation, policy_samples(ARM, 1, 6, 8, seed=1), np.array([100]))

    def test_another_state_than_the_predicted_one_starts_anew(self):
        missed = self.second(reusing(), change=0.01)
        assert inherited(missed) == 0
        fresh, _ = step(reusing().search, observe_state(missed), 1)
        for name in ("chunks", "source", "prior", "value", "visits"):
            np.testing.assert_array_equal(
                getattr(missed.candidates, name), getattr(fresh.candidates, name), err_msg=name
            )

    @pytest.mark.parametrize(("disagreement", "kept"), [(0.0, False), (0.1, False), (0.2, True)])
    def test_the_tolerance_is_in_units_of_the_ensembles_disagreement(self, disagreement, kept):
        world = FunctionWorld(arm_transition, disagreement=lambda s: np.full(len(s), disagreement))
        assert (inherited(self.second(reusing(world, tolerance=2.0), change=0.3)) > 0) is kept

    def test_another_task_starts_anew(self):
        assert inherited(self.second(reusing(), instruction="another")) == 0
        assert inherited(self.second(reusing(), instruction="task 0")) > 0

    def test_reset_forgets(self):
        planner = reusing()
        _, state = step(planner, np.zeros((1, 7)))
        planner.reset()
        assert inherited(step(planner, state, 1)[0]) == 0

    def test_one_row_can_be_reset_alone(self):
        planner = reusing()
        _, state = step(planner, np.zeros((2, 7)))
        planner.reset([0])
        decision, _ = step(planner, state, 1)
        assert inherited(decision, 0) == 0
        assert inherited(decision, 1) > 0

    def test_a_batch_of_another_size_has_other_rows(self):
        planner = reusing()
        _, state = step(planner, np.zeros((2, 7)))
        assert inherited(step(planner, state[:1], 1)[0]) == 0

    def test_rows_with_names_are_found_again_in_any_company(self):
        planner = reusing()
        _, state = step(planner, np.zeros((2, 7)), rows=[4, 7])
        later, _ = step(planner, state[1:], 1, rows=[7])
        assert inherited(later) > 0
        other, _ = step(planner, state[:1], 1, rows=[5])
        assert inherited(other) == 0
        with pytest.raises(ForethoughtError, match="distinct"):
            step(planner, state, 1, rows=[3, 3])

    def test_a_blend_of_two_chunks_is_not_what_was_imagined(self):
        planner = reusing(policy_weight=0.5)
        decision, _ = step(planner, np.zeros((1, 7)))
        assert decision.overridden[0]
        assert not planner._kept

    def test_a_decision_that_comes_too_late_is_not_remembered(self):
        planner = None

        def transition(state, chunks):
            planner.reset()
            return arm_transition(state, chunks)

        planner = reusing(FunctionWorld(transition))
        step(planner, np.zeros((1, 7)))
        assert not planner._kept

    def test_a_row_that_falls_back_is_not_remembered(self):
        planner = reusing()
        state = np.zeros((2, 7))
        state[1] = np.nan
        decision, _ = step(planner, state)
        assert decision.fallback.tolist() == [False, True]
        assert list(planner._kept) == [0]
        everything, _ = step(planner, np.full((2, 7), np.nan), 1)
        assert everything.fallback.all()
        assert not planner._kept

    @pytest.mark.parametrize(
        ("options", "words"), [({"depth": 1}, "depth >= 2"), ({"tolerance": -1.0}, "negative")]
    )
    def test_settings_that_cannot_work_are_refused(self, options, words):
        with pytest.raises(ForethoughtError, match=words):
            reusing(**options)

    def test_nothing_but_the_predicted_state_itself_may_be_asked_for(self):
        planner = TreeReuse(reusing().search, tolerance=0.0, exact=0.0)
        _, state = step(planner, np.zeros((1, 7)))
        assert inherited(step(planner, state, 1)[0]) > 0
        planner.reset()
        _, state = step(planner, np.zeros((1, 7)))
        assert inherited(step(planner, np.nextafter(state, 1.0), 1)[0]) == 0


def observe_state(decision):
    """The states from which ``TestWhatIsForgotten.second`` planned, with a change of 0.01."""
    _, state = step(reusing(), np.zeros((1, 7)))
    return state + 0.01


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True),
    jump=st.integers(0, 4),
    when=st.integers(1, 3),
    depth=st.integers(2, 3),
    wave=st.integers(1, 5),
)
def test_a_row_depends_on_its_own_history_alone(rows, jump, when, depth, wave):
    """Five rows together, some of them apart; one row starts a new episode on its own at some moment."""

    def episode(names):
        planner, state = reusing(depth=depth, wave=wave, simulations=40, children=12), start[names]
        decisions = []
        for index in range(4):
            if index == when:
                state = np.where((np.asarray(names) == jump)[:, None], start[names] + 0.5, state)
            decision, state = step(planner, state, index, rows=names)
            decisions.append(decision)
        return decisions

    start = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 7))
    together = episode(list(range(5)))
    for whole, part in zip(together, episode(rows)):
        for name in ("chunk", "value", "simulations", "slot"):
            np.testing.assert_array_equal(getattr(whole, name)[rows], getattr(part, name))
        for name in ("chunks", "source", "prior", "value", "visits"):
            np.testing.assert_array_equal(
                getattr(whole.candidates, name)[rows], getattr(part.candidates, name)
            )
    assert inherited(together[when], jump) == 0
    assert sum(inherited(together[when], row) > 0 for row in range(5) if row != jump) >= 3


def test_the_same_history_gives_the_same_decisions():
    def episode():
        planner, state, chunks = reusing(), np.zeros((2, 7)), []
        for index in range(4):
            decision, state = step(planner, state, index)
            chunks.append(decision.chunk)
        return np.stack(chunks)

    np.testing.assert_array_equal(episode(), episode())


class TestDistance:
    def test_it_is_the_root_mean_square_per_coordinate(self):
        one, other = np.zeros((2, 3, 4)), np.zeros((2, 3, 4))
        other[1] = 0.5
        other[1, 0, 0] = -0.5
        for kind in (np.asarray, torch.from_numpy):
            np.testing.assert_allclose(latent_distance(kind(one), kind(other)), [0.0, 0.5])

    def test_what_is_not_finite_or_of_another_shape_never_matches(self):
        one = np.zeros((1, 2))
        assert not latent_distance(one, np.full((1, 2), np.nan))[0] <= 1e9
        assert latent_distance(one, np.zeros((1, 3)))[0] == np.inf

    def test_snapshots_match_only_when_equal_in_every_number(self):
        @dataclass(frozen=True)
        class Snapshot:
            place: np.ndarray
            extra: dict

        def pack(number, extra=()):
            packed = np.empty(1, object)
            packed[0] = Snapshot(np.array([number, 1.0]), {"contacts": [1, (2, "a")], "more": extra})
            return packed

        assert latent_distance(pack(0.5), pack(0.5))[0] == 0.0
        assert latent_distance(pack(0.5), pack(np.nextafter(0.5, 1)))[0] == np.inf
        assert latent_distance(pack(0.5), pack(0.5, extra=(1,)))[0] == np.inf
        assert latent_distance(pack(0.5, extra=(1,)), pack(0.5, extra=[1]))[0] == np.inf
        assert latent_distance(pack(0.5, extra=(1,)), pack(0.5, extra=(1.0,)))[0] == np.inf

    @pytest.mark.parametrize("kind", ["tensor", "object"])
    def test_trees_over_tensors_and_snapshots_are_kept_too(self, kind):
        def pack(states):
            if kind == "tensor":
                return torch.from_numpy(np.asarray(states))
            packed = np.empty(len(states), object)
            packed[:] = [{"x": state} for state in states]
            return packed

        def unpack(latent):
            return latent.numpy() if kind == "tensor" else np.stack([state["x"] for state in latent])

        class World(ArmWorld):
            def encode(self, observation):
                return pack(observation.proprioception)

            def step(self, latent, chunks):
                zero = np.zeros(len(chunks))
                return Prediction(pack(arm_transition(unpack(latent), chunks)), zero, zero)

        class Reward(NearTarget):
            def score(self, latent, instruction):
                return super().score(unpack(latent), instruction)

        search = forethought(World(), Reward(), action_spec=ARM, simulations=64, depth=2)
        planner = TreeReuse(search)
        _, state = step(planner, np.zeros((2, 7)))
        decision, _ = step(planner, state, 1)
        assert inherited(decision, 0) > 0
        assert inherited(decision, 1) > 0
