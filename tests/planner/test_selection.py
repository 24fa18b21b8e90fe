"""Selection rules and the tree's arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from planner_fakes import ARM

from forethought.planner import (
    DensityUcb,
    KernelRegression,
    LatentPool,
    MaximumBackup,
    MeanBackup,
    ProgressiveWidening,
    Puct,
    SequentialHalving,
    TemporalDifferenceMix,
    Tree,
)
from forethought.planner.selection import Siblings, completed_value, halving_schedule
from forethought.planner.tree import finite_rows


def siblings(value, visits, prior, own=0.5, chunks=None) -> Siblings:
    count = len(value)
    tree = Tree(1, 2, 3, 7)
    nodes = tree.add_children(np.array([0]), np.array([0]), count)[0]
    tree.own[0, 0] = own
    tree.value[0, nodes] = value
    tree.visits[0, nodes] = visits
    tree.prior[0, nodes] = np.asarray(prior) / np.sum(prior)
    if chunks is not None:
        tree.chunk[0, nodes] = chunks
    return Siblings(tree, np.array([0]), np.array([0]), np.array([3]))


class TestRules:
    def test_puct_is_its_formula(self):
        s = siblings([0.2, 0.6, 0.4], [2, 1, 5], [0.5, 0.2, 0.3])
        expected = np.array([0.0, 1.0, 0.5]) + 1.25 * np.array([0.5, 0.2, 0.3]) * np.sqrt(8) / np.array(
            [3, 2, 6]
        )
        np.testing.assert_allclose(Puct(1.25)(s)[0], expected)

    def test_virtual_visits_count_as_visits(self):
        s = siblings([0.5, 0.5], [1, 1], [1, 1])
        tree = s._tree
        tree.pending[0, 1] = 3
        again = Siblings(tree, np.array([0]), np.array([0]), np.array([3]))
        assert again.visits[0].tolist() == [4, 1]
        assert Puct()(again)[0].argmax() == 1

    def test_a_child_without_a_value_gets_the_mixed_one(self):
        s = siblings([0.9, np.nan, 0.3], [3, 0, 1], [0.4, 0.4, 0.2], own=0.5)
        average = (0.4 * 0.9 + 0.2 * 0.3) / 0.6
        np.testing.assert_allclose(completed_value(s)[0], [0.9, (0.5 + 4 * average) / 5, 0.3])

    def test_disqualified_children_score_minus_infinity(self):
        for rule in (Puct(), DensityUcb(), SequentialHalving(16)):
            score = rule(siblings([0.2, -np.inf, 0.1], [1, 0, 1], [1, 1, 1]))[0]
            assert np.isneginf(score[1])
            assert np.isfinite(score[[0, 2]]).all()

    def test_density_counts_as_visits(self):
        """Equal values: the candidate with the least density is looked at first; real visits do not
        matter."""
        a = DensityUcb(1.0)(siblings([0.5, 0.5, 0.5], [1, 9, 1], [0.6, 0.3, 0.1]))[0]
        b = DensityUcb(1.0)(siblings([0.5, 0.5, 0.5], [1, 1, 1], [0.6, 0.3, 0.1]))[0]
        np.testing.assert_array_equal(a, b)
        assert a[2] > a[1] > a[0]
        count = 1.0 + 3.0 * np.array([0.6, 0.3, 0.1])
        np.testing.assert_allclose(a, 0.5 + np.sqrt(np.log(count.sum()) / count))

    def test_halving_visits_the_better_half_twice_as_often(self):
        value = np.linspace(0.0, 1.0, 8)
        visits = np.ones(8, int)
        for _ in range(24):
            s = siblings(value, visits, np.ones(8))
            visits[SequentialHalving(32)(s)[0].argmax()] += 1
        assert visits.sum() == 32
        assert visits[:4].tolist() == [1] * 4
        assert (np.diff(visits) >= 0).all()
        assert visits[-1] == visits[-2] > visits[-3] > visits[-5]

    def test_halving_goes_on_beyond_its_schedule_and_favours_the_best(self):
        visits = np.ones(4, int)
        for _ in range(40):
            visits[SequentialHalving(8)(siblings([0.1, 0.2, 0.9, 0.5], visits, np.ones(4)))[0].argmax()] += 1
        assert visits.sum() == 44
        assert visits.argmax() == 2

    @pytest.mark.parametrize("children", [1, 2, 3, 8, 32])
    @pytest.mark.parametrize("simulations", [1, 2, 31, 64, 257])
    def test_a_schedule_starts_with_every_child_once(self, children, simulations):
        schedule = halving_schedule(children, simulations)
        assert schedule.size == simulations
        assert (schedule[:children] == 0).all()
        assert (np.diff(schedule) >= 0).all()
        # Nobody is asked for visits that at least two children (or the only one) do not get.
        for visits in range(1, schedule[-1] + 1):
            assert (schedule == visits - 1).sum() >= min(2, children)

    def test_gumbel_noise_reorders_by_seed_only(self):
        def order(seed, scale):
            s = siblings(np.full(8, 0.5), np.ones(8), np.ones(8))
            s.seeds = np.array([seed])
            return SequentialHalving(16, gumbel_scale=scale)(s)[0]

        np.testing.assert_array_equal(order(1, 0.0), order(2, 0.0))
        np.testing.assert_array_equal(order(1, 1.0), order(1, 1.0))
        assert not np.array_equal(order(1, 1.0), order(2, 1.0))

    def test_kernel_regression_lends_an_unseen_child_its_neighbours_value(self):
        chunks = np.zeros((4, 3, 7), np.float32)
        chunks[:, :, 0] = np.array([0.0, 0.01, 0.9, 0.9])[:, None]
        chunks[:, :, 6] = np.array([1.0, 1.0, 1.0, -1.0])[:, None]

        seen = []

        def spy(s):
            seen.append((s.value.copy(), s.visits.copy()))
            return np.zeros_like(s.value)

        KernelRegression(spy, ARM, 0.05)(
            siblings([0.8, np.nan, 0.1, np.nan], [4, 0, 2, 0], np.ones(4), chunks=chunks)
        )
        value, visits = seen[0][0][0], seen[0][1][0]
        assert value[0] == pytest.approx(0.8, abs=1e-6)
        assert value[1] == pytest.approx(0.8, abs=1e-6)
        assert visits[1] == pytest.approx(4.0, rel=0.05)
        assert np.isnan(value[3])

    def test_widening_opens_children_with_the_root_of_the_visits(self):
        opened = ProgressiveWidening(1.0, 0.5)(np.array([0, 1, 2, 4, 5, 9, 10]))
        assert opened.tolist() == [1, 1, 2, 2, 3, 3, 4]


class TestBackup:
    def test_the_mix_weighs_tree_and_value_by_beta(self):
        own, child, visits = np.array([0.4]), np.array([[0.2, 0.8, -np.inf]]), np.array([[3, 1, 0]])
        assert TemporalDifferenceMix(0.25)(own, child, visits, 0.9)[0] == pytest.approx(
            0.3 + 0.25 * 0.9 * 0.8
        )
        assert MaximumBackup()(own, child, visits, 0.9)[0] == pytest.approx(0.72)
        assert MeanBackup()(own, child, visits, 0.9)[0] == pytest.approx((0.4 + 0.9 * (0.6 + 0.8)) / 5)

    @pytest.mark.parametrize("backup", [TemporalDifferenceMix(), MaximumBackup(), MeanBackup()])
    def test_a_parent_whose_children_are_all_out_keeps_its_own_score(self, backup):
        assert backup(np.array([0.4]), np.full((1, 2), -np.inf), np.zeros((1, 2), int), 0.9)[0] == 0.4


class TestTree:
    def test_children_are_contiguous_and_survive_growth(self):
        tree = Tree(2, 3, 2, 7)
        first = tree.add_children(np.array([0, 1]), np.array([0, 0]), 2)
        tree.chunk[:, 1:3] = 0.5
        tree.value[0, 1] = 0.25
        second = tree.add_children(np.array([1]), np.array([2]), 50)
        assert first.tolist() == [[1, 2], [1, 2]]
        assert second[0, 0] == 3
        assert tree.size.tolist() == [3, 53]
        assert tree.value[0, 1] == 0.25
        assert (tree.chunk[:, 1:3] == 0.5).all()
        assert (tree.parent[1, second[0]] == 2).all()
        assert (tree.depth[1, second[0]] == 2).all()
        assert (tree.latent[1, second[0]] == -1).all()
        assert tree.known().sum(axis=1).tolist() == [3, 53]
        np.testing.assert_array_equal(tree.children(np.array([1]), np.array([2])), second)

    def test_children_are_opened_one_by_one_in_the_places_kept_for_them(self):
        tree = Tree(2, 3, 2, 7)
        tree.add_children(np.array([0, 1]), np.array([0, 0]), 2)
        tree.add_children(np.array([0, 1]), np.array([1, 2]), 0, reserved=4)
        for place in range(3):
            assert tree.open_child(np.array([1]), np.array([2])).tolist() == [place]
        assert tree.open_child(np.array([0]), np.array([1])).tolist() == [0]
        assert tree.size.tolist() == [7, 7]
        assert tree.children(np.array([1]), np.array([2])).tolist() == [[3, 4, 5]]
        assert np.flatnonzero(tree.known()[0]).tolist() == [0, 1, 2, 3]
        assert (tree.parent[1, 3:6] == 2).all()
        assert (tree.depth[1, 3:6] == 2).all()
        assert np.isnan(tree.value[1, 3:6]).all()

    @pytest.mark.parametrize("kind", ["torch", "array", "object"])
    def test_the_pool_returns_what_it_was_given_also_after_growing(self, kind):
        def make(numbers):
            if kind == "torch":
                return torch.tensor(numbers, dtype=torch.float32)[:, None]
            if kind == "array":
                return np.array(numbers, np.float32)[:, None]
            packed = np.empty(len(numbers), object)
            packed[:] = [str(number) for number in numbers]
            return packed

        pool = LatentPool(make([0, 1]), 2)
        assert (pool.take(np.array([1])) == make([1])).all()
        slots = [pool.add(make(list(range(10 * i, 10 * i + 3)))) for i in range(5)]
        taken = pool.take(np.array([slots[4] + 2, slots[0] + 1]))
        expected = make([42, 1])
        assert type(taken) is type(expected)
        assert (taken == expected).all()

    @pytest.mark.parametrize("kind", ["tensor", "array"])
    def test_a_pool_shows_compiled_loops_the_numbers_of_its_slots(self, kind):
        def make(first: float):
            array = np.full((2, 3, 2), first, np.float32) + np.arange(2, dtype=np.float32)[:, None, None]
            return torch.from_numpy(array) if kind == "tensor" else array

        pool = LatentPool(make(0.0), 1)
        for first in (2.0, 4.0):
            pool.add(make(first))
        assert pool.numbers.shape[1] == 6
        assert (pool.numbers[: pool.used] == np.arange(6.0)[:, None]).all()
        restored = pool.latents(pool.numbers[[3, 2]])
        assert type(restored) is type(make(0.0))
        assert (restored == make(2.0)[[1, 0]]).all()
        assert not LatentPool(np.array(["state"], object), 1).numbers.size

    def test_rows_that_are_not_finite_are_found(self):
        array = np.zeros((3, 2, 2))
        array[1, 0, 1] = np.nan
        assert finite_rows(array).tolist() == [True, False, True]
        assert finite_rows(torch.from_numpy(array)).tolist() == [True, False, True]
        assert finite_rows(np.empty(2, object)).all()

    @pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16"])
    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    def test_wherever_they_are_and_however_large_the_others(self, kind, wrong):
        tensor = torch.full((4, 3, 37), 3e38, dtype=getattr(torch, kind))
        tensor[0, 2, 36], tensor[2, 0, 0] = wrong, wrong
        expected = [False, True, False, True]
        assert finite_rows(tensor).tolist() == expected
        assert finite_rows(tensor.requires_grad_()).tolist() == expected
        if kind != "bfloat16":
            assert finite_rows(tensor.detach().numpy()).tolist() == expected
            assert finite_rows(tensor.detach().numpy()[:, :, ::2]).tolist() == expected
        assert finite_rows(torch.zeros((3, 0))).all()

    def test_a_pool_keeps_numbers_that_numpy_does_not_know(self):
        latents = torch.tensor([[1.5], [2.5], [-3.0]], dtype=torch.bfloat16)
        pool = LatentPool(latents, 1)
        pool.add(latents[:1])
        assert pool.add(latents.requires_grad_()) == 4
        taken = pool.take(np.array([6, 3]))
        assert taken.dtype == torch.bfloat16
        assert taken.flatten().tolist() == [-3.0, 1.5]
