"""The guard lets through what is finite and inside the bounds."""

from __future__ import annotations

import numpy as np
import pytest

from forethought.interfaces import ForethoughtError
from forethought.wrappers.guard import Guard


def chunks(*numbers: float) -> np.ndarray:
    return np.stack([np.full((4, 7), number, np.float32) for number in numbers])


def test_a_chunk_inside_the_bounds_passes_with_the_gripper_snapped(spec):
    report = Guard(spec).check(chunks(0.5))
    assert np.allclose(report.chunk[..., :6], 0.5)
    assert np.allclose(report.chunk[..., 6], 1.0)
    assert not report.clipped.any() and not report.rejected.any()
    assert report.reason == ("",)


def test_rows_are_judged_by_themselves(spec):
    report = Guard(spec).check(chunks(0.5, 3.0, np.nan, np.inf))
    assert report.clipped.tolist() == [False, True, False, False]
    assert report.rejected.tolist() == [False, False, True, True]
    assert report.chunk[1].max() == 1.0


def test_without_clipping_a_chunk_outside_is_rejected_but_rounding_is_forgiven(spec):
    report = Guard(spec, clip=False, tolerance=1e-2).check(chunks(1.005, 1.02))
    assert report.rejected.tolist() == [False, True]
    assert report.chunk[0].max() == 1.0


def test_the_chunk_given_is_not_written_to(spec):
    given = chunks(3.0)
    Guard(spec).check(given)
    assert given.max() == 3.0


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_a_tolerance_that_makes_no_sense_is_refused(spec, tolerance):
    with pytest.raises(ForethoughtError, match="tolerance"):
        Guard(spec, tolerance=tolerance)
