"""Depth against width: the problems are what they say, and runs are compared pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from forethought.experiments.bench import courses, depth, table
from forethought.experiments.bench.courses import COURSES, DISCOUNT, STEP, Doorway, OpenField


def random_states(rows: int, seed: int = 0) -> np.ndarray:
    """Places and goals on both sides of the wall."""
    draw = np.random.default_rng(seed)
    return np.concatenate([draw.uniform(-1, 1, (rows, 4)), draw.uniform(-0.8, 0.8, (rows, 1))], axis=1)


def test_the_shortest_way_is_that_of_every_place_in_the_doorway():
    state, half = random_states(300), Doorway.HALF_WIDTH
    here, goal, door = state[:, :2], state[:, 2:4], state[:, 4]
    places = np.stack([np.zeros((300, 2001)), door[:, None] + np.linspace(-half, half, 2001)], axis=2)
    ways = sum(np.abs(point[:, None] - places).max(axis=2) for point in (here, goal))
    through = (here[:, 0] < 0) != (goal[:, 0] < 0)
    found = courses.through_door(state, half)
    np.testing.assert_allclose(found[through], ways.min(axis=1)[through], atol=1e-3)
    np.testing.assert_allclose(found[~through], np.abs(goal - here).max(axis=1)[~through])


def test_the_value_is_the_success_of_the_policy_that_it_was_learned_from():
    """Heading straight until nothing moves: what comes of it, and when."""
    course, state = Doorway(), random_states(200, 1)
    value, moved, steps = course.score(state, ()).value, state, np.zeros(200)
    for _ in range(20):
        arrived = np.abs(moved[:, :2] - moved[:, 2:4]).max(axis=1) < 1e-6
        steps += ~arrived
        straight = courses.straight(moved[:, :2], moved[:, 2:4])
        moved = course.after(moved, straight[:, None])
    assert 0.2 < arrived.mean() < 0.9
    np.testing.assert_array_equal(value > 0.0, arrived)
    np.testing.assert_array_equal(np.ceil(np.log(value[arrived]) / np.log(DISCOUNT) - 1e-6), steps[arrived])


def test_a_wall_stops_and_a_doorway_does_not():
    course = Doorway()
    state = np.array([[-0.1, 0.0, 0.5, 0.0, door] for door in (0.6, 0.1)])
    after = course.after(state, np.array([[[1.0, 0.0]], [[1.0, 0.0]]], np.float32))
    assert -0.01 < after[0, 0] < 0.0
    assert after[1, 0] == pytest.approx(0.15)
    np.testing.assert_array_equal(after[:, 2:], state[:, 2:])


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.name)
def test_no_chunk_is_better_than_the_best_there_is(course):
    state, draw = course.start(50), np.random.default_rng(0)
    before = course.optimum(state)
    for _ in range(200):
        chunks = draw.uniform(-1, 1, (50, 1, course.spec.size)).astype(np.float32)
        assert (before - DISCOUNT * course.optimum(course.after(state, chunks)) > -1e-6).all()


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.name)
def test_an_instance_does_not_depend_on_how_many_there_are(course):
    np.testing.assert_array_equal(course.start(3), course.start(8)[:3])
    state, seeds = course.start(4), np.arange(4)
    whole = course.samples(state, seeds).chunks
    np.testing.assert_array_equal(whole[2:], course.samples(state[2:], seeds[2:]).chunks)


def test_a_model_that_errs_is_off_by_as_much_as_it_says_and_always_the_same():
    exact, erring, state = Doorway(), Doorway(error=0.2), random_states(4000, 2)
    state[:, 0] = np.abs(state[:, 0]) + 1.0  # far from the wall
    chunks = np.random.default_rng(0).uniform(-1, 1, (4000, 1, 2)).astype(np.float32)
    stray = np.asarray(erring.step(state, chunks).latent)[:, :2] - exact.after(state, chunks)[:, :2]
    np.testing.assert_allclose(stray.std(axis=0), 0.2 * STEP, rtol=0.05)
    np.testing.assert_allclose(stray.mean(axis=0), 0.0, atol=0.005)
    assert abs(np.corrcoef(stray.T)[0, 1]) < 0.05
    np.testing.assert_array_equal(erring.step(state, chunks).disagreement, np.full(4000, 0.2 * STEP))
    again = np.asarray(erring.step(state[7:9], chunks[7:9]).latent)
    np.testing.assert_array_equal(again, np.asarray(erring.step(state, chunks).latent)[7:9])
    np.testing.assert_array_equal(erring.after(state, chunks), exact.after(state, chunks))


def test_depth_pays_behind_a_wall_and_width_in_the_open():
    found = depth.measure([256], rows=40, depths=(1, 2), courses=(Doorway(), OpenField()))

    def success(problem, deep, children):
        rows = [row for row in found if (row["problem"], row["depth"]) == (problem, deep)]
        return next(row for row in rows if row["children"] == children)

    behind, in_the_open = success("doorway", 2, 16), success("open field", 2, 16)
    assert behind["gained"] > 5 > behind["lost"]
    assert in_the_open["lost"] > 5 > in_the_open["gained"]
    assert behind["regret_difference"] < 0.0 < in_the_open["regret_difference"]
    wide = success("doorway", 1, 256)
    assert (wide["gained"], wide["lost"], wide["p"], wide["regret_margin"]) == (0, 0, 1.0, 0.0)


def test_all_depths_spend_the_same_and_the_policy_alone_nothing():
    found = depth.measure([20], rows=4)
    assert {row["evaluated"] for row in found if row["depth"]} == {20.0}
    assert {row["evaluated"] for row in found if not row["depth"]} == {0.0}
    assert [row["depth"] for row in found[:8]] == [0, 1, 2, 2, 3, 3, 4, 4]
    for row in found:
        low, high = row["success_interval"]
        assert 0.0 <= low <= row["success"] <= high <= 1.0
    printed = Console(width=120, record=True)
    printed.print(table.depth(found))
    text = printed.export_text()
    assert "…" not in text
    assert all(course.name in text for course in COURSES)
