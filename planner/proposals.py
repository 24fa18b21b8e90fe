"""Candidate chunks and how likely each is: a mixture of kernel sources with exact density."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numba import njit

from ..interfaces import ActionSpec, ForethoughtError
from .chunk_space import ChunkSpace, binary_grippers, clip, clipped
from .context import Context
from .drawing import draw_evenly
from .inputs import every
from .kernels import claim_unknown
from .lanes import describe, describe_centres
from .noise import stream_keys, uniforms
from .one_by_one import Drawer, Kernels, Mixture, NodeKernels, remembered, weigh
from .opening import Drawing, from_kernels, from_samples, take_samples
from .settling import Gathered
from .sources import KernelSource, PolicyKernels, varies_with
from .tree import Tree, add_roots, finite_rows


@dataclass(frozen=True, eq=False)
class Proposed:
    """Candidates for M nodes.

    Attributes:
        chunks: ``float32 [M, K, H, A]``, inside the bounds.
        source: ``int8 [M, K]``, an index into the proposals' ``source_names``.
        prior: ``float64 [M, K]``, normalised over K.
        log_density: ``float64 [M, K]``, per unit of normalised volume; zero where there is no density.
    """

    chunks: np.ndarray
    source: np.ndarray
    prior: np.ndarray
    log_density: np.ndarray


@dataclass(frozen=True, eq=False)
class Drawn:
    """One more candidate for each of M nodes.

    Attributes:
        chunks: ``float32 [M, H, A]``, inside the bounds.
        source: ``int8 [M]``, an index into the proposals' ``source_names``.
        log_prior: ``float64 [M]``; the prior is their softmax over the candidates that a node has so far.
    """

    chunks: np.ndarray
    source: np.ndarray
    log_prior: np.ndarray


@runtime_checkable
class Proposals(Protocol):
    """Anything that offers chunks to a node. One that can draw them singly is ``OneByOne`` as well; one that
    has a method ``plant``, see ``planted``, puts them under new roots itself and is not asked there."""

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names that ``Proposed.source`` points to; the first is the policy's own chunk."""
        ...

    def propose(self, context: Context, count: int, *, keep_policy: bool) -> Proposed:
        """At most ``count`` chunks a node. With ``keep_policy`` slot 0 is the policy's own chunk,
        unaltered."""
        ...


@runtime_checkable
class OneByOne(Protocol):
    """Proposals whose candidates below the root are drawn when the tree asks for them, and not before.

    Those that also have a method ``compiled``, as ``opening.drawing`` asks for it, are not even asked."""

    def draw(self, context: Context, places: np.ndarray) -> Drawn:
        """Candidate number ``places[m]`` (``int64 [M]``, from 0) of each node: always the same for the same
        seed, node and place, whatever else is drawn. Any first n of them are a fair sample."""
        ...


def propose(proposals: Proposals, context: Context, count: int, *, keep_policy: bool) -> Proposed:
    """``proposals.propose``, its shapes checked: compiled loops read what it offers.

    Raises:
        ForethoughtError: The shapes are others than ``Proposed`` says, or there are more than ``count``.
    """
    offered = proposals.propose(context, count, keep_policy=keep_policy)
    chunks = offered.chunks.shape
    if (
        len(chunks) != 4
        or chunks[0] != context.seeds.size
        or not 1 <= chunks[1] <= count
        or chunks[2:] != context.policy.shape[2:]
    ):
        horizon, size = context.policy.shape[2:]
        wanted = f"[{context.seeds.size}, 1 to {count}, {horizon}, {size}]"
        raise _misshapen(proposals, f"chunks {wanted}, a set for each node", chunks)
    _require_each(proposals, chunks[:2], source=offered.source, prior=offered.prior)
    return offered


Planted: TypeAlias = tuple[np.ndarray, Gathered, Drawing | None]
"""Claims ``int64 [L, 2]`` of all candidates at new roots, what the models need of them, and what ``compiled``
would say, if that is known."""


def planted(
    proposals: Proposals, context: Context, count: int, tree: Tree, latents: np.ndarray
) -> Planted | None:
    """What ``propose`` offers the roots, the policy's chunk kept, put into new trees and claimed by the
    proposals themselves, in one compiled call. None of proposals without a method ``plant``, and where it
    returns None.

    Args:
        proposals: Those.
        context: Of the roots.
        count: Most candidates of each.
        tree: The new trees.
        latents: ``LatentPool.numbers``.
    """
    plant = getattr(proposals, "plant", None)
    return None if plant is None else plant(context, count, tree, latents)


