"""Counter-based randomness: every number is a pure function of (seed, stream, position).

A generator per row would cost more than the numbers drawn from it, and a generator per batch would make a row
depend on its neighbours. Here rows are hashed side by side, so a row draws the same numbers alone and in a
batch.
"""

from __future__ import annotations

import numpy as np

from . import drawing


def stream_keys(seeds: np.ndarray, stream: np.ndarray | int) -> np.ndarray:
    """Keys ``uint64 [M]`` of stream numbers ``[M]`` (or one for all) under ``int64 [M]`` seeds."""
    seeds = np.atleast_1d(np.asarray(seeds, np.int64))
    return drawing.stream_keys(seeds, np.atleast_1d(np.asarray(stream, np.int64)))


def uniforms(keys: np.ndarray, n: int) -> np.ndarray:
    """Uniform numbers strictly inside (0, 1), ``float64 [M, n]``."""
    return drawing.uniforms(keys, 0, n)


def normals(keys: np.ndarray, n: int) -> np.ndarray:
    """Standard normal numbers, ``float64 [M, n]`` (Box-Muller)."""
    return drawing.normals(keys, n)


def gumbels(keys: np.ndarray, n: int) -> np.ndarray:
    """Standard Gumbel numbers, ``float64 [M, n]``."""
    return -np.log(-np.log(uniforms(keys, n)))


def shared(white: np.ndarray, share: float) -> np.ndarray:
    """Noise of unit variance whose covariance over the H steps is s·11ᵀ + (1−s)·I, from white noise
    ``[..., H, C]``; the share s of the variance moves all steps together."""
    mean = white.mean(axis=-2, keepdims=True)
    return (white - mean) * np.sqrt(1.0 - share) + mean * np.sqrt(1.0 - share + share * white.shape[-2])


def coloured(white: np.ndarray, exponent: float) -> np.ndarray:
    """Noise of unit variance whose power falls with the frequency as 1/f^β over the T steps, from white noise
    ``[..., T, C]``; β = 0 returns it as it is (iCEM, Pinneri et al. 2020, arXiv 2008.06389, section 3.1).

    A periodic filter: the lowest frequency stands in for frequency zero (Timmer & König 1995). The sum runs
    over steps, so that a row's numbers are the same alone and in a batch.
    """
    steps = white.shape[-2]
    frequency = np.maximum(np.fft.rfftfreq(steps), 1.0 / steps)
    response = np.fft.irfft(frequency ** (-0.5 * exponent), steps)
    response /= np.sqrt((response**2).sum())
    result = np.zeros_like(white)
    for lag in range(steps):
        result += response[lag] * np.roll(white, lag, axis=-2)
    return result
