"""Bins, words and their probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError
from forethought.wrappers.action_tokens import ActionTokens, drawn, taken

EDGES = np.linspace(-1, 1, 5)
CENTRES = (EDGES[:-1] + EDGES[1:]) / 2


@pytest.fixture
def tokens() -> ActionTokens:
    """Four bins, the words 95 to 99 of a hundred and four that pad."""
    return ActionTokens(100, CENTRES, lambda chunk: np.where([True, True, False], 0.5 * chunk + 0.25, chunk))


def test_the_last_two_words_mean_the_same_bin_and_their_probabilities_add(tokens):
    probability = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
    logits = torch.full((1, 104), 7.0)
    logits[0, 95:100] = torch.from_numpy(np.log(probability[::-1]).copy())
    assert np.allclose(np.exp(tokens.log_probability(logits))[0], [0.1, 0.2, 0.3, 0.4], atol=1e-6)


def test_words_count_from_the_end_of_the_vocabulary(tokens):
    assert tokens.tokens(np.arange(4)).tolist() == [99, 98, 97, 96]


def test_actions_and_bins_are_each_others_inverse(tokens):
    bins = np.array([[0, 1, 2], [3, 3, 0]])
    back, moves = tokens.bins(tokens.actions(bins))
    assert np.array_equal(back, bins) and moves.all()


def test_a_number_that_the_statistics_hold_constant_is_left_out():
    stuck = ActionTokens(100, CENTRES, lambda chunk: np.where([True, False], chunk, 0.3))
    assert stuck.bins(np.array([0.7, 0.3]))[1].tolist() == [True, False]


def test_draws_follow_the_probabilities():
    probability = np.array([0.5, 0.0, 0.3, 0.2])
    with np.errstate(divide="ignore"):
        bins = drawn(np.log(np.tile(probability, (20_000, 1))), np.random.default_rng(0).random(20_000))
    assert np.allclose(np.bincount(bins, minlength=4) / 20_000, probability, atol=0.02)
    assert drawn(np.log(probability[[0, 2, 3]] / 1.0), np.array(1.0 - 1e-17)) == 2
    assert taken(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 0])).tolist() == [2.0, 3.0]


def test_logits_of_another_vocabulary_are_refused(tokens):
    with pytest.raises(ForethoughtError, match="at least 100 words"):
        tokens.log_probability(torch.zeros(1, 64))
