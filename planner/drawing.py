"""The inner loops of drawing chunks, compiled: hashed numbers, and chunks around kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from .lanes import LANES, place, room

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


@njit(cache=True, inline="always")
def _key(seed: Any, stream: Any) -> Any:
    return _mix(_mix(np.uint64(seed) + _STEP) + (np.uint64(stream) + _ONE) * _STEP)


@njit(cache=True, error_model="numpy")
def stream_keys(seeds: np.ndarray, streams: np.ndarray) -> np.ndarray:
    """Keys ``uint64 [M]`` of ``int64 [M]`` seeds and streams ``int64 [M]`` or ``[1]``."""
    out = np.empty(seeds.size, np.uint64)
    for i in range(seeds.size):
        out[i] = _key(seeds[i], streams[i if streams.size > 1 else 0])
    return out


@njit(cache=True, error_model="numpy")
def uniforms(keys: np.ndarray, first: int, n: int) -> np.ndarray:
    """Numbers ``first .. first + n`` of each key's stream, inside (0, 1), ``float64 [M, n]``."""
    out = np.empty((keys.size, n))
    for i in range(keys.size):
        key = keys[i]
        for j in range(n):
            out[i, j] = _uniform(key, first + j)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def normals(keys: np.ndarray, n: int) -> np.ndarray:
    """The first ``n`` standard normal numbers of each key's stream, ``float64 [M, n]``."""
    pairs = (n + 1) // 2
    cosine, sine, scratch = np.empty(pairs), np.empty(pairs), np.empty(pairs)
    out = np.empty((keys.size, n))
    for i in range(keys.size):
        normal(keys[i], cosine, sine, scratch)
        for k in range(n):
            out[i, k] = cosine[k] if k < pairs else sine[k - pairs]
    return out


_GOLDEN = 0.6180339887498949
"""Steps of the golden ratio around a circle leave no large gap, whenever they stop."""


