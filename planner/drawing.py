"""The inner loops of drawing chunks, compiled: hashed numbers, and what ``ChunkSpace`` does, in one pass.

No fast-math: the same seed gives the same chunk to the bit as the array formulas, which the tests keep.
Logarithms and sines stay with NumPy, which computes vectors of them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# SplitMix64: an additive sequence with a golden-ratio step, then two multiply-xorshift rounds
# (Steele et al. 2014).
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11, _ONE = (np.uint64(n) for n in (30, 27, 31, 11, 1))


@njit(cache=True, inline="always")
def _mix(state: np.uint64) -> np.uint64:
    state = (state ^ (state >> _30)) * _FIRST
    state = (state ^ (state >> _27)) * _SECOND
    return state ^ (state >> _31)


@njit(cache=True)
def stream_keys(seeds: np.ndarray, streams: np.ndarray) -> np.ndarray:
    """Keys ``uint64 [M]`` of ``int64 [M]`` seeds and streams ``int64 [M]`` or ``[1]``."""
    out = np.empty(seeds.size, np.uint64)
    for i in range(seeds.size):
        stream = np.uint64(streams[i if streams.size > 1 else 0])
        out[i] = _mix(_mix(np.uint64(seeds[i]) + _STEP) + (stream + _ONE) * _STEP)
    return out


@njit(cache=True)
def uniforms(keys: np.ndarray, first: int, n: int) -> np.ndarray:
    """Numbers ``first .. first + n`` of each key's stream, inside (0, 1), ``float64 [M, n]``."""
    out = np.empty((keys.size, n))
    for i in range(keys.size):
        key = keys[i]
        for j in range(n):
            bits = _mix(key + np.uint64(first + j + 1) * _STEP) >> _11
            out[i, j] = (np.float64(bits) + 0.5) * 2.0**-53
    return out


@njit(cache=True)
def whiten(
    chunks: np.ndarray,
    continuous: np.ndarray,
    middle: np.ndarray,
    scale: np.ndarray,
    own: float,
    common: float,
) -> np.ndarray:
    """``ChunkSpace.whiten`` of ``[L, H, A]``: ``float64 [L, H·C]``. ``own`` and ``common`` divide the
    deviation from the mean over time and the mean."""
    length, horizon, size = chunks.shape[0], chunks.shape[1], continuous.size
    out = np.empty((length, horizon * size))
    for i in range(length):
        for c in range(size):
            a = continuous[c]
            total = 0.0
            for t in range(horizon):
                unit = (np.float64(chunks[i, t, a]) - middle[a]) / scale[a]
                out[i, t * size + c] = unit
                total += unit
            mean = total / horizon
            for t in range(horizon):
                out[i, t * size + c] = (out[i, t * size + c] - mean) / own + mean / common
    return out


@njit(cache=True)
def perturb(
    centres: np.ndarray,
    white: np.ndarray,
    flip: np.ndarray,
    continuous: np.ndarray,
    gripper: np.ndarray,
    middle: np.ndarray,
    scale: np.ndarray,
    own: float,
    common: float,
    low: np.ndarray,
    high: np.ndarray,
    snapped: np.ndarray,
) -> np.ndarray:
    """``ChunkSpace.perturb`` of centres ``[L, H, A]`` by white noise ``[L, H·C]`` and flips ``bool [L, G]``;
    indices in ``snapped`` take ``low`` or ``high``, whichever is nearer."""
    length, horizon, actions = centres.shape
    size = continuous.size
    out = np.empty(centres.shape, np.float32)
    chunk = np.empty((horizon, actions))
    for i in range(length):
        for t in range(horizon):
            for a in range(actions):
                chunk[t, a] = centres[i, t, a]
        for c in range(size):
            a = continuous[c]
            total = 0.0
            for t in range(horizon):
                total += white[i, t * size + c]
            mean = total / horizon
            for t in range(horizon):
                noise = (white[i, t * size + c] - mean) * own + mean * common
                chunk[t, a] += noise * scale[a]
        for g in range(gripper.size):
            if flip[i, g]:
                a = gripper[g]
                for t in range(horizon):
                    chunk[t, a] = 2.0 * middle[a] - chunk[t, a]
        for t in range(horizon):
            for a in range(actions):
                number = chunk[t, a]
                if not math.isnan(number):
                    number = min(max(number, np.float64(low[a])), np.float64(high[a]))
                out[i, t, a] = np.float32(number)
            for g in range(snapped.size):
                a = snapped[g]
                half = np.float32(0.5) * (low[a] + high[a])
                out[i, t, a] = high[a] if out[i, t, a] > half else low[a]
    return out
