"""A predicted state's score: who is out, who has ended, and what the end is worth."""

from __future__ import annotations

import numpy as np

from forethought.interfaces import Prediction, Score
from forethought.planner import Scoring


def judge(value, *, spread=0.0, disagreement=0.0, done=0.0, latent=None, **settings):
    value = np.atleast_1d(np.asarray(value, np.float64))
    latent = np.zeros((value.size, 2)) if latent is None else latent
    numbers = [np.broadcast_to(np.asarray(n, np.float64), value.shape) for n in (disagreement, done, spread)]
    return Scoring(**settings).judge(Prediction(latent, *numbers[:2]), Score(value, numbers[2]))


def test_doubt_is_subtracted_with_its_weights():
    found = judge(0.8, spread=0.1, pessimism=2.0)
    np.testing.assert_allclose(found.own, [0.6])
    weighed = Scoring(pessimism=0.0, disagreement=0.5).judge(
        Prediction(np.zeros((1, 2)), np.array([0.2]), np.zeros(1)), Score(np.array([0.8]), np.zeros(1))
    )
    np.testing.assert_allclose(weighed.own, [0.7])


def test_the_end_is_worth_one_and_mixed_in_by_its_probability():
    found = judge([0.4, 0.4, 0.4], done=[0.0, 0.5, 1.0])
    np.testing.assert_allclose(found.value, [0.4, 0.7, 1.0])
    np.testing.assert_allclose(found.own, [0.4, 0.4, 0.4])


def test_a_probability_outside_its_range_is_taken_for_its_bound():
    found = judge([0.4, 0.4], done=[1.5, -0.5])
    np.testing.assert_allclose(found.done, [1.0, 0.0])
    np.testing.assert_allclose(found.value, [1.0, 0.4])
    assert found.ended.tolist() == [True, False]


def test_nothing_is_searched_below_from_the_terminal_probability_on():
    done = [0.5, np.nextafter(0.75, 0.0), 0.75, 0.9]
    assert judge([0.4] * 4, done=done, terminal=0.75).ended.tolist() == [False, False, True, True]


def test_any_number_that_is_not_finite_puts_its_state_out_alone():
    latent = np.zeros((6, 2))
    latent[5, 1] = np.inf
    bad = np.array([np.nan, 0.0, 0.0, 0.0, 0.0, 0.0])
    found = judge(
        [0.4] * 6 + bad,
        spread=np.roll(bad, 1),
        disagreement=np.roll(bad, 2),
        done=np.roll(bad, 3),
        latent=latent,
    )
    assert found.qualified.tolist() == [False, False, False, False, True, False]
    assert found.ended.tolist() == [True, True, True, True, False, True]
    np.testing.assert_array_equal(np.isneginf(found.own), ~found.qualified)
    np.testing.assert_array_equal(np.isneginf(found.value), ~found.qualified)
    assert (found.done == 0.0).all()
