"""Candidate chunks and how likely each is: a mixture of kernel sources with exact density."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError, Latent
from .chunk_space import ChunkSpace
from .density import log_density
from .noise import normals, stream_keys, uniforms
from .sources import KernelSource, PolicyKernels


@dataclass(frozen=True, eq=False)
class Context:
    """What a proposal may depend on, for M nodes.

    Attributes:
        samples: The policy's chunks at the root of each node's tree, ``float32 [M, N, H, A]``, finite.
        latent: State of each node, ``[M, ...]``.
        instruction: M strings.
        seeds: ``int64 [M]``, seed of the row.
        nodes: ``int64 [M]``, number of the node within its tree; 0 is the root.
    """

    samples: np.ndarray
    latent: Latent
    instruction: Sequence[str]
    seeds: np.ndarray
    nodes: np.ndarray


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


@runtime_checkable
class Proposals(Protocol):
    """Anything that offers chunks to a node."""

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names that ``Proposed.source`` points to; the first is the policy's own chunk."""
        ...

    def propose(self, context: Context, count: int, *, keep_policy: bool) -> Proposed:
        """At most ``count`` chunks a node. With ``keep_policy`` slot 0 is the policy's own chunk,
        unaltered."""
        ...


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
    _spaces: dict[int, ChunkSpace] = field(default_factory=dict, init=False, repr=False)
    _constant: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False
    )

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

    @property
    def source_names(self) -> tuple[str, ...]:
        return ("policy", *(source.name for source in self.sources))

    def space(self, horizon: int) -> ChunkSpace:
        """The geometry of chunks of this length."""
        if horizon not in self._spaces:
            self._spaces[horizon] = ChunkSpace(self.spec, horizon, self.shared, self.rotation_scale)
        return self._spaces[horizon]

    def propose(self, context: Context, count: int, *, keep_policy: bool) -> Proposed:
        rows, _, horizon, size = context.samples.shape
        space = self.space(horizon)
        centres = [self._centres(source, context) for source in self.sources]
        chunks = np.empty((rows, count, horizon, size), np.float32)
        labels = np.zeros((rows, count), np.int8)
        filled = 0
        if keep_policy:
            chunks[:, 0] = self.spec.clip(context.samples[:, 0])
            filled = 1
        for index, number in enumerate(self._counts(count, keep_policy)):
            keys = stream_keys(context.seeds, context.nodes * 8 + index)
            drawn = self._draw(space, self.sources[index], centres[index], keys, number)
            chunks[:, filled : filled + number] = drawn
            labels[:, filled : filled + number] = index + 1
            filled += number
        if not keep_policy:  # a prefix of the candidates must be a fair sample: the tree widens in this order
            order = np.argsort(uniforms(stream_keys(context.seeds, context.nodes * 8 + 7), count), axis=1)
            take = np.arange(rows)[:, None], order
            chunks, labels = chunks[take], labels[take]
        density = self._log_density(space, centres, chunks)
        return Proposed(
            chunks, labels, prior_from_density(density, self.temperature or space.dimension or 1), density
        )

    def log_density(self, context: Context, chunks: np.ndarray) -> np.ndarray:
        """Log-density ``float64 [M, K]`` of chunks ``[M, K, H, A]`` under the mixture (before clipping), per
        unit of normalised volume of the continuous indices and per pattern of the binary grippers."""
        space = self.space(chunks.shape[-2])
        return self._log_density(space, [self._centres(source, context) for source in self.sources], chunks)

    def _log_density(self, space: ChunkSpace, centres: list[np.ndarray], chunks: np.ndarray) -> np.ndarray:
        white, signs = space.whiten(chunks), space.signs(chunks)
        whole = sum(source.share for source in self.sources)
        total = np.full(chunks.shape[:2], -np.inf)
        for source, middle in zip(self.sources, centres):
            kernels = self._coordinates(space, source, middle)
            part = log_density(white, signs, *kernels, source.bandwidths, self.flip_probability)
            total = np.logaddexp(total, part + np.log(source.share / whole))
        return total + space.log_det

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
        if centres.shape[0] == rows and not np.isfinite(centres).all():
            own = context.samples[:, :1]
            centres = np.where(np.isfinite(centres).all(axis=(2, 3), keepdims=True), centres, own)
        return centres

    def _coordinates(
        self, space: ChunkSpace, source: KernelSource, centres: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whitened coordinates and gripper signs; kept for a source that always returns the same array."""
        known = self._constant.get(source.name)
        if known is not None and known[0] is centres:
            return known[1:]
        white, signs = space.whiten(centres), space.signs(centres)
        if centres.shape[0] == 1:
            self._constant[source.name] = centres, white, signs
        return white, signs

    def _counts(self, count: int, keep_policy: bool) -> list[int]:
        """Slots per source: largest remainders, so that the sum is exact."""
        shares = np.array([source.share for source in self.sources], np.float64)
        exact = count * shares / shares.sum()
        counts = np.floor(exact).astype(int)
        for index in np.argsort(-(exact - counts), kind="stable")[: count - counts.sum()]:
            counts[index] += 1
        if keep_policy:
            counts[0 if counts[0] else int(np.argmax(counts))] -= 1
        return counts.tolist()

    def _draw(
        self, space: ChunkSpace, source: KernelSource, centres: np.ndarray, keys: np.ndarray, number: int
    ) -> np.ndarray:
        """Chunks ``[M, number, H, A]`` from one source."""
        rows, kernels, grippers = keys.size, centres.shape[1], space.gripper.size
        uniform = uniforms(stream_keys(keys.view(np.int64), 0), 1 + number * grippers)
        # Systematic: evenly spaced ranks, one common offset; of (bandwidth, centre) the centre runs fastest.
        rank = (np.arange(number) + uniform[:, :1]) * (kernels * len(source.bandwidths) / max(number, 1))
        rank = np.minimum(rank.astype(np.intp), kernels * len(source.bandwidths) - 1)
        width = np.asarray(source.bandwidths, np.float64)[rank // kernels]
        row = np.arange(rows)[:, None] if centres.shape[0] > 1 else np.zeros((rows, 1), np.intp)
        white = normals(stream_keys(keys.view(np.int64), 1), number * space.dimension)
        white = white.reshape(rows, number, space.dimension) * width[..., None]
        flip = uniform[:, 1:].reshape(rows, number, grippers) < self.flip_probability
        return space.perturb(centres[row, rank % kernels], white, flip)


@dataclass(frozen=True, eq=False)
class PolicySamples:
    """The policy's own samples as they are: what best-of-N compares."""

    spec: ActionSpec
    source_names: tuple[str, ...] = ("policy", "policy_samples")

    def propose(self, context: Context, count: int, *, keep_policy: bool) -> Proposed:
        chunks = self.spec.clip(context.samples[:, :count])
        rows, number = chunks.shape[:2]
        source = np.ones((rows, number), np.int8)
        source[:, 0] = 0
        return Proposed(chunks, source, np.full((rows, number), 1.0 / number), np.zeros((rows, number)))


def prior_from_density(density: np.ndarray, temperature: float) -> np.ndarray:
    """``softmax(density / temperature)`` over the last axis; uniform where no candidate has any density."""
    scaled = density / temperature
    largest = scaled.max(axis=-1, keepdims=True)
    hopeless = ~np.isfinite(largest)
    weight = np.where(hopeless, 1.0, np.exp(scaled - np.where(hopeless, 0.0, largest)))
    return weight / weight.sum(axis=-1, keepdims=True)
