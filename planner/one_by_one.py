"""Candidates drawn from a mixture of kernels: one at a time, which a tree needs that widens, and many at
once. A node's kernels are found once and kept for the decision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numba import njit

from .chunk_space import ChunkSpace
from .context import Context
from .density import Ladder, ladder, log_normaliser, log_sums
from .drawing import draw_around, draw_evenly, pick
from .lanes import LANES, describe, describe_centres, pattern, unite
from .parallel import split


class Kernels:
    """Centres of one source, as many for each of R places, in the form in which they are drawn around and in
    that in which their density is summed.

    Attributes:
        centres: ``float32 [R, n, H, A]``.
        white: Whitened, centres running fastest, ``float64 [R, D, n]``.
        words: What the grippers do, a bit a step, ``uint64 [R, G, ⌈H/64⌉, n]``.
        described: Whether these two hold something yet: whoever needs them calls ``describe``, or does what
            it does.
    """

    def __init__(self, space: ChunkSpace, centres: np.ndarray) -> None:
        centres = np.ascontiguousarray(centres, np.float32)
        # One that cannot be written to would have all loops compiled once more.
        self.centres = centres if centres.flags.writeable else centres.copy()
        rows, count, horizon = centres.shape[:3]
        self.white = np.empty((rows, space.dimension, count))
        self.words = np.empty((rows, space.gripper.size, (horizon + 63) // 64, count), np.uint64)
        self.described, self._geometry = False, space.geometry

    def describe(self) -> Kernels:
        """These, with ``white`` and ``words`` filled in."""
        if not self.described:
            describe_centres(self.centres, self._geometry, self.white, self.words)
            self.described = True
        return self


class NodeKernels:
    """Kernels that depend on the state, looked up when a node first needs them.

    Attributes:
        kernels: Those found so far; the first ``len(places)`` entries hold something.
        places: Entry by ``row << 32 | node``.
    """

    def __init__(self) -> None:
        self.kernels: Kernels | None = None
        self.places: dict[int, int] = {}

    def of(
        self, context: Context, find: Callable[[Context], np.ndarray], space: ChunkSpace
    ) -> tuple[Kernels, np.ndarray]:
        """Kernels, and the entry of each of the context's nodes, ``int64 [M]``."""
        keys = ((context.rows << 32) | context.nodes).tolist()
        new = [i for i, key in enumerate(keys) if key not in self.places]
        first = {keys[i]: i for i in reversed(new)}  # of a node that is asked about twice, the first
        if first:
            asked = np.array(sorted(first.values()))
            centres = find(context if len(asked) == len(keys) else context.at(asked))
            found = Kernels(space, centres).describe()
            end = len(self.places)
            for index, i in enumerate(asked.tolist()):
                self.places[keys[i]] = end + index
            self._add(found, end)
        assert self.kernels is not None
        return self.kernels, np.array([self.places[key] for key in keys])

    def _add(self, found: Kernels, end: int) -> None:
        if self.kernels is None:
            self.kernels = found
            return
        for name in ("centres", "white", "words"):
            old, more = getattr(self.kernels, name), getattr(found, name)
            if len(old) < end + len(more):
                larger = np.empty((2 * end + len(more), *old.shape[1:]), old.dtype)
                larger[:end] = old[:end]
                setattr(self.kernels, name, larger)
                old = larger
            old[end : end + len(more)] = more


