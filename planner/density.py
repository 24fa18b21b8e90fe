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
    lanes: int,
    query_words: np.ndarray,
    centres: np.ndarray,
    centre_words: np.ndarray,
    horizon: int,
    entries: np.ndarray,
    bandwidths: Sequence[float],
    flip_probability: float,
) -> np.ndarray:
    """Log-density ``float64 [M]`` of queries under equally weighted kernels, in whitened units.

    A kernel is ``mean over σ of N(query; centre, σ²I)`` times, per gripper, 1−p where the gripper does what
    the centre does, p where it does the opposite at every step, 0 elsewhere: exactly how
    ``ChunkSpace.perturb`` draws.

    Args:
        queries: All their numbers in one array, ``float64``, D of each; see ``lanes``.
        lanes: How many queries lie side by side; 1 for ``[M, D]``.
        query_words: What the grippers do, a bit a step, ``uint64 [M, G, ⌈H/64⌉]``.
        centres: ``float64 [R, D, n]``. Centres run fastest, so that the compiler makes vectors of them.
        centre_words: ``uint64 [R, G, ⌈H/64⌉, n]``.
        horizon: Steps H.
        entries: Which of the R sets of kernels each query is under, ``int64 [M]``.
        bandwidths: Standard deviations σ.
        flip_probability: Probability p that a gripper is inverted.
    """
    dimension, kernels = centres.shape[1], centres.shape[2] * len(bandwidths)
    steps = ladder(bandwidths, dimension, flip_probability, horizon)
    total = log_sums(queries, lanes, query_words, centres, centre_words, entries, steps)
    total += log_normaliser(dimension, kernels)
    return total


Ladder = tuple[np.ndarray, float, float, int]
"""What the density of a kernel depends on beside its centre: each bandwidth σ, the logarithm of σ to the
power −D, and ½σ⁻², ``float64 [3, K]``; the logarithms of 1−p and p of the grippers; and the steps H."""


def ladder(bandwidths: Sequence[float], dimension: int, flip_probability: float, horizon: int) -> Ladder:
    """That of kernels with these bandwidths in so many dimensions."""
    sigma = np.asarray(bandwidths, np.float64)
    keep, flip = log_probability(1.0 - flip_probability), log_probability(flip_probability)
    rungs = np.stack([sigma, -dimension * np.log(sigma), 0.5 / (sigma * sigma)])
    return rungs, keep, flip, int(horizon)


def log_normaliser(dimension: int, kernels: int) -> float:
    """What the logarithm of a sum over so many equally weighted kernels lacks of a log-density."""
    return -math.log(kernels) - 0.5 * dimension * math.log(2.0 * math.pi)


def log_probability(probability: float) -> float:
    """Its logarithm, −inf at 0."""
    return math.log(probability) if probability > 0.0 else -math.inf


FAST = {"reassoc", "contract", "arcp", "nsz"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST)
def log_sums(
    queries: np.ndarray,
    lanes: int,
    query_words: np.ndarray,
    middle: np.ndarray,
    middle_words: np.ndarray,
    rows: np.ndarray,
    steps: Any,
) -> np.ndarray:
    """``log_density`` without the constant; ``steps`` are a ``Ladder``. The queries, all their numbers in one
    array, lie side by side in as many lanes (see the module ``lanes``): one after the other in one."""
    rungs, keep, flip, horizon = steps
    log_scale, half_precision = rungs[1], rungs[2]
    dimension, n_centres = middle.shape[1:]
    # Arrays of their own, not rows of one: else the compiler does not see that they are apart.
    term, squared = np.empty(n_centres), np.empty(n_centres)
    exponent = np.empty(n_centres * log_scale.size)
    bits, out = np.empty(exponent.size, np.int64), np.empty(rows.size)
    differs, agrees = np.empty(n_centres, np.uint64), np.empty(n_centres, np.uint64)
    fours = dimension - dimension % 4
    # As many exponentials of numbers so far below the largest do not add a bit to its own, which is 1.
    beyond = 40.0 + math.log(max(exponent.size, 1))
    for q in range(rows.size):
        row, first = rows[q], q // lanes * dimension * lanes + q % lanes
        _match(query_words, q, middle_words, row, keep, flip, horizon, differs, agrees, term)
        for j in range(n_centres):
            squared[j] = 0.0
        for d in range(0, fours, 4):  # four at a time: a running sum in memory is slower than what it adds
            i = first + d * lanes
            one, two, three, four = (
                queries[i],
                queries[i + lanes],
                queries[i + 2 * lanes],
                queries[i + 3 * lanes],
            )
            for j in range(n_centres):
                a, b = one - middle[row, d, j], two - middle[row, d + 1, j]
                e, f = three - middle[row, d + 2, j], four - middle[row, d + 3, j]
                squared[j] += (a * a + b * b) + (e * e + f * f)
        for d in range(fours, dimension):
            for j in range(n_centres):
                a = queries[first + d * lanes] - middle[row, d, j]
                squared[j] += a * a
        largest = -np.inf
        for k in range(log_scale.size):
            for j in range(n_centres):
                value = term[j] + log_scale[k] - squared[j] * half_precision[k]
                exponent[k * n_centres + j] = value
                largest = max(largest, value)
        near = 0
        for j in range(exponent.size):
            near += exponent[j] > largest - beyond
        if near > 1:
            out[q] = largest + math.log(_sum_of_exponentials(exponent, largest, bits))
        else:  # a kernel that stands alone, or none
            out[q] = largest
    return out


@njit(cache=True, error_model="numpy")
def _match(
    words: np.ndarray,
    query: int,
    middle_words: np.ndarray,
    row: int,
    keep: float,
    flip: float,
    horizon: int,
    differs: np.ndarray,
    agrees: np.ndarray,
    out: np.ndarray,
) -> None:
    """Log-probability of what a query's grippers do under each centre of a row, into ``out [n]``."""
    for j in range(out.size):
        out[j] = 0.0
    for g in range(words.shape[1]):
        for j in range(out.size):
            differs[j], agrees[j] = _NO_BITS, _NO_BITS
        for w in range(words.shape[2]):
            word, known = words[query, g, w], _ALL_BITS >> np.uint64(64 - min(horizon - 64 * w, 64))
            for j in range(out.size):
                difference = (word ^ middle_words[row, g, w, j]) & known
                differs[j] |= difference
                agrees[j] |= difference ^ known
        for j in range(out.size):
            out[j] += keep if differs[j] == _NO_BITS else (flip if agrees[j] == _NO_BITS else -np.inf)


_NO_BITS, _ALL_BITS = np.uint64(0), np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, error_model="numpy", fastmath=FAST)
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
