"""The inner loops of drawing chunks, compiled: hashed numbers, and what ``ChunkSpace`` does, in one pass.

No fast-math: the same seed gives the same chunk as the array formulas, which the tests keep.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

# SplitMix64: an additive sequence with a golden-ratio step, then two multiply-xorshift rounds
# (Steele et al. 2014).
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11, _ONE = (np.uint64(n) for n in (30, 27, 31, 11, 1))


@njit(cache=True, inline="always")
def _mix(state: Any) -> Any:
    state = (state ^ (state >> _30)) * _FIRST
    state = (state ^ (state >> _27)) * _SECOND
    return state ^ (state >> _31)


@njit(cache=True, error_model="numpy")
def stream_keys(seeds: np.ndarray, streams: np.ndarray) -> np.ndarray:
    """Keys ``uint64 [M]`` of ``int64 [M]`` seeds and streams ``int64 [M]`` or ``[1]``."""
    out = np.empty(seeds.size, np.uint64)
    for i in range(seeds.size):
        stream = np.uint64(streams[i if streams.size > 1 else 0])
        out[i] = _mix(_mix(np.uint64(seeds[i]) + _STEP) + (stream + _ONE) * _STEP)
    return out


@njit(cache=True, error_model="numpy")
def uniforms(keys: np.ndarray, first: int, n: int) -> np.ndarray:
    """Numbers ``first .. first + n`` of each key's stream, inside (0, 1), ``float64 [M, n]``."""
    out = np.empty((keys.size, n))
    for i in range(keys.size):
        key = keys[i]
        for j in range(n):
            bits = _mix(key + np.uint64(first + j + 1) * _STEP) >> _11
            out[i, j] = (np.float64(bits) + 0.5) * 2.0**-53
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def normals(keys: np.ndarray, n: int) -> np.ndarray:
    """The first ``n`` standard normal numbers of each key's stream, ``float64 [M, n]``."""
    pairs = (n + 1) // 2
    cosine, sine, scratch = np.empty(pairs), np.empty(pairs), np.empty(pairs)
    out = np.empty((keys.size, n))
    for i in range(keys.size):
        normal(keys[i], cosine, sine, scratch)
        out[i, :pairs] = cosine
        out[i, pairs:] = sine[: n - pairs]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def signs(chunks: np.ndarray, gripper: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """``ChunkSpace.signs`` of ``[L, H, A]``: ``float64 [L, G, H]``."""
    out = np.empty((len(chunks), gripper.size, chunks.shape[1]))
    for i in range(len(chunks)):
        for g in range(gripper.size):
            for t in range(chunks.shape[1]):
                out[i, g, t] = 1.0 if chunks[i, t, gripper[g]] > middle[gripper[g]] else -1.0
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def describe(chunks: np.ndarray, geometry: Any) -> tuple[np.ndarray, np.ndarray]:
    """``whiten`` and ``signs``."""
    continuous, gripper, middle, scale, own, common = geometry[:6]
    return whiten(chunks, continuous, middle, scale, own, common), signs(chunks, gripper, middle)


@njit(cache=True, error_model="numpy")
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
    out = np.empty(centres.shape, np.float32)
    chunk = np.empty(centres.shape[1:])
    geometry = continuous, gripper, middle, scale, own, common, low, high, snapped
    for i in range(centres.shape[0]):
        _perturb_one(centres[i], white[i], flip[i], geometry, chunk, out[i])
    return out


@njit(cache=True, error_model="numpy")
def _perturb_one(
    centre: np.ndarray,
    white: np.ndarray,
    flip: np.ndarray,
    geometry: Any,
    chunk: np.ndarray,
    out: np.ndarray,
) -> None:
    """``perturb`` of one chunk into ``out``; ``chunk`` is scratch."""
    continuous, gripper, middle, scale, own, common, low, high, snapped = geometry
    horizon, actions = centre.shape
    size = continuous.size
    for t in range(horizon):
        for a in range(actions):
            chunk[t, a] = centre[t, a]
    for c in range(size):
        a = continuous[c]
        total = 0.0
        for t in range(horizon):
            total += white[t * size + c]
        mean = total / horizon
        for t in range(horizon):
            noise = (white[t * size + c] - mean) * own + mean * common
            chunk[t, a] += noise * scale[a]
    for g in range(gripper.size):
        if flip[g]:
            a = gripper[g]
            for t in range(horizon):
                chunk[t, a] = 2.0 * middle[a] - chunk[t, a]
    for t in range(horizon):
        for a in range(actions):
            number = chunk[t, a]
            if not math.isnan(number):
                number = min(max(number, np.float64(low[a])), np.float64(high[a]))
            out[t, a] = np.float32(number)
        for g in range(snapped.size):
            a = snapped[g]
            half = np.float32(0.5) * (low[a] + high[a])
            out[t, a] = high[a] if out[t, a] > half else low[a]


_GOLDEN = 0.6180339887498949
"""Steps of the golden ratio around a circle leave no large gap, whenever they stop."""


@njit(cache=True, error_model="numpy")
def pick(
    seeds: np.ndarray, nodes: np.ndarray, places: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For candidate number ``places[m]`` of node ``nodes[m]`` under seed ``seeds[m]`` (``int64 [M]``): the
    source it comes from, by cumulative shares ``float64 [S]``; where within the source, in [0, 1); and the
    key ``uint64`` of its noise."""
    source = np.empty(seeds.size, np.int64)
    where, keys = np.empty(seeds.size), np.empty(seeds.size, np.uint64)
    for i in range(seeds.size):
        key = _mix(np.uint64(seeds[i]) + _STEP) + (np.uint64(nodes[i] * 8 + 7) + _ONE) * _STEP
        key = _mix(key)
        start = (np.float64(_mix(key + _STEP) >> _11) + 0.5) * 2.0**-53
        at = start + places[i] * _GOLDEN
        at -= math.floor(at)
        k, before = 0, 0.0
        while k < shares.size - 1 and at >= shares[k]:
            before = shares[k]
            k += 1
        source[i], where[i] = k, (at - before) / (shares[k] - before)
        keys[i] = _mix(_mix(key + _STEP) + (np.uint64(places[i]) + _ONE) * _STEP)
    return source, where, keys


@njit(cache=True, nogil=True, error_model="numpy")
def draw_around(
    wanted: np.ndarray,
    where: np.ndarray,
    keys: np.ndarray,
    centres: np.ndarray,
    rows: np.ndarray,
    bandwidths: np.ndarray,
    flip_probability: float,
    geometry: Any,
    out: np.ndarray,
) -> None:
    """Chunks into ``out [M, H, A]`` for the candidates ``wanted``, each from one kernel of its row of centres
    ``[R, n, H, A]``: of (bandwidth, centre) that at ``where``, the centre running fastest. ``geometry`` is
    what ``perturb`` takes after the flips."""
    kernels, horizon = centres.shape[1], centres.shape[2]
    continuous, gripper = geometry[0], geometry[1]
    size = horizon * continuous.size
    pairs = (size + 1) // 2
    white, flip = np.empty(2 * pairs), np.zeros(gripper.size, np.bool_)
    chunk = np.empty(centres.shape[2:])
    # Of their own, not rows of one: else the compiler does not see that they are apart.
    cosine, sine, scratch = np.empty(pairs), np.empty(pairs), np.empty(pairs)
    for i in range(wanted.size):
        m = wanted[i]
        rank = min(np.int64(where[m] * kernels * bandwidths.size), kernels * bandwidths.size - 1)
        normal(keys[m], cosine, sine, scratch)
        width = bandwidths[rank // kernels]
        for d in range(pairs):
            white[d] = cosine[d] * width
        for d in range(pairs):
            white[pairs + d] = sine[d] * width
        for g in range(gripper.size):
            bits = _mix(keys[m] + np.uint64(2 * pairs + g + 1) * _STEP) >> _11
            flip[g] = (np.float64(bits) + 0.5) * 2.0**-53 < flip_probability
        _perturb_one(centres[rows[m], rank % kernels], white, flip, geometry, chunk, out[m])


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def normal(key: Any, cosine: np.ndarray, sine: np.ndarray, scratch: np.ndarray) -> None:
    """Standard normal numbers from the first numbers of a key's stream (Box-Muller), ``float64 [n]`` into
    ``cosine`` and into ``sine``.

    In steps that compile to vector instructions, which calls of ``log`` and ``sin`` do not, and accurate to
    a few units in the last place: the logarithm as 2·atanh((m−1)/(m+1)) of a mantissa m within √½ … √2, sine
    and cosine of an eighth of the circle, each by its Taylor series.
    """
    radius, turn, mantissa = cosine, sine, scratch
    for i in range(radius.size):
        bits = _mix(key + np.uint64(i + 1) * _STEP) >> _11
        radius[i] = (np.float64(bits) + 0.5) * 2.0**-53
    for i in range(turn.size):
        bits = _mix(key + np.uint64(radius.size + i + 1) * _STEP) >> _11
        turn[i] = (np.float64(bits) + 0.5) * 2.0**-53
    number, fraction = radius.view(np.int64), mantissa.view(np.int64)
    for i in range(radius.size):
        fraction[i] = (number[i] & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000
    for i in range(radius.size):
        exponent = np.float64((number[i] >> 52) - 1023)
        large = mantissa[i] > 1.4142135623730951
        m = 0.5 * mantissa[i] if large else mantissa[i]
        exponent = exponent + 1.0 if large else exponent
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        series = 1.0 / 19.0
        series = series * z + 1.0 / 17.0
        series = series * z + 1.0 / 15.0
        series = series * z + 1.0 / 13.0
        series = series * z + 1.0 / 11.0
        series = series * z + 1.0 / 9.0
        series = series * z + 1.0 / 7.0
        series = series * z + 1.0 / 5.0
        series = series * z + 1.0 / 3.0
        logarithm = exponent * 0.6931471805599453 + 2.0 * (s + s * z * series)
        mantissa[i] = math.sqrt(max(-2.0 * logarithm, 0.0))
    for i in range(turn.size):
        quarter = math.floor(4.0 * turn[i] + 0.5)
        t = 6.283185307179586 * (turn[i] - 0.25 * quarter)
        z = t * t
        y = -1.0 / 1307674368000.0
        y = y * z + 1.0 / 6227020800.0
        y = y * z - 1.0 / 39916800.0
        y = y * z + 1.0 / 362880.0
        y = y * z - 1.0 / 5040.0
        y = y * z + 1.0 / 120.0
        y = y * z - 1.0 / 6.0
        y = t + t * z * y
        x = 1.0 / 20922789888000.0
        x = x * z - 1.0 / 87178291200.0
        x = x * z + 1.0 / 479001600.0
        x = x * z - 1.0 / 3628800.0
        x = x * z + 1.0 / 40320.0
        x = x * z - 1.0 / 720.0
        x = x * z + 1.0 / 24.0
        x = x * z - 1.0 / 2.0
        x = 1.0 + z * x
        swapped = (quarter == 1.0) | (quarter == 3.0)
        left = (quarter == 1.0) | (quarter == 2.0)
        below = (quarter == 2.0) | (quarter == 3.0)
        radial = mantissa[i]
        cosine[i] = radial * ((y if swapped else x) * (-1.0 if left else 1.0))
        sine[i] = radial * ((x if swapped else y) * (-1.0 if below else 1.0))
