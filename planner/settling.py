"""What happens to claims, compiled: gather what the models need, write what they said, carry values up.

As in ``kernels``, a backup that is not listed here takes the array form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba import njit, prange

from .backup import Backup, MaximumBackup, MeanBackup, TemporalDifferenceMix
from .parallel import side_by_side, together
from .tree import NONE, Tree, is_finite

MIX, MAXIMUM, MEAN = 0, 1, 2

Said: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""What the models said of M states: value, spread, disagreement and done, ``float32`` or ``float64 [M]``
each."""

BACKUPS: dict[type, Callable[[Any], tuple[int, float]]] = {
    TemporalDifferenceMix: lambda backup: (MIX, backup.beta),
    MaximumBackup: lambda backup: (MAXIMUM, 0.0),
    MeanBackup: lambda backup: (MEAN, 0.0),
}
"""By exact type: a subclass may back up otherwise."""


class Carry:
    """The compiled backward pass.

    Args:
        kind, beta: The backup.
        discount: γ^H of a chunk.
        inner_children: Children that a node below the root may have.
        depth: Longest sequence of chunks.
        weights: ``Scoring.weights``.
    """

    def __init__(
        self,
        kind: int,
        beta: float,
        discount: float,
        inner_children: int,
        depth: int,
        weights: tuple[float, float, float],
    ) -> None:
        self._how = int(kind), float(beta), float(discount), int(inner_children)
        self._ends = int(depth), weights

    @staticmethod
    def of(backup: Backup, *settings: Any) -> Carry | None:
        """The pass under this backup and with the other ``settings``, or None where it has no compiled
        form."""
        if type(backup) not in BACKUPS:
            return None
        return Carry(*BACKUPS[type(backup)](backup), *settings)

    def __call__(self, tree: Tree, claims: np.ndarray) -> None:
        """See ``ArrayForm.backward``."""
        _carry(tree.nodes, claims, self._how, (0, len(tree.nodes)))

    def settle(
        self,
        tree: Tree,
        claims: np.ndarray,
        totals: tuple[np.ndarray, np.ndarray],
        first_slot: int,
        latents: np.ndarray,
        said: Said,
    ) -> None:
        """``judge``, ``settle`` and the pass in one call. ``latents`` are ``LatentPool.numbers``: a state for
        which they are not finite has no value."""
        known, how = (tree.nodes, claims, totals, first_slot, latents, said), (self._ends, self._how)
        parts = side_by_side(len(tree.nodes))
        if parts < 2:
            _settle_rows(known, how, (0, len(tree.nodes)))
        else:
            together(_settle_side_by_side, parts, known, how)


Gathered: TypeAlias = tuple[np.ndarray, np.ndarray]
"""What the models need of L claims: chunks ``float32 [L, H, A]``, and what ``LatentPool.numbers`` has of the
claims' parents, ``[L, D]``, or ``[L, 0]``."""


@njit(cache=True, nogil=True, error_model="numpy")
def gather(nodes: Any, chunk: np.ndarray, latents: np.ndarray, claims: np.ndarray) -> Gathered:
    """Of claims ``int64 [L, 2]``; ``latents`` are ``LatentPool.numbers``."""
    count, horizon, actions = len(claims), chunk.shape[2], chunk.shape[3]
    chunks = np.empty((count, horizon * actions), np.float32)
    states = np.empty((count, latents.shape[1]), latents.dtype)
    gather_into(nodes, chunk, latents, claims, chunks, states)
    return chunks.reshape(count, horizon, actions), states


@njit(cache=True, nogil=True, error_model="numpy")
def gather_into(
    nodes: Any,
    chunk: np.ndarray,
    latents: np.ndarray,
    claims: np.ndarray,
    chunks: np.ndarray,
    states: np.ndarray,
) -> None:
    """``gather`` into chunks ``float32 [L, H·A]`` and states ``[L, D]``."""
    # Number by number: assigning an array brings its error messages along, which take seconds to compile.
    flat = chunk.reshape(chunk.shape[0], chunk.shape[1], -1)
    for i in range(len(claims)):
        row, node = claims[i]
        slot = nodes[row, nodes[row, node].parent].latent
        for k in range(flat.shape[2]):
            chunks[i, k] = flat[row, node, k]
        for k in range(latents.shape[1]):
            states[i, k] = latents[slot, k]


