"""Counter-based randomness: every number is a pure function of (seed, stream, position).

A generator per row would cost more than the numbers drawn from it, and a generator per batch would make a row
depend on its neighbours. Here rows are hashed side by side, so a row draws the same numbers alone and in a
batch.
"""

from __future__ import annotations

import numpy as np

# SplitMix64: an additive sequence with a golden-ratio step, then two multiply-xorshift rounds
# (Steele et al. 2014).
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def stream_keys(seeds: np.ndarray, stream: np.ndarray | int) -> np.ndarray:
    """Keys ``uint64 [M]`` of stream numbers ``[M]`` (or one for all) under ``int64 [M]`` seeds."""
    seeds = np.atleast_1d(np.asarray(seeds, np.int64)).view(np.uint64)
    streams = np.broadcast_to(np.asarray(stream, np.int64), seeds.shape).astype(np.uint64)
    return _mix(_mix(seeds + _STEP) + (streams + np.uint64(1)) * _STEP)


def uniforms(keys: np.ndarray, n: int) -> np.ndarray:
    """Uniform numbers strictly inside (0, 1), ``float64 [M, n]``."""
    positions = np.arange(1, n + 1, dtype=np.uint64) * _STEP
    bits = _mix(keys[:, None] + positions) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) * 2.0**-53


def normals(keys: np.ndarray, n: int) -> np.ndarray:
    """Standard normal numbers, ``float64 [M, n]`` (Box-Muller)."""
    pairs = (n + 1) // 2
    uniform = uniforms(keys, 2 * pairs)
    radius = np.sqrt(-2.0 * np.log(uniform[:, :pairs]))
    angle = 2.0 * np.pi * uniform[:, pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :n]


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
