"""Intervals and exact tests agree with hand-computed ones."""

from __future__ import annotations

import pytest

from forethought.experiments.evaluation.statistics import paired_comparison, wilson_interval


def test_wilson_interval_of_42_in_100():
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.959964
    assert wilson_interval(42, 100) == pytest.approx((0.32798, 0.51795), abs=1e-4)


def test_wilson_interval_of_nothing_is_everything():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mcnemar_counts_the_episodes_whose_outcome_changed():
    before = [False] * 7 + [True] * 5 + [False] * 3
    after = [True] * 7 + [True] * 4 + [False] * 4
    paired = paired_comparison(before, after)
    assert (paired.gained, paired.lost) == (7, 1)
    assert paired.difference == pytest.approx(6 / 15)
    assert paired.mcnemar_p == pytest.approx(2 * (1 + 8) / 2**8)


def test_nothing_changed_is_no_evidence():
    paired = paired_comparison([True, False], [True, False])
    assert (paired.gained, paired.lost, paired.difference, paired.mcnemar_p) == (0, 0, 0.0, 1.0)


def test_no_pairs_is_no_evidence():
    assert paired_comparison([], []).mcnemar_p == 1.0