@njit(cache=True, error_model="numpy")
def scatter(
    nodes: Any,
    chunk: np.ndarray,
    drawn: np.ndarray,
    chunks: np.ndarray,
    source: np.ndarray,
    log_prior: np.ndarray,
) -> None:
    """Write children ``int64 [3, D]`` (row, parent, which of its children) that were drawn: chunks ``[D, H,
    A]``, sources and unnormalised log-priors ``[D]``; priors are normalised among the siblings drawn so
    far, and uniform where none has any."""
    flat, new = chunk.reshape(chunk.shape[0], chunk.shape[1], -1), chunks.reshape(len(chunks), -1)
    for i in range(len(chunks)):
        row, parent, place = drawn[0, i], drawn[1, i], drawn[2, i]
        child = nodes[row, parent].first_child + place
        for k in range(flat.shape[2]):
            flat[row, child, k] = new[i, k]
        nodes[row, child].source = source[i]
        nodes[row, child].log_prior = log_prior[i]
    for i in range(len(chunks)):
        row, parent, place = drawn[0, i], drawn[1, i], drawn[2, i]
        if place + 1 != nodes[row, parent].child_count:
            continue  # once for each parent, when the last is there
        first = nodes[row, parent].first_child
        siblings = nodes[row, first : first + place + 1]
        largest, total = -np.inf, 0.0
        for k in range(siblings.size):
            largest = max(largest, siblings[k].log_prior)
        for k in range(siblings.size):
            weight = math.exp(siblings[k].log_prior - largest) if math.isfinite(largest) else 1.0
            siblings[k].prior = weight
            total += weight
        for k in range(siblings.size):
            siblings[k].prior /= total


