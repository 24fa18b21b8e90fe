"""Candidates drawn one at a time: what a tree needs that widens. A node's kernels are found once and kept for
the decision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .chunk_space import ChunkSpace
from .density import log_normaliser, log_probability, log_sums
from .drawing import describe, draw_around, pick
from .parallel import split

if TYPE_CHECKING:
    from .proposals import Context


class Kernels:
    """Centres of one source, as many for each of R places, in the form in which they are drawn around and in
    that in which their density is summed.

    Attributes:
        centres: ``float32 [R, n, H, A]``.
        white: Whitened, centres running fastest, ``float64 [R, D, n]``.
        signs: Of the grippers, ``float64 [R, G, H, n]``.
    """

    def __init__(self, space: ChunkSpace, centres: np.ndarray) -> None:
        self.centres = np.ascontiguousarray(centres, np.float32)
        self.white = np.ascontiguousarray(space.whiten(centres).swapaxes(1, 2))
        self.signs = np.ascontiguousarray(np.moveaxis(space.signs(centres), 1, -1))


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
            found = Kernels(space, find(context if len(asked) == len(keys) else context.at(asked)))
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
        for name in ("centres", "white", "signs"):
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
        self._widths = [np.asarray(ladder, np.float64) for ladder in bandwidths]
        self._logs = [math.log(weight) + space.log_det for weight in weights]
        self._flip, self._temperature = float(flip_probability), float(temperature)
        self._keeps, self._flips = log_probability(1.0 - flip_probability), log_probability(flip_probability)

    def __call__(
        self,
        seeds: np.ndarray,
        nodes: np.ndarray,
        places: np.ndarray,
        kernels: Sequence[tuple[Kernels, np.ndarray]],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Chunks ``float32 [M, H, A]``, sources (from 0) ``int64 [M]`` and log-densities by temperature
        ``float64 [M]`` of candidates ``places`` of ``nodes`` under ``seeds``, all ``int64 [M]``, from the
        kernels of each source and the entry of each node among them."""
        origin, where, keys = pick(seeds, nodes, places, self._cumulative)
        chunks = np.empty((places.size, *kernels[0][0].centres.shape[2:]), np.float32)
        if places.size < 2 * MANY:
            return chunks, origin, self._part(origin, where, keys, kernels, chunks, 0, places.size)
        parts = split(
            lambda start, stop: self._part(origin, where, keys, kernels, chunks, start, stop),
            places.size,
            MANY,
        )
        return chunks, origin, np.concatenate(parts)

    def _part(
        self,
        origin: np.ndarray,
        where: np.ndarray,
        keys: np.ndarray,
        kernels: Sequence[tuple[Kernels, np.ndarray]],
        chunks: np.ndarray,
        start: int,
        stop: int,
    ) -> np.ndarray:
        """Draws the candidates from ``start`` to ``stop`` into ``chunks``; their log-densities."""
        space, total = self._space, None
        for index, (of, entry) in enumerate(kernels):
            wanted = np.arange(start, stop)
            if len(kernels) > 1:
                wanted = wanted[origin[start:stop] == index]
            widths = self._widths[index]
            draw_around(wanted, where, keys, of.centres, entry, widths, self._flip, space.geometry, chunks)
        white, signs = describe(chunks[start:stop], space.geometry)
        for index, (of, entry) in enumerate(kernels):
            widths = self._widths[index]
            density = log_sums(
                white, signs, of.white, of.signs, entry[start:stop], widths, self._keeps, self._flips
            )
            density += log_normaliser(space.dimension, of.white.shape[2] * widths.size) + self._logs[index]
            total = density if total is None else np.logaddexp(total, density)
        assert total is not None
        total /= self._temperature
        return total


MANY = 96
"""Chunks from which a second thread is worth being woken."""


def remembered(memo: dict[str, Any], name: str, make: Callable[[], Any]) -> Any:
    """What a decision's memo has under a name, made if it has nothing."""
    if name not in memo:
        memo[name] = make()
    return memo[name]
