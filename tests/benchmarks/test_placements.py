"""New placements: within the bounds of the states that may be looked at, and of nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from forethought.experiments.benchmarks.placements import drawn_states
from forethought.interfaces import ForethoughtError

# An arm with two hinges, two free objects, and a hinge of a drawer: 2 + 7 + 7 + 1 positions, 15 velocities.
MODEL = SimpleNamespace(jnt_type=np.array([3, 3, 0, 0, 3]), jnt_qposadr=np.array([0, 1, 2, 9, 16]))
ARM, OBJECTS, DRAWER = [1, 2], (3, 10), 17  # in a state, after its time
HINGES = [0, 1]  # of the arm, in the positions


def states(count: int = 40, seed: int = 0) -> np.ndarray:
    own = np.zeros((count, 1 + 17 + 15))
    draw = np.random.default_rng(seed)
    own[:, ARM] = draw.normal(0, 0.02, (count, 2))
    for first in OBJECTS:
        own[:, first : first + 2] = draw.uniform(-0.015, 0.015, (count, 2)) + 0.1 * first
        own[:, first + 2] = 0.9
        turn = draw.uniform(0, np.pi, count)
        own[:, first + 3], own[:, first + 6] = np.cos(turn / 2), np.sin(turn / 2)
    own[:, DRAWER] = draw.choice([0.0, 0.14], count)
    return own


def test_objects_stand_between_where_they_stood_and_are_otherwise_as_they_were():
    own = states()
    drawn = drawn_states(MODEL, own, range(22), HINGES, 5)
    assert drawn.shape == own.shape
    for first in OBJECTS:
        flat, known = drawn[:, first : first + 2], own[:22, first : first + 2]
        assert (flat >= known.min(axis=0)).all()
        assert (flat <= known.max(axis=0)).all()
        assert len(np.unique(flat, axis=0)) == len(drawn)
        assert flat.std(axis=0) == pytest.approx(known.std(axis=0), rel=0.4)
        rest = {tuple(row) for row in own[:22, first + 2 : first + 7]}
        assert {tuple(row) for row in drawn[:, first + 2 : first + 7]} <= rest
    assert (drawn[:, ARM] >= own[:22, ARM].min(axis=0)).all()
    assert (drawn[:, ARM] <= own[:22, ARM].max(axis=0)).all()
    assert set(np.unique(drawn[:, DRAWER])) <= {0.0, 0.14}
    assert (drawn[:, 18:] == 0.0).all()


def test_objects_are_placed_independently_of_each_other():
    own = states(400)
    own[:, OBJECTS[1]] = own[:, OBJECTS[0]] + 1e-4 * own[:, ARM[0]]  # they nearly move together
    drawn = drawn_states(MODEL, own, range(400), HINGES, 5)
    assert abs(np.corrcoef(drawn[:, OBJECTS[0]], drawn[:, OBJECTS[1]])[0, 1]) < 0.15


def test_what_stands_on_another_object_moves_with_it():
    own = states()
    own[:, OBJECTS[1] : OBJECTS[1] + 2] = own[:, OBJECTS[0] : OBJECTS[0] + 2] + [0.0, 0.01]
    own[:, OBJECTS[1] + 2] = 1.0
    drawn = drawn_states(MODEL, own, range(22), HINGES, 5)
    way = drawn[:, OBJECTS[1] : OBJECTS[1] + 3] - drawn[:, OBJECTS[0] : OBJECTS[0] + 3]
    np.testing.assert_allclose(way, np.broadcast_to([0.0, 0.01, 0.1], way.shape), atol=1e-12)
    assert len(np.unique(drawn[:, OBJECTS[0]])) == len(drawn)


def test_nothing_but_the_states_that_may_be_seen_is_looked_at():
    own, other = states(), states()
    other[22:] += 1.0
    np.testing.assert_array_equal(
        drawn_states(MODEL, own, range(22), HINGES, 5), drawn_states(MODEL, other, range(22), HINGES, 5)
    )


def test_the_seed_decides():
    own = states()
    first, again, another = (
        drawn_states(MODEL, own, range(22), HINGES, seed) for seed in ([5, 1], [5, 1], [5, 2])
    )
    np.testing.assert_array_equal(first, again)
    assert (first[:, 3:5] != another[:, 3:5]).all()


@pytest.mark.parametrize("seen", [[3], range(30, 50), [-1, 4]])
def test_states_that_are_not_there_or_only_one_are_refused(seen):
    with pytest.raises(ForethoughtError, match="at least two initial states from 0 to 39"):
        drawn_states(MODEL, states(), seen, HINGES, 0)