@njit(cache=True, error_model="numpy")
def pick(
    seeds: np.ndarray, nodes: np.ndarray, places: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For candidate number ``places[m]`` of node ``nodes[m]`` under seed ``seeds[m]`` (``int64 [M]``): the
    source it comes from, by cumulative shares ``float64 [S]``; where within the source, in [0, 1); and the
    key ``uint64`` of its noise."""
    source = np.empty(seeds.size, np.int8)
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
) -> np.ndarray:
    """Chunks into ``out [M, H, A]`` for the candidates ``wanted``, each from one kernel of its row of centres
    ``[R, n, H, A]``: of (bandwidth, centre) that at ``where``, the centre running fastest. Returns their
    continuous numbers, side by side, ``float32``."""
    count, kernels, horizon, actions = wanted.size, centres.shape[1], centres.shape[2], centres.shape[3]
    dimension = horizon * geometry[0].size
    pairs, blocks = (dimension + 1) // 2, (count + LANES - 1) // LANES
    every, which = centres.reshape(-1, horizon, actions), np.empty(count, np.int64)
    key, width = np.zeros(blocks * LANES, np.uint64), np.zeros(blocks * LANES)
    flip = np.empty((count, geometry[1].size), np.bool_)
    for i in range(count):
        m = wanted[i]
        rank = min(np.int64(where[m] * kernels * bandwidths.size), kernels * bandwidths.size - 1)
        which[i], width[i], key[i] = rows[m] * kernels + rank % kernels, bandwidths[rank // kernels], keys[m]
        for g in range(flip.shape[1]):
            flip[i, g] = _uniform(keys[m], 2 * pairs + g) < flip_probability
    noise = _noise(key, width, pairs, dimension)
    return place(every, which, noise, flip, geometry, wanted, out)


@njit(cache=True, nogil=True, error_model="numpy")
def draw_evenly(
    seeds: np.ndarray,
    nodes: np.ndarray,
    source: int,
    slots: tuple[int, int],
    centres: np.ndarray,
    rows: np.ndarray,
    bandwidths: np.ndarray,
    flip_probability: float,
    geometry: Any,
    out: np.ndarray,
    label: np.ndarray,
) -> None:
    """Chunks into ``slots`` (first and number) of ``out [M, K, H, A]``, and ``source + 1`` into ``label
    [M, K]``, for ``nodes`` under ``seeds``, ``int64 [M]``, around kernels of its row of the source's centres
    ``[R, n, H, A]``. Of (bandwidth, centre), the centre running fastest, ranks are evenly spaced with one
    common offset: every kernel is equally likely, few are taken twice."""
    first, number = slots
    kernels, horizon, actions = centres.shape[1:]
    size, grippers = geometry[0].size, geometry[1].size
    noise, dimension = np.zeros(room(number, horizon, geometry)), horizon * size
    pairs, spacing = (number * dimension + 1) // 2, kernels * bandwidths.size / max(number, 1)
    cosine, sine, scratch = np.empty(pairs), np.empty(pairs), np.empty(pairs)
    every, which, where = centres.reshape(-1, horizon, actions), np.empty(number, np.int64), np.arange(number)
    width, flip = np.empty(number), np.empty((number, grippers), np.bool_)
    for m in range(seeds.size):
        key = _key(seeds[m], nodes[m] * 8 + source)
        chance = _key(key, 0)
        for i in range(number):
            rank = min(np.int64((i + _uniform(chance, 0)) * spacing), kernels * bandwidths.size - 1)
            which[i], width[i] = rows[m] * kernels + rank % kernels, bandwidths[rank // kernels]
            label[m, first + i] = source + 1
            for g in range(grippers):
                flip[i, g] = _uniform(chance, 1 + i * grippers + g) < flip_probability
        normal(_key(key, 1), cosine, sine, scratch)
        for i in range(number):
            for d in range(dimension):
                n = i * dimension + d
                white = cosine[n] if n < pairs else sine[n - pairs]
                noise[(i // LANES * dimension + d) * LANES + i % LANES] = white * width[i]
        place(every, which, noise, flip, geometry, where, out[m, first : first + number])


@njit(cache=True, error_model="numpy")
def _noise(keys: np.ndarray, width: np.ndarray, pairs: int, dimension: int) -> np.ndarray:
    """The first standard normal numbers of each key's stream, times its width, side by side."""
    cosine, sine, scratch = np.empty(pairs * LANES), np.empty(pairs * LANES), np.empty(pairs * LANES)
    out, wide = np.empty(keys.size * dimension), np.empty(pairs * LANES)
    for block in range(keys.size // LANES):
        for p in range(pairs):
            for lane in range(LANES):
                cosine[p * LANES + lane] = _uniform(keys[block * LANES + lane], p)
                wide[p * LANES + lane] = width[block * LANES + lane]
        for p in range(pairs):
            for lane in range(LANES):
                sine[p * LANES + lane] = _uniform(keys[block * LANES + lane], pairs + p)
        _box_muller(cosine, sine, scratch)
        for k in range(cosine.size):
            out[block * LANES * dimension + k] = cosine[k] * wide[k]
        for k in range((dimension - pairs) * LANES):
            out[block * LANES * dimension + pairs * LANES + k] = sine[k] * wide[k]
    return out


@njit(cache=True, inline="always")
def _uniform(key: Any, place: Any) -> Any:
    """Number ``place`` of a key's stream, inside (0, 1)."""
    return (np.float64(_mix(key + np.uint64(place + 1) * _STEP) >> _11) + 0.5) * 2.0**-53


@njit(cache=True, error_model="numpy")
def normal(key: Any, cosine: np.ndarray, sine: np.ndarray, scratch: np.ndarray) -> None:
    """Standard normal numbers from the first numbers of a key's stream (Box-Muller), ``float64 [n]`` into
    ``cosine`` and into ``sine``."""
    for i in range(cosine.size):
        cosine[i] = _uniform(key, i)
    for i in range(sine.size):
        sine[i] = _uniform(key, cosine.size + i)
    _box_muller(cosine, sine, scratch)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def _box_muller(radius: np.ndarray, turn: np.ndarray, mantissa: np.ndarray) -> None:
    """Pairs of uniform numbers inside (0, 1), ``float64 [n]``, to pairs of standard normal ones, in place.

    In steps that compile to vector instructions, which calls of ``log`` and ``sin`` do not, and accurate to
    a few units in the last place: the logarithm as 2·atanh((m−1)/(m+1)) of a mantissa m within √½ … √2, sine
    and cosine of an eighth of the circle, each by its Taylor series.
    """
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
        radius[i] = radial * ((y if swapped else x) * (-1.0 if left else 1.0))
        turn[i] = radial * ((x if swapped else y) * (-1.0 if below else 1.0))