class Drawer:
    """Draws from a mixture, a candidate at a time; what does not change between draws is worked out once.

    Source, bandwidth and centre of candidate number k are read off a circle of circumference 1, on which each
    kernel has an arc as long as its weight, at a random start of the node plus k steps of the golden ratio:
    each candidate is a draw from the mixture, and any first n of them spread over its kernels.

    Args:
        space: Geometry of the chunks.
        shares: Weights of the sources, ``[S]``.
        bandwidths: Ladder of each source.
        flip_probability: Probability that a binary gripper is inverted.
        temperature: Divisor of the log-density.
    """

    def __init__(
        self,
        space: ChunkSpace,
        shares: Sequence[float],
        bandwidths: Sequence[Sequence[float]],
        flip_probability: float,
        temperature: float,
    ) -> None:
        weights = np.array(shares, np.float64) / sum(shares)
        self._space, self._cumulative = space, weights.cumsum()
        self._ladders = [
            ladder(widths, space.dimension, flip_probability, space.horizon) for widths in bandwidths
        ]
        self._constants: dict[tuple[int, int], float] = {}
        self._logs = [math.log(weight) + space.log_det for weight in weights]
        self._flip, self._temperature = float(flip_probability), float(temperature)

    def __call__(
        self,
        seeds: np.ndarray,
        nodes: np.ndarray,
        places: np.ndarray,
        kernels: Sequence[tuple[Kernels, np.ndarray]],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Chunks ``float32 [M, H, A]``, sources (from 1) ``int8 [M]`` and log-densities by temperature
        ``float64 [M]`` of candidates ``places`` of ``nodes`` under ``seeds``, all ``int64 [M]``, from the
        kernels of each source and the entry of each node among them."""
        count = places.size
        chunks = np.empty((count, *kernels[0][0].centres.shape[2:]), np.float32)
        log_prior = np.empty(count)
        if len(kernels) == 1:
            source = np.empty(count, np.int8)
            of, entry = kernels[0]
            drawn = seeds, nodes, places, entry, self.mixture(of.describe()), chunks, source, log_prior
            if count < 2 * MANY:
                draw_and_weigh(0, count, *drawn)
            else:
                split(lambda start, stop: draw_and_weigh(start, stop, *drawn), count, MANY)
            return chunks, source, log_prior
        origin, where, keys = pick(seeds, nodes, places, self._cumulative)

        def part(start: int, stop: int) -> None:
            drawn = origin[start:stop], where, keys, chunks
            log_prior[start:stop] = self._part(*drawn, kernels, start, stop)

        split(part, count, MANY)
        return chunks, origin + np.int8(1), log_prior

    def mixture(self, of: Kernels) -> Mixture:
        """That of one source, with these kernels, which may yet have to be described."""
        where, how = (of.centres, of.white, of.words), (self._flip, self._space.geometry, self._ladders[0])
        return *where, *how, self._constant(0, of), self._temperature

    def evenly(
        self,
        index: int,
        kernels: tuple[Kernels, np.ndarray],
        seeds: np.ndarray,
        nodes: np.ndarray,
        slots: tuple[int, int],
        out: tuple[np.ndarray, np.ndarray],
    ) -> None:
        """Chunks of one source, many at a time, into ``slots`` (first and number) of ``out``, chunks ``[M, K,
        H, A]`` and sources (from 1) ``int8 [M, K]``, for ``nodes`` under ``seeds``, ``int64 [M]``: see
        ``draw_evenly``."""
        of, entry = kernels
        how = self._ladders[index][0][0], self._flip, self._space.geometry, *out
        draw_evenly(seeds, nodes, index, slots, of.centres, entry, *how)

    def log_density(self, chunks: np.ndarray, kernels: Sequence[tuple[Kernels, np.ndarray]]) -> np.ndarray:
        """Log-density ``float64 [M, K]`` of chunks ``[M, K, H, A]`` under the mixture, given the kernels of
        each source and the entry of each of the M among them."""
        shape = chunks.shape[:2]
        white, words = describe(
            np.ascontiguousarray(chunks).reshape(-1, *chunks.shape[2:]), self._space.geometry
        )
        total = None
        for index, (of, entry) in enumerate(kernels):
            of.describe()
            under = of.white, of.words, entry, self._ladders[index], self._constant(index, of)
            density = weigh(white, words, *under)
            total = density if total is None else np.logaddexp(total, density)
        assert total is not None
        return total.reshape(shape)

    def _constant(self, index: int, of: Kernels) -> float:
        """What ``log_sums`` lacks of the log-density of a source's share of the mixture."""
        key = index, of.white.shape[2]
        if key not in self._constants:
            many = key[1] * self._ladders[index][0].shape[1]
            self._constants[key] = log_normaliser(self._space.dimension, many) + self._logs[index]
        return self._constants[key]

    def _part(
        self,
        origin: np.ndarray,
        where: np.ndarray,
        keys: np.ndarray,
        chunks: np.ndarray,
        kernels: Sequence[tuple[Kernels, np.ndarray]],
        start: int,
        stop: int,
    ) -> np.ndarray:
        """Draws the candidates from ``start`` to ``stop``, of these origins, into ``chunks``; their
        log-densities by temperature."""
        geometry = self._space.geometry
        for index, (of, entry) in enumerate(kernels):
            wanted = start + np.flatnonzero(origin == index)
            widths = self._ladders[index][0][0]
            draw_around(wanted, where, keys, of.centres, entry, widths, self._flip, geometry, chunks)
        here = [(of, entry[start:stop]) for of, entry in kernels]
        return self.log_density(chunks[start:stop, None], here)[:, 0] / self._temperature


@njit(cache=True, nogil=True, error_model="numpy")
def weigh(
    queries: np.ndarray,
    query_words: np.ndarray,
    white: np.ndarray,
    words: np.ndarray,
    rows: np.ndarray,
    steps: Any,
    constant: float,
) -> np.ndarray:
    """Log-density ``float64 [M·K]`` of chunks that were described, under one source's share of the mixture;
    ``rows [M]`` hold for K of them each."""
    entries, each = np.empty(len(query_words), np.int64), len(query_words) // max(rows.size, 1)
    for i in range(entries.size):
        entries[i] = rows[i // each]
    density = log_sums(queries, LANES, query_words, white, words, entries, steps)
    for i in range(density.size):
        density[i] += constant
    return density


Mixture: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, float, Any, Ladder, float, float]
"""A mixture of one source as compiled loops take it: centres, white and words of its ``Kernels``; flip
probability; ``ChunkSpace.geometry``; and, of the density, the ladder, what ``log_sums`` lacks, and the
temperature."""


@njit(cache=True, nogil=True, error_model="numpy")
def draw_and_weigh(
    start: int,
    stop: int,
    seeds: np.ndarray,
    nodes: np.ndarray,
    places: np.ndarray,
    rows: np.ndarray,
    mixture: Mixture,
    chunks: np.ndarray,
    source: np.ndarray,
    log_prior: np.ndarray,
) -> None:
    """All of ``Drawer._part`` for a mixture of one source, ``FEW`` candidates at a time."""
    centres, white, words, flip_probability, geometry, steps, constant, temperature = mixture
    shares, widths = np.ones(1), steps[0][0]
    for first in range(start, stop, FEW):
        last = min(first + FEW, stop)
        few, entry = chunks[first:last], rows[first:last]
        _, where, keys = pick(seeds[first:last], nodes[first:last], places[first:last], shares)
        every = np.arange(entry.size)
        value = draw_around(every, where, keys, centres, entry, widths, flip_probability, geometry, few)
        word, query = np.empty((entry.size, *words.shape[1:3]), np.uint64), np.empty(value.size)
        pattern(few, geometry, word)
        unite(value, centres.shape[2], geometry, query)
        density = weigh(query, word, white, words, entry, steps, constant)
        for i in range(entry.size):
            source[first + i], log_prior[first + i] = 1, density[i] / temperature


FEW = 128
"""Chunks whose numbers stay in the near caches while they are drawn and weighed."""


MANY = 96
"""Chunks from which a second thread is worth being woken."""


def remembered(memo: dict[str, Any], name: str, make: Callable[[], Any]) -> Any:
    """What a decision's memo has under a name, made if it has nothing."""
    if name not in memo:
        memo[name] = make()
    return memo[name]