@njit(cache=True, error_model="numpy")
def judge(
    numbers: np.ndarray, weights: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``Scoring.judge`` of what was ``Said``, ``float64 [4, M]``, without a value where the latent is not
    finite: own and backed-up scores, done-probabilities, who qualifies and who ended. ``weights`` are the
    pessimism, the weight of the disagreement, and the done-probability that ends."""
    count = numbers.shape[1]
    own, scores, certain = np.empty(count), np.empty(count), np.empty(count)
    qualified, ended = np.empty(count, np.bool_), np.empty(count, np.bool_)
    for i in range(count):
        said = numbers[0, i], numbers[1, i], numbers[2, i], numbers[3, i]
        own[i], scores[i], certain[i], qualified[i], ended[i] = _judge(said, weights)
    return own, scores, certain, qualified, ended


@njit(cache=True, error_model="numpy")
def _judge(
    said: tuple[float, float, float, float], weights: tuple[float, float, float]
) -> tuple[float, float, float, bool, bool]:
    """``judge`` of one state."""
    value, spread, disagreement, done = said
    pessimism, distrust, terminal = weights
    alive = value - pessimism * spread - distrust * disagreement
    if not (math.isfinite(alive) and math.isfinite(done) and math.isfinite(disagreement)):
        return -np.inf, -np.inf, 0.0, False, True
    likely = min(max(done, 0.0), 1.0)
    # The end is absorbing and worth 1: the done-probability mixes that in.
    return alive, likely + (1.0 - likely) * alive, likely, True, likely >= terminal


@njit(cache=True, error_model="numpy")
def settle(
    nodes: Any,
    claims: np.ndarray,
    totals: tuple[np.ndarray, np.ndarray],
    first_slot: int,
    judged: Any,
    max_depth: int,
) -> None:
    """Write what ``judge`` said about claims ``int64 [L, 2]``, and the spread and disagreement before it, to
    the nodes; ``totals`` counts evaluations, and those that were not finite, ``int64 [B]``."""
    own, value, done, qualified, ended, spread, disagreement = judged
    for i in range(len(claims)):
        one = own[i], value[i], done[i], qualified[i], ended[i]
        _settle(nodes, claims[i], totals, first_slot + i, one, (spread[i], disagreement[i]), max_depth)


@njit(cache=True, error_model="numpy")
def _settle(
    nodes: Any,
    claim: np.ndarray,
    totals: tuple[np.ndarray, np.ndarray],
    slot: int,
    judged: tuple[float, float, float, bool, bool],
    doubts: tuple[float, float],
    max_depth: int,
) -> None:
    """``settle`` of one claim ``int64 [2]``."""
    spent, disqualified = totals
    row, index = claim
    node = nodes[row, index]
    own, value, done, qualified, ended = judged
    node.latent, node.own, node.value, node.done = slot, own, value, done
    node.spread, node.disagreement = doubts
    node.closed = ended or node.depth >= max_depth
    spent[row] += 1
    if not qualified:
        disqualified[row] += 1


@njit(cache=True, error_model="numpy")
def root_candidates(nodes: Any, chunk: np.ndarray, alive: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of the roots' candidates ``[B, K]``: chunks ``float32 [B, K, H, A]``, source ``int8``, value
    ``float64`` (−inf in rows that are not ``alive``), spread ``float64``, visits ``int32``, closed ``bool``,
    prior ``float32``."""
    shape, flat = (len(nodes), np.int64(nodes[0, 0].child_count)), chunk.reshape(*chunk.shape[:2], -1)
    chunks = np.empty((*shape, flat.shape[2]), np.float32)
    source, closed = np.empty(shape, np.int8), np.empty(shape, np.bool_)
    value, spread, prior = np.empty(shape), np.empty(shape), np.empty(shape, np.float32)
    visits = np.empty(shape, np.int32)
    for row in range(shape[0]):
        for k in range(shape[1]):
            node = nodes[row, 1 + k]
            source[row, k], closed[row, k], visits[row, k] = node.source, node.closed, node.visits
            value[row, k] = node.value if alive[row] else -np.inf
            spread[row, k], prior[row, k] = node.spread, node.prior
            for n in range(flat.shape[2]):
                chunks[row, k, n] = flat[row, 1 + k, n]
    return chunks.reshape(*shape, *chunk.shape[2:]), source, value, spread, visits, closed, prior


@njit(cache=True, nogil=True, error_model="numpy")
def _carry(nodes: Any, claims: np.ndarray, how: tuple[int, float, float, int], rows: tuple[int, int]) -> None:
    """``ArrayForm.backward`` of the claims in the ``rows`` from one number to another."""
    kind, beta, discount, inner_children = how
    for i in range(len(claims)):
        row, index = claims[i]
        if not rows[0] <= row < rows[1]:
            continue
        node = nodes[row, index]
        counted = 1 if math.isfinite(node.value) else 0
        node.visits += counted
        node.pending = 0
        up = np.int64(node.parent)
        while up != NONE:
            parent = nodes[row, up]
            parent.visits += counted
            parent.pending -= 1
            if parent.pending == 0:  # the last claim below it: everything there is final
                _refresh(nodes[row], up, kind, beta, discount, inner_children)
            up = np.int64(parent.parent)


@njit(cache=True, nogil=True, error_model="numpy")
def _settle_rows(known: Any, how: Any, rows: tuple[int, int]) -> None:
    """``Carry.settle`` of the claims in the ``rows`` from one number to another; the other arguments are put
    together there."""
    nodes, claims, totals, first_slot, latents, (value, spread, disagreement, done) = known
    (max_depth, weights), backup = how
    for i in range(len(claims)):
        if not rows[0] <= claims[i, 0] < rows[1]:
            continue
        known = np.float64(value[i])
        if latents.size and not is_finite(latents, first_slot + i):
            known = np.nan
        doubts = np.float64(spread[i]), np.float64(disagreement[i])
        judged = _judge((known, *doubts, np.float64(done[i])), weights)
        _settle(nodes, claims[i], totals, first_slot + i, judged, doubts, max_depth)
    _carry(nodes, claims, backup, rows)


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def _settle_side_by_side(parts: int, known: Any, how: Any) -> None:
    """``_settle_rows`` in so many parts of the rows at once."""
    # Threads are handed arrays and numbers, no tuples.
    nodes, claims, (spent, disqualified), first_slot, latents, (value, spread, disagreement, done) = known
    (max_depth, (pessimism, distrust, terminal)), (kind, beta, discount, inner_children) = how
    for part in prange(parts):
        rows = len(nodes) * part // parts, len(nodes) * (part + 1) // parts
        said, weights = (value, spread, disagreement, done), (pessimism, distrust, terminal)
        settings = (max_depth, weights), (kind, beta, discount, inner_children)
        _settle_rows((nodes, claims, (spent, disqualified), first_slot, latents, said), settings, rows)


@njit(cache=True, error_model="numpy")
def _refresh(nodes: Any, index: Any, kind: int, beta: float, discount: float, inner_children: int) -> None:
    """Value and closedness of a node from its children."""
    node = nodes[index]
    first, count = np.int64(node.first_child), np.int64(node.child_count)
    best, total, below = -np.inf, 0.0, 0
    closed = index == 0 or count == inner_children
    for k in range(first, first + count):
        child = nodes[k]
        closed = closed and child.closed
        if math.isfinite(child.value):
            best = max(best, child.value)
            total += discount * child.value * child.visits
            below += child.visits
    backed = node.own
    if kind == MEAN:
        backed = (node.own + total) / (1.0 + below)
    elif math.isfinite(best):
        backed = discount * best
        if kind == MIX:
            backed = (1.0 - beta) * node.own + beta * discount * best
    node.value = node.done + (1.0 - node.done) * backed
    node.closed = closed
