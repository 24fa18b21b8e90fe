"""What proposals are: candidate chunks for the nodes of a tree, and how likely each is. Also the simplest of
them, the policy's own samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError
from .chunk_space import clipped
from .context import Context
from .one_by_one import remembered
from .opening import Drawing, from_samples, take_samples
from .settling import Gathered
from .tree import Tree


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
