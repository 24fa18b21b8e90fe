"""Candidate chunks from a mixture of kernel sources, whose exact density says how likely each is."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit

from ..interfaces import ActionSpec, ForethoughtError
from .chunk_space import ChunkSpace, binary_grippers, clip
from .context import Context
from .drawing import draw_evenly
from .inputs import every
from .kernels import claim_unknown
from .lanes import describe, describe_centres
from .noise import stream_keys, uniforms
from .one_by_one import Drawer, Kernels, Mixture, NodeKernels, remembered, weigh
from .opening import Drawing, from_kernels
from .proposals import Drawn, Planted, Proposed
from .settling import Gathered
from .sources import KernelSource, PolicyKernels, varies_with
from .tree import Tree, add_roots, finite_rows

MOST_SOURCES = 7
"""Sources of a mixture: each draws from a stream of its own, and a node has eight, one for the order."""


@dataclass(frozen=True, eq=False)
class KernelProposals:
    """Draws from a mixture of kernel sources; the mixture's density is the prior.

    Sources receive slots in proportion to their shares, the policy's own slot counting for the first of them.
    Within a source centres and bandwidths are drawn systematically (every kernel equally likely, few of them
    twice).

    The prior is ``softmax(log_density / temperature)`` over the K candidates. A chunk has some fifty
    coordinates, so that log-densities differ by tens of nats and a temperature of 1 puts all mass on one
    candidate; the default divides by the number of continuous coordinates (the density's geometric mean per
    coordinate).

    Attributes:
        spec: Meaning and bounds of the action.
        sources: Kernel sources.
        shared: Share of a kernel's variance that all steps of a chunk have in common.
        rotation_scale: Factor on the deviation of rotations.
        flip_probability: Probability that a binary gripper is inverted for a whole chunk.
        temperature: Divisor of the log-density, or None for the number of continuous coordinates.
    """

    spec: ActionSpec
    sources: tuple[KernelSource, ...] = (PolicyKernels(),)
    shared: float = 0.85
    rotation_scale: float = 0.4
    flip_probability: float = 0.1
    temperature: float | None = None
    _names: tuple[str, ...] = field(init=False, repr=False)
    _spaces: dict[int, ChunkSpace] = field(default_factory=dict, init=False, repr=False)
    _kernels: dict[str, tuple[np.ndarray, Kernels]] = field(default_factory=dict, init=False, repr=False)
    _slots: dict[tuple[int, bool], list[int]] = field(default_factory=dict, init=False, repr=False)
    _drawers: dict[int, Drawer] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sources or any(not source.share > 0.0 for source in self.sources):
            shares = {source.name: source.share for source in self.sources}
            raise ForethoughtError(f"Every source needs a positive share, and one at least; got {shares}.")
        if len(self.sources) > MOST_SOURCES:
            raise ForethoughtError(
                f"A mixture has at most {MOST_SOURCES} sources; got {len(self.sources)}. "
                "Put the kernels of several into one source."
            )
        for source in self.sources:
            if not source.bandwidths or any(not width > 0.0 for width in source.bandwidths):
                raise ForethoughtError(
                    f"Bandwidths must be positive numbers; source {source.name!r} has {source.bandwidths}."
                )
        if not 0.0 <= self.flip_probability < 1.0:
            raise ForethoughtError(f"flip_probability must lie in [0, 1); got {self.flip_probability}.")
        if self.temperature is not None and not self.temperature > 0.0:
            raise ForethoughtError(f"temperature must be positive or None; got {self.temperature}.")
        object.__setattr__(self, "_names", ("policy", *(source.name for source in self.sources)))

    @property
    def source_names(self) -> tuple[str, ...]:
        return self._names

    def space(self, horizon: int) -> ChunkSpace:
        """The geometry of chunks of this length."""
        if horizon not in self._spaces:
            self._spaces[horizon] = ChunkSpace(self.spec, horizon, self.shared, self.rotation_scale)
        return self._spaces[horizon]

    def propose(self, context: Context, count: int, *, keep_policy: bool) -> Proposed:
        rows, (horizon, size) = context.rows.size, context.policy.shape[2:]
        drawer = self._drawer(horizon)
        kernels = [self._kernels_of(source, context) for source in self.sources]
        chunks = np.empty((rows, count, horizon, size), np.float32)
        labels = np.zeros((rows, count), np.int8)
        if keep_policy and len(kernels) == 1:
            of, entry = kernels[0]
            which = context.rows, context.seeds, context.nodes, entry
            mixture, described = drawer.mixture(of), of.described
            prior, density = _offer(context.policy, *which, mixture, described, chunks, labels)
            of.described = True
            return Proposed(chunks, labels, prior, density)
        filled = 0
        if keep_policy:
            bounds = self.spec.low, self.spec.high, binary_grippers(self.spec)
            _keep_policy(context.policy, context.rows, *bounds, chunks)
            filled = 1
        for index, number in enumerate(self._counts(count, keep_policy)):
            if number:
                slots = filled, number
                drawer.evenly(index, kernels[index], context.seeds, context.nodes, slots, (chunks, labels))
                filled += number
        if not keep_policy:  # a prefix of the candidates must be a fair sample: the tree widens in this order
            order = np.argsort(uniforms(stream_keys(context.seeds, context.nodes * 8 + 7), count), axis=1)
            take = np.arange(rows)[:, None], order
            chunks, labels = chunks[take], labels[take]
        density = drawer.log_density(chunks, kernels)
        temperature = self.temperature or self.space(horizon).dimension or 1
        return Proposed(chunks, labels, _softmax(density, float(temperature)), density)

    def plant(self, context: Context, count: int, tree: Tree, latents: np.ndarray) -> Planted | None:
        """See ``planted``: mixtures of one source."""
        if type(self) is not KernelProposals or len(self.sources) != 1:
            return None
        of, entries = self._kernels_of(self.sources[0], context)
        mixture, described = self._drawer(context.policy.shape[2]).mixture(of), of.described
        tree.reserve(1 + count)
        new, seeds = (tree.nodes, tree.chunk, tree.size), context.seeds
        claims = _plant(*new, count, latents, context.policy, seeds, entries, mixture, described)
        of.described = True
        below = from_kernels(seeds, entries, mixture) if self._same_below() else None
        return *claims, below

    def draw(self, context: Context, places: np.ndarray) -> Drawn:
        """One more candidate of each node; ``log_prior`` is the log-density divided by the temperature."""
        drawer = self._drawer(context.policy.shape[2])
        kernels = [self._kernels_of(source, context) for source in self.sources]
        return Drawn(*drawer(context.seeds, context.nodes, places, kernels))

    def compiled(self, context: Context, count: int) -> Drawing | None:
        """See ``drawing``: mixtures of one source whose kernels do not depend on the node."""
        if type(self) is not KernelProposals or len(self.sources) != 1 or not self._same_below():
            return None
        kernels, entries = self._kernels_of(self.sources[0], context)
        mixture = self._drawer(context.policy.shape[2]).mixture(kernels.describe())
        return from_kernels(context.seeds, entries, mixture)

    def _same_below(self) -> bool:
        """Whether the kernels of the first source are those of all nodes."""
        return varies_with(self.sources[0]) in ("tree", "nothing")

    def _drawer(self, horizon: int) -> Drawer:
        """What draws chunks of this length."""
        if horizon not in self._drawers:
            space, sources = self.space(horizon), self.sources
            self._drawers[horizon] = Drawer(
                space,
                [source.share for source in sources],
                [source.bandwidths for source in sources],
                self.flip_probability,
                self.temperature or space.dimension or 1,
            )
        return self._drawers[horizon]

    def _kernels_of(self, source: KernelSource, context: Context) -> tuple[Kernels, np.ndarray]:
        """The kernels of a source, and the entry of each of the context's nodes among them."""
        varies = varies_with(source)
        if varies == "tree":
            known = context.memo.get(source.name)
            if known is None:
                trees = context.of_trees()
                centres = self._centres(source, trees)
                if len(centres) != len(trees.samples):  # the same for all trees, each of which has an entry
                    centres = np.repeat(centres, len(trees.samples), axis=0)
                known = context.memo[source.name] = Kernels(self.space(centres.shape[2]), centres)
            return known, context.rows
        space = self.space(context.policy.shape[2])
        if varies == "nothing":
            centres = self._centres(source, context)
            kept = self._kernels.get(source.name)
            if kept is None or kept[0] is not centres:
                kept = self._kernels[source.name] = centres, Kernels(space, centres)
            return kept[1], np.zeros(context.rows.size, np.int64)
        nodes = remembered(context.memo, source.name, NodeKernels)
        return nodes.of(context, functools.partial(self._of_nodes, source), space)

    def _of_nodes(self, source: KernelSource, context: Context) -> np.ndarray:
        centres = self._centres(source, context)
        return np.broadcast_to(centres, (context.rows.size, *centres.shape[1:]))

    def log_density(self, context: Context, chunks: np.ndarray) -> np.ndarray:
        """Log-density ``float64 [M, K]`` of chunks ``[M, K, H, A]`` under the mixture (before clipping), per
        unit of normalised volume of the continuous indices and per pattern of the binary grippers."""
        kernels = [self._kernels_of(source, context) for source in self.sources]
        return self._drawer(chunks.shape[-2]).log_density(chunks, kernels)

    def _centres(self, source: KernelSource, context: Context) -> np.ndarray:
        rows, _, horizon, size = context.samples.shape
        centres = source.centres(context)
        good = centres.ndim == 4 and centres.shape[0] in (1, rows) and centres.shape[1] > 0
        if not good or centres.shape[2:] != (horizon, size):
            raise ForethoughtError(
                f"Source {source.name!r} offers chunks of shape {centres.shape}, but this policy needs "
                f"[{rows}, n, {horizon}, {size}] (rows, kernels, horizon, action). "
                "Rebuild the memory with this horizon and action."
            )
        if centres is context.samples or centres.shape[0] != rows:  # these are known to be finite
            return centres
        if not every(finite_rows(centres.reshape(rows, -1))):
            own = context.samples[:, :1]
            centres = np.where(np.isfinite(centres).all(axis=(2, 3), keepdims=True), centres, own)
        return centres

    def _counts(self, count: int, keep_policy: bool) -> list[int]:
        """Slots per source: largest remainders, so that the sum is exact."""
        if (count, keep_policy) not in self._slots:
            self._slots[count, keep_policy] = self._count(count, keep_policy)
        return self._slots[count, keep_policy]

    def _count(self, count: int, keep_policy: bool) -> list[int]:
        shares = np.array([source.share for source in self.sources], np.float64)
        exact = count * shares / shares.sum()
        counts = np.floor(exact).astype(int)
        for index in np.argsort(-(exact - counts), kind="stable")[: count - counts.sum()]:
            counts[index] += 1
        if keep_policy:
            counts[0 if counts[0] else int(np.argmax(counts))] -= 1
        return counts.tolist()


