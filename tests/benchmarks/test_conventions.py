"""Conventions decide success rates, so their numbers are pinned; no simulator is needed here."""

from __future__ import annotations

import json

import numpy as np
import pytest

from forethought.experiments.benchmarks import CONVENTIONS, find_convention
from forethought.experiments.benchmarks.base import check_chunk
from forethought.experiments.benchmarks.libero import ACTION_SPEC, LiberoBenchmark, axis_angle
from forethought.interfaces import ForethoughtError


@pytest.mark.parametrize(
    ("convention", "suite", "limit"),
    [
        ("openvla", "libero_spatial", 220),
        ("lerobot", "libero_spatial", 280),
        ("openvla", "libero_object", 280),
        ("lerobot", "libero_goal", 300),
        ("openvla", "libero_10", 520),
        ("openvla", "libero_90", 400),
        ("openvla", "libero_spatial_swap", 220),
        ("openvla", "libero_10_task", 520),
    ],
)
def test_step_limits_are_those_of_the_published_evaluations(convention: str, suite: str, limit: int) -> None:
    assert find_convention(convention).step_limit(suite) == limit


def test_a_suite_that_nobody_published_has_no_step_limit() -> None:
    assert find_convention("openvla").step_limit("libero_study_table") is None
    assert find_convention("openvla").step_limit("libero_1000") is None


def test_both_conventions_settle_ten_steps_and_turn_images_by_half() -> None:
    raw = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for convention in CONVENTIONS.values():
        assert convention.settle_steps == 10
        assert convention.settle_action == (0, 0, 0, 0, 0, 0, -1)
        assert convention.camera_size == 256
        assert np.array_equal(convention.upright(raw)[0, 0], raw[-1, -1])


def test_a_convention_describes_itself_in_json() -> None:
    description = find_convention("lerobot").describe()
    assert json.loads(json.dumps(description)) == description
    assert description["step_limits"]["libero_spatial"] == 280


def test_an_unknown_convention_is_refused_with_the_choices() -> None:
    with pytest.raises(ForethoughtError, match=r"'openvl'.*lerobot, openvla"):
        find_convention("openvl")


@pytest.mark.parametrize("shape", [(7,), (4, 6), (1, 4, 7), (0,)])
def test_a_chunk_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ForethoughtError, match=r"expects one chunk of numbers \[H, 7\]"):
        check_chunk(np.zeros(shape), ACTION_SPEC)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_action_is_refused_and_located(value: float) -> None:
    chunk = np.zeros((4, 7), np.float32)
    chunk[2, 5] = value
    with pytest.raises(ForethoughtError, match=r"chunk\[2, 5\]"):
        check_chunk(chunk, ACTION_SPEC)


def test_axis_angle_keeps_turning_past_half_a_turn_instead_of_jumping() -> None:
    angles = np.linspace(np.pi - 0.2, np.pi + 0.2, 41)
    vectors = [axis_angle(np.array([np.cos(a / 2), np.sin(a / 2), 0.0, 0.0])) for a in angles]
    np.testing.assert_allclose(np.array(vectors)[:, 0], angles, atol=1e-12)


def test_axis_angle_of_no_rotation_is_zero() -> None:
    assert np.array_equal(axis_angle(np.array([1.0, 0.0, 0.0, 0.0])), np.zeros(3))
    assert np.isfinite(axis_angle(np.array([1.0 + 1e-12, 1e-9, 0.0, 0.0]))).all()


def test_without_libero_the_error_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ForethoughtError, match=r"pip install forethought\[libero\]"):
        LiberoBenchmark("libero_object")
