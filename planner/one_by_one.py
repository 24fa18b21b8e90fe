"""Candidates drawn one at a time: what a tree needs that widens. A node's kernels are found once and kept for
the decision."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .chunk_space import ChunkSpace
from .density import log_normaliser, log_probability, log_sums_at
from .drawing import draw_around, pick
from .parallel import split

if TYPE_CHECKING:
    from .proposals import Context, Drawn
    from .sources import KernelSource


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


def draw(
    context: Context,
    places: np.ndarray,
    *,
    space: ChunkSpace,
    sources: tuple[KernelSource, ...],
    kernels: Callable[[KernelSource], tuple[Kernels, np.ndarray]],
    flip_probability: float,
    temperature: float,
) -> Drawn:
    """``OneByOne.draw`` of a mixture. ``kernels`` gives those of a source, and the entry of each node.

    Source, bandwidth and centre of candidate number k are read off a circle of circumference 1, on which each
    kernel has an arc as long as its weight, at a random start of the node plus k steps of the golden ratio:
    each candidate is a draw from the mixture, and any first n of them spread over its kernels.
    """
    from .proposals import Drawn

    share = np.array([source.share for source in sources], np.float64)
    share /= share.sum()
    places = np.ascontiguousarray(places, np.int64)
    nodes = np.ascontiguousarray(context.nodes, np.int64)
    seeds = np.ascontiguousarray(context.seeds, np.int64)
    origin, where, keys = pick(seeds, nodes, places, share.cumsum())
    found = [kernels(source) for source in sources]
    widths = [np.asarray(source.bandwidths, np.float64) for source in sources]
    horizon, size = context.policy.shape[2:]
    chunks = np.empty((places.size, horizon, size), np.float32)
    keep, flip = log_probability(1.0 - flip_probability), log_probability(flip_probability)

    def part(start: int, stop: int) -> np.ndarray:
        here = slice(start, stop)
        for index, (of, entry) in enumerate(found):
            wanted = np.flatnonzero(origin[here] == index) + start if len(sources) > 1 else None
            wanted = np.arange(start, stop) if wanted is None else wanted
            draw_around(
                wanted, where, keys, of.centres, entry, widths[index], flip_probability, space.geometry, chunks
            )
        white, signs = space.whiten(chunks[here]), space.signs(chunks[here])
        total = None
        for index, (of, entry) in enumerate(found):
            density = log_sums_at(white, signs, of.white, of.signs, entry[here], widths[index], keep, flip)
            kernels_of = of.centres.shape[1] * widths[index].size
            density += log_normaliser(space.dimension, kernels_of) + math.log(share[index]) + space.log_det
            total = density if total is None else np.logaddexp(total, density)
        assert total is not None
        return total

    total = split(part, places.size, MANY)
    log_prior = (total[0] if len(total) == 1 else np.concatenate(total)) / temperature
    return Drawn(chunks, (origin + 1).astype(np.int8), log_prior)


MANY = 96
"""Chunks from which a second thread is worth being woken."""


def remembered(memo: dict[str, Any], name: str, make: Callable[[], Any]) -> Any:
    """What a decision's memo has under a name, made if it has nothing."""
    if name not in memo:
        memo[name] = make()
    return memo[name]