@njit(cache=True, error_model="numpy")
def _keep_policy(
    policy: np.ndarray,
    rows: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    gripper: np.ndarray,
    out: np.ndarray,
) -> None:
    """The policy's own chunk of each of the rows ``[M]`` of ``[B, N, H, A]``, inside the bounds, into the
    first slot of ``out [M, K, H, A]``."""
    for i in range(rows.size):
        clip(policy[rows[i], 0], low, high, gripper, out[i, 0])


@njit(cache=True, nogil=True, error_model="numpy")
def _offer(
    policy: np.ndarray,
    rows: np.ndarray,
    seeds: np.ndarray,
    nodes: np.ndarray,
    entries: np.ndarray,
    mixture: Mixture,
    described: bool,
    chunks: np.ndarray,
    labels: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """All of ``KernelProposals.propose`` that keeps the policy's chunk, for a mixture of one source, whose
    kernels are ``described`` or will be: chunks into ``[M, K, H, A]``, sources into ``[M, K]``; prior and
    log-density."""
    centres, white, words, flip_probability, geometry, steps, constant, temperature = mixture
    count, slots = chunks.shape[1], (1, chunks.shape[1] - 1)
    bounds = geometry[4]
    _keep_policy(policy, rows, bounds[0], bounds[1], geometry[1], chunks)
    how = steps[0][0], flip_probability, geometry
    draw_evenly(seeds, nodes, 0, slots, centres, entries, *how, chunks, labels)
    if not described:
        describe_centres(centres, geometry, white, words)
    query, word = describe(chunks.reshape(-1, chunks.shape[2], chunks.shape[3]), geometry)
    density = weigh(query, word, white, words, entries, steps, constant).reshape(-1, count)
    return _softmax(density, temperature), density


@njit(cache=True, nogil=True, error_model="numpy")
def _plant(
    nodes: Any,
    chunk: np.ndarray,
    size: np.ndarray,
    count: int,
    latents: np.ndarray,
    policy: np.ndarray,
    seeds: np.ndarray,
    entries: np.ndarray,
    mixture: Mixture,
    described: bool,
) -> tuple[np.ndarray, Gathered]:
    """What ``_offer`` offers the roots, put into new trees and claimed."""
    rows, roots = np.arange(seeds.size), np.zeros(seeds.size, np.int64)
    chunks = np.empty((seeds.size, count, chunk.shape[2], chunk.shape[3]), np.float32)
    labels = np.zeros((seeds.size, count), np.int8)
    prior, _ = _offer(policy, rows, seeds, roots, entries, mixture, described, chunks, labels)
    add_roots(nodes, chunk, size, chunks, labels, prior)
    return claim_unknown(nodes, chunk, latents)


@njit(cache=True, error_model="numpy")
def _softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Of ``[M, K]`` divided by the temperature, over K."""
    out = np.empty(logits.shape)
    for i in range(len(logits)):
        largest, total = -np.inf, 0.0
        for k in range(logits.shape[1]):
            out[i, k] = logits[i, k] / temperature
            largest = max(largest, out[i, k])
        for k in range(logits.shape[1]):
            out[i, k] = math.exp(out[i, k] - largest) if math.isfinite(largest) else 1.0
            total += out[i, k]
        for k in range(logits.shape[1]):
            out[i, k] /= total
    return out
