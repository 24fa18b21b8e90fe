"""What ``ChunkSpace`` does to chunks, compiled. Eight chunks lie side by side: number ``d`` of chunk
``8·b + l`` at ``8·(D·b + d) + l``, D being the continuous numbers of a chunk. So each step is the same for
eight neighbours and compiles to vector instructions, whatever the horizon and the size of the action.

No fast-math: the same seed gives the same chunk as the array formulas, which the tests keep. ``geometry`` is
``ChunkSpace.geometry``. Every function goes through many chunks, because a call with all these arrays costs
as much as a chunk; and indices are sums and products of counters, from which the compiler sees that none is
negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

LANES = 8
_ONE = np.uint64(1)


@njit(cache=True)
def room(chunks: int, horizon: int, geometry: Any) -> int:
    """Numbers that so many chunks take side by side, empty lanes included."""
    return (chunks + LANES - 1) // LANES * LANES * horizon * geometry[0].size


@njit(cache=True, nogil=True, error_model="numpy")
def whiten(chunks: np.ndarray, geometry: Any) -> np.ndarray:
    """``ChunkSpace.whiten`` of ``[L, H, A]``: ``float64 [L, H·C]``."""
    count, dimension = len(chunks), chunks.shape[1] * geometry[0].size
    value, white = whitened(chunks, geometry), np.empty((count, dimension))
    for i in range(count):
        for d in range(dimension):
            white[i, d] = value[(i // LANES * dimension + d) * LANES + i % LANES]
    return white


@njit(cache=True, nogil=True, error_model="numpy")
def signs(chunks: np.ndarray, geometry: Any) -> np.ndarray:
    """``ChunkSpace.signs`` of ``[L, H, A]``: ``float64 [L, G, H]``."""
    gripper = geometry[1]
    out = np.empty((len(chunks), gripper.size, chunks.shape[1]))
    for g in range(gripper.size):
        middle = geometry[4][2, gripper[g]]
        for i in range(len(chunks)):
            for t in range(chunks.shape[1]):
                out[i, g, t] = 1.0 if chunks[i, t, gripper[g]] > middle else -1.0
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def perturb(centres: np.ndarray, white: np.ndarray, flip: np.ndarray, geometry: Any) -> np.ndarray:
    """``ChunkSpace.perturb`` of centres ``[L, H, A]`` by white noise ``[L, H·C]`` and flips ``bool [L,
    G]``."""
    count, horizon = centres.shape[:2]
    noise, dimension = np.zeros(room(count, horizon, geometry)), white.shape[1]
    every, out = np.arange(count), np.empty(centres.shape, np.float32)
    for i in range(count):
        for d in range(dimension):
            noise[(i // LANES * dimension + d) * LANES + i % LANES] = white[i, d]
    place(centres, every, noise, flip, geometry, every, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def describe(chunks: np.ndarray, geometry: Any) -> tuple[np.ndarray, np.ndarray]:
    """Of ``[L, H, A]`` the whitened numbers, side by side, and what the binary grippers do, a bit a step,
    ``uint64 [L, G, ⌈H/64⌉]``."""
    words = np.empty((len(chunks), geometry[1].size, (chunks.shape[1] + 63) // 64), np.uint64)
    pattern(chunks, geometry, words)
    return whitened(chunks, geometry), words


@njit(cache=True, nogil=True, error_model="numpy")
def describe_centres(centres: np.ndarray, geometry: Any, white: np.ndarray, words: np.ndarray) -> None:
    """Of ``[R, n, H, A]`` the same, centres running fastest, into ``float64 [R, D, n]`` and ``uint64 [R, G,
    ⌈H/64⌉, n]``."""
    rows, count = centres.shape[:2]
    value, word = describe(centres.reshape(rows * count, *centres.shape[2:]), geometry)
    for i in range(rows * count):
        row, n, first = i // count, i % count, i // LANES * white.shape[1] * LANES + i % LANES
        for d in range(white.shape[1]):
            white[row, d, n] = value[first + d * LANES]
        for g in range(word.shape[1]):
            for w in range(word.shape[2]):
                words[row, g, w, n] = word[i, g, w]


@njit(cache=True, error_model="numpy")
def whitened(chunks: np.ndarray, geometry: Any) -> np.ndarray:
    """Whitened numbers of ``[L, H, A]``, side by side, ``float64``."""
    numbers = room(len(chunks), chunks.shape[1], geometry)
    value, out = np.zeros(numbers, chunks.dtype), np.empty(numbers)
    read(chunks, np.arange(len(chunks)), geometry, value)
    unite(value, chunks.shape[1], geometry, out)
    return out


@njit(cache=True, error_model="numpy")
def place(
    centres: np.ndarray,
    which: np.ndarray,
    noise: np.ndarray,
    flip: np.ndarray,
    geometry: Any,
    where: np.ndarray,
    out: np.ndarray,
) -> np.ndarray:
    """White noise, side by side, and flips ``bool [M, G]`` around chunks ``which`` of ``[L, H, A]`` into
    chunks ``where`` of ``out``. Returns their continuous numbers, side by side, ``float32``."""
    centre, value = np.zeros(noise.size, centres.dtype), np.empty(noise.size, np.float32)
    read(centres, which, geometry, centre)
    deviate(noise, centre, centres.shape[1], geometry, value)
    write(value, geometry, where, out)
    command(centres, which, flip, geometry, where, out)
    return value


@njit(cache=True, error_model="numpy")
def read(chunks: np.ndarray, which: np.ndarray, geometry: Any, out: np.ndarray) -> None:
    """The continuous numbers of chunks ``which`` of ``[L, H, A]``, side by side."""
    continuous = geometry[0]
    size, horizon = continuous.size, chunks.shape[1]
    for i in range(which.size):
        chunk, first = chunks[which[i]], i // LANES * size * horizon * LANES + i % LANES
        for t in range(horizon):
            step = chunk[t]  # a row of its own: half the time of two indices
            for c in range(size):
                out[first + (t * size + c) * LANES] = step[continuous[c]]


@njit(cache=True, error_model="numpy")
def write(value: np.ndarray, geometry: Any, which: np.ndarray, out: np.ndarray) -> None:
    """The continuous numbers into chunks ``which`` of ``[L, H, A]``."""
    continuous = geometry[0]
    size, horizon = continuous.size, out.shape[1]
    for i in range(which.size):
        chunk, first = out[which[i]], i // LANES * size * horizon * LANES + i % LANES
        for t in range(horizon):
            step = chunk[t]
            for c in range(size):
                step[continuous[c]] = value[first + (t * size + c) * LANES]


@njit(cache=True, error_model="numpy")
def deviate(noise: np.ndarray, centre: np.ndarray, horizon: int, geometry: Any, out: np.ndarray) -> None:
    """White noise around centres, inside the bounds, into ``out``, ``float32``."""
    own, common = geometry[2:4]
    scale, low, high = geometry[5][0], geometry[5][3], geometry[5][4]
    wide = scale.size
    mean = np.empty(wide)
    for block in range(out.size // max(wide * horizon, 1)):
        for k in range(wide):
            mean[k] = 0.0
        for t in range(horizon):
            for k in range(wide):
                mean[k] += noise[(block * horizon + t) * wide + k]
        for k in range(wide):
            mean[k] /= horizon
        for t in range(horizon):
            for k in range(wide):
                i = (block * horizon + t) * wide + k
                number = centre[i] + ((noise[i] - mean[k]) * own + mean[k] * common) * scale[k]
                number = low[k] if number < low[k] else number  # what is not a number stays none
                out[i] = np.float32(high[k] if number > high[k] else number)


@njit(cache=True, error_model="numpy")
def unite(value: np.ndarray, horizon: int, geometry: Any, out: np.ndarray) -> None:
    """Numbers in environment units, whitened."""
    own, common = 1.0 / geometry[2], 1.0 / geometry[3]
    inverse, middle = geometry[5][1], geometry[5][2]
    wide = middle.size
    mean = np.empty(wide)
    for block in range(out.size // max(wide * horizon, 1)):
        for k in range(wide):
            mean[k] = 0.0
        for t in range(horizon):
            for k in range(wide):
                i = (block * horizon + t) * wide + k
                out[i] = (np.float64(value[i]) - middle[k]) * inverse[k]
                mean[k] += out[i]
        for k in range(wide):
            mean[k] /= horizon
        for t in range(horizon):
            for k in range(wide):
                i = (block * horizon + t) * wide + k
                out[i] = (out[i] - mean[k]) * own + mean[k] * common


@njit(cache=True, error_model="numpy")
def command(
    centres: np.ndarray,
    which: np.ndarray,
    flip: np.ndarray,
    geometry: Any,
    where: np.ndarray,
    out: np.ndarray,
) -> None:
    """What chunks ``which`` of ``[L, H, A]`` command the binary grippers, or the inverse where ``flip``
    ``bool [M, G]``, into chunks ``where`` of ``out``: the bound that is nearer."""
    gripper, bounds = geometry[1], geometry[4]
    for g in range(gripper.size):
        a = gripper[g]
        low, high, middle = bounds[0, a], bounds[1, a], bounds[2, a]
        twice = 2.0 * np.float64(middle)
        for i in range(which.size):
            centre, chunk, flipped = centres[which[i]], out[where[i]], flip[i, g]
            for t in range(out.shape[1]):
                number = np.float64(centre[t, a])
                number = twice - number if flipped else number
                chunk[t, a] = high if np.float32(number) > middle else low


@njit(cache=True, error_model="numpy")
def pattern(chunks: np.ndarray, geometry: Any, out: np.ndarray) -> None:
    """Whether each binary gripper of ``[L, H, A]`` is beyond the middle, a bit a step, into ``uint64 [L, G,
    ⌈H/64⌉]``."""
    gripper = geometry[1]
    for g in range(gripper.size):
        a = gripper[g]
        middle = geometry[4][2, a]
        for i in range(len(chunks)):
            for w in range(out.shape[2]):
                word = np.uint64(0)
                for t in range(w * 64, min(w * 64 + 64, chunks.shape[1])):
                    if chunks[i, t, a] > middle:
                        word |= _ONE << np.uint64(t % 64)
                out[i, g, w] = word