def draw(proposals: Proposals, context: Context, places: np.ndarray, count: int) -> Drawn:
    """``proposals.draw``; of proposals that cannot, the candidates at these places among ``count``.

    Raises:
        ForethoughtError: The shapes are others than ``Drawn`` says, or there are fewer candidates than that.
    """
    one = getattr(proposals, "draw", None)  # isinstance of a protocol takes longer than the draw
    if one is not None:
        drawn = one(context, places)
        chunks = drawn.chunks.shape
        if chunks != (places.size, *context.policy.shape[2:]):
            wanted = [places.size, *context.policy.shape[2:]]
            raise _misshapen(proposals, f"chunks {wanted}, one for each node", chunks)
        _require_each(proposals, chunks[:1], source=drawn.source, log_prior=drawn.log_prior)
        return drawn
    offered = propose(proposals, context, count, keep_policy=False)
    if offered.chunks.shape[1] != count:
        raise _too_few(count, offered.chunks.shape[1])
    every = np.arange(len(places)), places
    return Drawn(
        np.ascontiguousarray(offered.chunks[every], np.float32),
        np.ascontiguousarray(offered.source[every], np.int8),
        np.log(np.maximum(offered.prior[every], 1e-300)),
    )


def _require_each(proposals: Proposals, shape: tuple[int, ...], **numbers: np.ndarray) -> None:
    """There must be one of these numbers, by name, for each chunk."""
    for name, array in numbers.items():
        if array.shape != shape:
            raise _misshapen(proposals, f"a {name} for each chunk, {list(shape)}", array.shape)


def _misshapen(proposals: Proposals, wanted: str, got: tuple[int, ...]) -> ForethoughtError:
    return ForethoughtError(
        f"{type(proposals).__name__} must offer {wanted}; got shape {list(got)}. Chunks are as long as the "
        "policy's own: see planner.proposals for what each field holds."
    )


def _too_few(wanted: int, offered: int) -> ForethoughtError:
    return ForethoughtError(
        f"Below the root, proposals must offer inner_children={wanted} chunks; got {offered}. "
        "Lower inner_children, or search at depth 1."
    )


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


@dataclass(frozen=True, eq=False)
class PolicySamples:
    """The policy's own samples as they are: what best-of-N compares. Their prior is the policy's likelihood,
    where it has one."""

    spec: ActionSpec
    source_names: tuple[str, ...] = ("policy", "policy_samples")

    def propose(self, context: Context, count: int, *, keep_policy: bool) -> Proposed:
        chunks = self._clipped(context)[context.rows, :count]
        rows, number = chunks.shape[:2]
        source = np.ones((rows, number), np.int8)
        source[:, 0] = 0
        prior = np.full((rows, number), 1.0 / number)
        if (weights := context.weights) is not None:
            prior = np.maximum(weights[:, :number], 1e-30)
            prior /= prior.sum(axis=1, keepdims=True)
        return Proposed(chunks, source, prior, np.zeros((rows, number)))

    def draw(self, context: Context, places: np.ndarray) -> Drawn:
        """The policy's samples in their order."""
        chunks, source, last = take_samples(self._clipped(context), context.rows, places)
        if last >= context.policy.shape[1]:
            raise _too_few(last + 1, context.policy.shape[1])
        log_prior = np.zeros(places.size)
        if (weights := context.policy_weights) is not None:
            log_prior = np.log(np.maximum(weights[context.rows, places], 1e-30))
        return Drawn(chunks, source, log_prior)

    def compiled(self, context: Context, count: int) -> Drawing | None:
        """See ``drawing``."""
        clipped_samples, weights = self._clipped(context), context.policy_weights
        if type(self) is not PolicySamples or count > clipped_samples.shape[1]:
            return None
        if weights is None:
            return from_samples(clipped_samples, np.zeros(clipped_samples.shape[:2]))
        return from_samples(clipped_samples, np.log(np.maximum(weights, 1e-30)))

    def _clipped(self, context: Context) -> np.ndarray:
        return remembered(context.memo, "policy_samples", lambda: clipped(context.policy, self.spec))


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


def prior_from_density(density: np.ndarray, temperature: float) -> np.ndarray:
    """``softmax(density / temperature)`` over the last axis; uniform where no candidate has any density."""
    flat = np.ascontiguousarray(density, np.float64).reshape(-1, density.shape[-1])
    return _softmax(flat, float(temperature)).reshape(density.shape)


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
