"""What the expert computes before it moves."""

from __future__ import annotations

import numpy as np
import pytest

from forethought.experiments.experts.grasp import choose_grasp
from forethought.experiments.experts.servo import Servo, pointing_down, rotation_vector

NOTHING = np.zeros((0, 3))


def box(size: tuple[float, float, float], yaw: float = 0.0) -> np.ndarray:
    """Points on a box of half sizes standing on the floor, turned about the vertical."""
    lines = [np.linspace(-half, half, 7) for half in size]
    points = np.stack(np.meshgrid(*lines), axis=-1).reshape(-1, 3)
    points[:, 2] += size[2]
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return points @ turn.T


def ring(radius: float, height: float) -> np.ndarray:
    """The wall of a bowl."""
    angles = np.linspace(-np.pi, np.pi, 48, endpoint=False)
    return np.array(
        [[radius * np.cos(a), radius * np.sin(a), z] for a in angles for z in (0.0, height / 2, height)]
    )


@pytest.mark.parametrize("yaw", [0.0, 0.6, -1.2])
def test_an_oblong_is_grasped_across_its_narrow_side(yaw: float) -> None:
    grasp = choose_grasp(box((0.01, 0.04, 0.02), yaw), np.zeros(3), NOTHING, reference_yaw=1.5)
    assert abs(np.sin(grasp.yaw - yaw)) < 0.2


def test_a_grasp_turns_the_hand_by_no_more_than_a_quarter() -> None:
    for yaw in np.linspace(-3.0, 3.0, 13):
        grasp = choose_grasp(box((0.01, 0.04, 0.02), yaw), np.zeros(3), NOTHING, reference_yaw=1.5)
        assert abs(grasp.yaw - 1.5) <= np.pi / 2 + 1e-6


def test_a_tall_object_is_held_near_its_top_where_the_palm_does_not_touch() -> None:
    grasp = choose_grasp(box((0.02, 0.02, 0.1)), np.zeros(3), NOTHING, reference_yaw=0.0)
    assert grasp.offset[2] == pytest.approx(0.16, abs=0.005)


def test_a_bowl_is_held_by_the_rim_with_the_fingers_along_the_radius() -> None:
    grasp = choose_grasp(ring(0.055, 0.05), np.zeros(3), NOTHING, reference_yaw=1.5)
    assert np.linalg.norm(grasp.offset[:2]) == pytest.approx(0.05, abs=0.008)
    radial = np.arctan2(grasp.offset[1], grasp.offset[0])
    assert abs(np.sin(grasp.yaw - radial)) < 0.05


def test_the_rim_is_not_grasped_where_a_wall_stands() -> None:
    alone = choose_grasp(ring(0.055, 0.05), np.zeros(3), NOTHING, reference_yaw=1.5)
    outward = alone.offset[:2] / np.linalg.norm(alone.offset[:2])
    wall = np.array(
        [
            [*(0.095 * outward + s * np.array([-outward[1], outward[0]])), z]
            for s in np.linspace(-0.1, 0.1, 21)
            for z in (0.0, 0.03, 0.06)
        ]
    )
    beside = choose_grasp(ring(0.055, 0.05), np.zeros(3), wall, reference_yaw=1.5)
    assert beside.offset[:2] @ outward < 0.6 * (alone.offset[:2] @ outward)


def test_a_grasp_that_failed_is_not_tried_again_at_once() -> None:
    bowl = ring(0.055, 0.05)
    first = choose_grasp(bowl, np.zeros(3), NOTHING, reference_yaw=1.5)
    second = choose_grasp(bowl, np.zeros(3), NOTHING, reference_yaw=1.5, failed=[first])
    assert np.linalg.norm(second.offset - first.offset) > 0.03


def test_rotation_vectors_are_those_of_the_matrices() -> None:
    turned = pointing_down(0.9) @ pointing_down(0.2).T
    np.testing.assert_allclose(rotation_vector(turned), [0.0, 0.0, 0.7], atol=1e-9)
    np.testing.assert_allclose(rotation_vector(np.eye(3)), np.zeros(3))


def test_the_servo_points_to_the_goal_and_stays_inside_the_bounds() -> None:
    hand = (np.zeros(3), pointing_down(0.0))
    command = Servo().command(hand, np.array([0.3, 0.0, -1.0]), pointing_down(1.5), speed=0.5)
    assert command[0] == pytest.approx(1.0)
    assert command[2] == pytest.approx(-0.5)
    assert np.all(np.abs(command) <= 1.0)


def test_an_error_that_stays_is_answered_ever_harder_up_to_a_limit() -> None:
    hand, goal = (np.zeros(3), pointing_down(0.0)), np.array([0.01, 0.0, 0.0])
    servo = Servo()
    pushes = [servo.command(hand, goal, pointing_down(0.0))[0] for _ in range(80)]
    assert pushes[20] > pushes[0] + 0.2
    assert pushes[-1] == pytest.approx(pushes[-2])
    servo.reset()
    assert servo.command(hand, goal, pointing_down(0.0))[0] == pytest.approx(pushes[0])
