"""What a policy's own likelihoods say about its samples."""

from __future__ import annotations

import numpy as np


def sample_weights(chunks: np.ndarray, log_probability: np.ndarray | None) -> np.ndarray | None:
    """Weights ``float64 [B, N]``, each row summing to 1, of a policy's samples ``[B, N, H, A]`` by their
    ``log_probability [B, N]``; None where the policy has none.

    How often a chunk was drawn already says how likely it is, so that counting and weighing it would square
    the density: chunks that are equal share the weight of one. A row without a finite number, and a sample
    without one among others, weigh the same and nothing.
    """
    if log_probability is None:
        return None
    given = np.asarray(log_probability, np.float64)
    known = np.where(np.isfinite(given), given, -np.inf)
    largest = known.max(axis=1, keepdims=True)
    hopeless = np.isneginf(largest)
    weight = np.where(hopeless, 1.0, np.exp(known - np.where(hopeless, 0.0, largest)))
    flat = chunks.reshape(*chunks.shape[:2], -1)
    equal = (flat[:, :, None] == flat[:, None]).all(axis=-1)
    weight = weight / equal.sum(axis=-1)
    return weight / weight.sum(axis=1, keepdims=True)


def resampled(weights: np.ndarray) -> np.ndarray:
    """As many samples as there are, each as often as its weight ``[M, N]`` says, to within one: their
    numbers ``int64 [M, N]`` (systematic resampling with the offset fixed at one half)."""
    count = weights.shape[1]
    cumulative = weights.cumsum(axis=1)
    at = (np.arange(count) + 0.5) / count
    return np.minimum((at[None, :, None] >= cumulative[:, None, :]).sum(axis=2), count - 1)
