"""Kernel density of whitened chunks: a Gaussian on a ladder of bandwidths times a Bernoulli on each binary
gripper.

Loops compiled by numba, laid out so that the compiler makes vectors of them: faster than a matrix product at
every size measured (8 kernels × 32 queries to 1024 × 1024, 48 coordinates), and squared distances are sums of
squares, which lose nothing to cancellation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit


def log_density(
    queries: np.ndarray,
    query_signs: np.ndarray,
    centres: np.ndarray,
    centre_signs: np.ndarray,
    entries: np.ndarray,
    bandwidths: Sequence[float],
    flip_probability: float,
) -> np.ndarray:
    """Log-density ``float64 [M]`` of queries under equally weighted kernels, in whitened units.

    A kernel is ``mean over σ of N(query; centre, σ²I)`` times, per gripper, 1−p where the gripper does what
    the centre does, p where it does the opposite at every step, 0 elsewhere: exactly how
    ``ChunkSpace.perturb`` draws.

    Args:
        queries: ``float64 [M, D]``.
        query_signs: ``float64 [M, G, H]``, ±1.
        centres: ``float64 [R, D, n]``. Centres run fastest, so that the compiler makes vectors of them.
        centre_signs: ``float64 [R, G, H, n]``, ±1.
        entries: Which of the R sets of kernels each query is under, ``int64 [M]``.
        bandwidths: Standard deviations σ.
        flip_probability: Probability p that a gripper is inverted.
    """
    sigma = np.asarray(bandwidths, np.float64)
    keep, flip = log_probability(1.0 - flip_probability), log_probability(flip_probability)
    total = log_sums(queries, query_signs, centres, centre_signs, entries, sigma, keep, flip)
    total += log_normaliser(queries.shape[1], centres.shape[2] * sigma.size)
    return total


def log_normaliser(dimension: int, kernels: int) -> float:
    """What the logarithm of a sum over so many equally weighted kernels lacks of a log-density."""
    return -math.log(kernels) - 0.5 * dimension * math.log(2.0 * math.pi)


def log_probability(probability: float) -> float:
    """Its logarithm, −inf at 0."""
    return math.log(probability) if probability > 0.0 else -math.inf


@njit(cache=True, nogil=True, error_model="numpy")
def log_sums(
    queries: np.ndarray,
    query_signs: np.ndarray,
    middle: np.ndarray,
    middle_signs: np.ndarray,
    rows: np.ndarray,
    sigma: np.ndarray,
    keep: float,
    flip: float,
) -> np.ndarray:
    """``log_density`` without the constants; ``keep`` and ``flip`` are the logarithms of 1−p and p."""
    n_centres = middle.shape[2]
    work = _scratch(n_centres, sigma.size)
    out = np.empty(len(queries))
    for i in range(len(queries)):
        row = rows[i]
        out[i] = _log_sum(queries[i], query_signs[i], middle[row], middle_signs[row], sigma, keep, flip, work)
    return out


@njit(cache=True)
def _scratch(centres: int, bandwidths: int) -> Any:
    """Arrays of their own, not rows of one: else the compiler does not see that they are apart."""
    terms = centres * bandwidths
    return np.empty(centres), np.empty(centres), np.empty(centres), np.empty(terms), np.empty(terms, np.int64)


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})
def _log_sum(
    query: np.ndarray,
    signs: np.ndarray,
    middle: np.ndarray,
    middle_signs: np.ndarray,
    sigma: np.ndarray,
    keep: float,
    flip: float,
    work: Any,
) -> float:
    """Of one query ``[D]`` with signs ``[G, H]`` under centres ``[D, n]`` and ``[G, H, n]``."""
    term, squared, agreement, exponent, bits = work
    dimension, n_centres = middle.shape
    grippers, horizon = signs.shape
    term[:] = 0.0
    for g in range(grippers):
        agreement[:] = 0.0
        for t in range(horizon):
            sign = signs[g, t]
            for j in range(n_centres):
                agreement[j] += sign * middle_signs[g, t, j]
        for j in range(n_centres):
            if agreement[j] == horizon:
                term[j] += keep
            elif agreement[j] == -horizon:
                term[j] += flip
            else:
                term[j] = -np.inf
    squared[:] = 0.0
    fours = dimension - dimension % 4
    for d in range(0, fours, 4):  # four at a time: a running sum in memory is slower than what it adds
        for j in range(n_centres):
            a, b = query[d] - middle[d, j], query[d + 1] - middle[d + 1, j]
            e, f = query[d + 2] - middle[d + 2, j], query[d + 3] - middle[d + 3, j]
            squared[j] += (a * a + b * b) + (e * e + f * f)
    for d in range(fours, dimension):
        for j in range(n_centres):
            a = query[d] - middle[d, j]
            squared[j] += a * a
    largest = -np.inf
    for k in range(sigma.size):
        log_scale = -dimension * math.log(sigma[k])
        half_precision = 0.5 / (sigma[k] * sigma[k])
        offset = k * n_centres
        for j in range(n_centres):
            value = term[j] + log_scale - squared[j] * half_precision
            exponent[offset + j] = value
            largest = max(largest, value)
    if largest == -np.inf:
        return -np.inf
    return largest + math.log(_sum_of_exponentials(exponent, largest, bits))


@njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})
def _sum_of_exponentials(exponent: np.ndarray, largest: float, bits: np.ndarray) -> float:
    """``Σ exp(exponent − largest)`` to double precision, in a form that compiles to vector instructions,
    which a call of ``math.exp`` does not. Overwrites both arrays.

    exp(x) = 2^k·exp(r) with |r| ≤ ln 2 / 2, exp(r) by its Taylor series to r¹³ (remainder 4e-18). What
    rounding k·ln 2 costs grows with |x|, where the term no longer counts against the largest, which is 1.
    """
    for j in range(exponent.size):
        x = max(exponent[j] - largest, -700.0)
        k = math.floor(x / math.log(2.0) + 0.5)
        r = x - k * math.log(2.0)
        series = 1.0 / 6227020800.0
        series = series * r + 1.0 / 479001600.0
        series = series * r + 1.0 / 39916800.0
        series = series * r + 1.0 / 3628800.0
        series = series * r + 1.0 / 362880.0
        series = series * r + 1.0 / 40320.0
        series = series * r + 1.0 / 5040.0
        series = series * r + 1.0 / 720.0
        series = series * r + 1.0 / 120.0
        series = series * r + 1.0 / 24.0
        series = series * r + 1.0 / 6.0
        series = series * r + 0.5
        series = series * r + 1.0
        exponent[j] = series * r + 1.0
        bits[j] = (np.int64(k) + 1023) << 52
    power = bits.view(np.float64)
    total = 0.0
    for j in range(exponent.size):
        total += exponent[j] * power[j]
    return total
