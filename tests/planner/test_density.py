"""The compiled density of a mixture of kernels: the formula summed in full, to the last digits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from forethought.planner.density import _sum_of_exponentials, log_density


def packed(signs):
    """A bit a step of ±1 ``[..., H]``, ``uint64 [..., ⌈H/64⌉]``."""
    words = np.zeros((*signs.shape[:-1], -(-signs.shape[-1] // 64)), np.uint64)
    for t in range(signs.shape[-1]):
        words[..., t // 64] |= (signs[..., t] > 0.0).astype(np.uint64) << np.uint64(t % 64)
    return words


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 3),
    queries=st.integers(1, 7),
    kernels=st.integers(1, 9),
    constant=st.booleans(),
    dimension=st.integers(1, 20),
    grippers=st.integers(0, 2),
    horizon=st.sampled_from([1, 2, 3, 64, 70, 130]),
    flip=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 0.1, 1.0, 30.0]),
)
def test_the_density_is_the_formula_summed_in_full(
    rows, queries, kernels, constant, dimension, grippers, horizon, flip, seed, scale
):
    rng = np.random.default_rng(seed)
    q, c = (
        scale * rng.normal(size=(rows, queries, dimension)),
        scale * rng.normal(size=(1 if constant else rows, kernels, dimension)),
    )
    signs_q = rng.choice([-1.0, 1.0], (rows, queries, grippers, horizon))
    signs_c = rng.choice([-1.0, 1.0], (len(c), kernels, grippers, horizon))
    widths = np.array([0.2, 0.7])
    same = (signs_q[:, :, None] == signs_c[:, None]).all(axis=-1)
    opposite = (signs_q[:, :, None] != signs_c[:, None]).all(axis=-1)
    with np.errstate(divide="ignore"):
        gripper = np.log(np.where(same, 1.0 - flip, np.where(opposite, flip, 0.0))).sum(axis=-1)
    normal = stats.norm.logpdf(q[:, :, None, None], c[:, None, :, None], widths[:, None]).sum(axis=-1)
    expected = logsumexp(normal + gripper[..., None], axis=(2, 3)) - np.log(2 * kernels)
    entries = np.zeros(rows * queries, np.int64) if constant else np.repeat(np.arange(rows), queries)
    found = log_density(
        q.reshape(-1),
        1,
        packed(signs_q.reshape(rows * queries, grippers, horizon)),
        np.ascontiguousarray(c.swapaxes(1, 2)),
        np.ascontiguousarray(np.moveaxis(packed(signs_c), 1, -1)),
        horizon,
        entries,
        tuple(widths),
        flip,
    )
    np.testing.assert_allclose(found.reshape(rows, queries), expected, rtol=1e-11, atol=1e-11)


def test_its_exponentials_are_right_to_the_last_digits():
    x = np.linspace(-650.0, 0.0, 20_001)
    found = [_sum_of_exponentials(np.array([value]), 0.0, np.zeros(1, np.int64)) for value in x]
    np.testing.assert_allclose(found, np.exp(x), rtol=1e-13)
    near = x > -2.0
    np.testing.assert_allclose(np.array(found)[near], np.exp(x[near]), rtol=1e-15)
    assert _sum_of_exponentials(np.array([-np.inf, 2.0]), 2.0, np.zeros(2, np.int64)) == 1.0


def test_a_second_kernel_counts_as_long_as_it_changes_anything():
    apart = np.linspace(0.0, 20.0, 2_001)
    none = np.zeros((apart.size, 0, 1), np.uint64)
    centres = np.stack([np.zeros(apart.size), apart], axis=1)[:, None]
    nothing = np.zeros((apart.size, 0, 1, 2), np.uint64)
    each = np.arange(apart.size)
    found = log_density(np.zeros(apart.size), 1, none, centres, nothing, 1, each, (1.0,), 0.0)
    expected = np.logaddexp(stats.norm.logpdf(0.0), stats.norm.logpdf(apart)) - np.log(2.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
