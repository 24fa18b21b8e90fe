"""What a retrieval memory keeps of more than it may."""

from __future__ import annotations

import numpy as np

from forethought.experiments.training.memory import equal_shares


def test_every_task_gets_the_same_share_and_the_rest_goes_to_those_that_have_more():
    task = np.repeat([0, 1, 2], [100, 5, 40])
    kept = equal_shares(task, 60, np.random.default_rng(0))
    assert len(set(kept.tolist())) == 60
    assert np.bincount(task[kept]).tolist() == [28, 5, 27]
    everything = equal_shares(task, 1000, np.random.default_rng(0))
    assert sorted(everything.tolist()) == list(range(145))


def test_which_entries_of_a_task_are_kept_is_drawn():
    task = np.zeros(1000, np.int64)
    kept = equal_shares(task, 500, np.random.default_rng(1))
    assert 400 < kept.mean() < 600 and kept.max() > 900 and (np.diff(kept) < 0).any()
