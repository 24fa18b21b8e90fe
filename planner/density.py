"""Kernel density of whitened chunks: a Gaussian on a ladder of bandwidths times a Bernoulli on each binary
gripper.

Two forms of the same formula: loops compiled by numba while a row has few pairs of kernel and query, a matrix
product above (its cost is the memory for all pairs, which only pays when there are many).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit

PAIRS_FOR_MATMUL = 3000
"""Kernel-query pairs of a row above which the matrix form is faster (measured)."""


def log_density(
    queries: np.ndarray,
    query_signs: np.ndarray,
    centres: np.ndarray,
    centre_signs: np.ndarray,
    bandwidths: Sequence[float],
    flip_probability: float,
) -> np.ndarray:
    """Log-density ``float64 [M, K]`` of queries under equally weighted kernels, in whitened units.

    A kernel is ``mean over σ of N(query; centre, σ²I)`` times, per gripper, 1−p where the gripper does what
    the centre does, p where it does the opposite at every step, 0 elsewhere: exactly how
    ``ChunkSpace.perturb`` draws.

    Args:
        queries: ``[M, K, D]``.
        query_signs: ``[M, K, G, H]``, ±1.
        centres: ``[M, n, D]`` or ``[1, n, D]``.
        centre_signs: ``[M, n, G, H]`` or ``[1, n, G, H]``, ±1.
        bandwidths: Standard deviations σ.
        flip_probability: Probability p that a gripper is inverted.
    """
    sigma = np.asarray(bandwidths, np.float64)
    keep, flip = _log(1.0 - flip_probability), _log(flip_probability)
    many = queries.shape[1] * centres.shape[1] > PAIRS_FOR_MATMUL
    form = _by_matmul if many else _by_loops
    total = form(queries, query_signs, centres, centre_signs, sigma, keep, flip)
    dimension = queries.shape[2]
    return total - math.log(centres.shape[1] * sigma.size) - 0.5 * dimension * math.log(2.0 * math.pi)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0.0 else -math.inf


@njit(cache=True, fastmath={"reassoc", "contract"})
def _by_loops(
    queries: np.ndarray,
    query_signs: np.ndarray,
    centres: np.ndarray,
    centre_signs: np.ndarray,
    sigma: np.ndarray,
    keep: float,
    flip: float,
) -> np.ndarray:
    rows, n_queries, dimension = queries.shape
    n_centres = centres.shape[1]
    grippers, horizon = query_signs.shape[2], query_signs.shape[3]
    log_scale = -dimension * np.log(sigma)
    half_precision = 0.5 / (sigma * sigma)
    out = np.full((rows, n_queries), -np.inf)
    for row in range(rows):
        source = row if centres.shape[0] > 1 else 0
        for i in range(n_queries):
            largest, total = -np.inf, 0.0
            for j in range(n_centres):
                term = 0.0
                for g in range(grippers):
                    agreement = 0.0
                    for t in range(horizon):
                        agreement += query_signs[row, i, g, t] * centre_signs[source, j, g, t]
                    if agreement == horizon:
                        term += keep
                    elif agreement == -horizon:
                        term += flip
                    else:
                        term = -np.inf
                if term == -np.inf:
                    continue
                squared = 0.0
                for d in range(dimension):
                    difference = queries[row, i, d] - centres[source, j, d]
                    squared += difference * difference
                for k in range(sigma.size):
                    value = term + log_scale[k] - squared * half_precision[k]
                    if value > largest:
                        total = total * np.exp(largest - value) + 1.0
                        largest = value
                    else:
                        total += np.exp(value - largest)
            if total > 0.0:
                out[row, i] = largest + np.log(total)
    return out


def _by_matmul(
    queries: np.ndarray,
    query_signs: np.ndarray,
    centres: np.ndarray,
    centre_signs: np.ndarray,
    sigma: np.ndarray,
    keep: float,
    flip: float,
) -> np.ndarray:
    squared = (
        (queries**2).sum(-1)[:, :, None]
        + (centres**2).sum(-1)[:, None, :]
        - 2.0 * (queries @ np.swapaxes(centres, -1, -2))
    )
    np.maximum(squared, 0.0, out=squared)
    horizon = query_signs.shape[3]
    term = np.zeros_like(squared)
    for g in range(query_signs.shape[2]):
        agreement = query_signs[:, :, g] @ np.swapaxes(centre_signs[:, :, g], -1, -2)
        term += np.where(agreement == horizon, keep, np.where(agreement == -horizon, flip, -np.inf))
    total = np.full(queries.shape[:2], -np.inf)
    for width in sigma:
        value = term - squared * (0.5 / width**2) - queries.shape[2] * math.log(width)
        total = np.logaddexp(total, _log_sum_exp(value))
    return total


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    """Over the last axis; −inf where every entry is −inf."""
    largest = values.max(axis=-1)
    safe = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - safe[..., None]).sum(axis=-1)) + safe
