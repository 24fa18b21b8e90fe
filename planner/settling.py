"""What happens to claims, compiled: gather what the models need, write what they said, carry values up.

As in ``kernels``, a backup that is not listed here takes the array form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from .backup import Backup, MaximumBackup, MeanBackup, TemporalDifferenceMix
from .tree import NONE, Tree

MIX, MAXIMUM, MEAN = 0, 1, 2

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
    """

    def __init__(self, kind: int, beta: float, discount: float) -> None:
        self._kind, self._beta, self._discount = kind, beta, discount

    @staticmethod
    def of(backup: Backup, discount: float) -> Carry | None:
        """The pass under this backup, or None where it has no compiled form."""
        if type(backup) not in BACKUPS:
            return None
        return Carry(*BACKUPS[type(backup)](backup), discount)

    def __call__(self, tree: Tree, rows: np.ndarray, nodes: np.ndarray) -> None:
        """See ``TreeSearch.backward``."""
        _carry(
            (tree.parent, tree.first_child, tree.child_count, tree.visits, tree.pending),
            (tree.own, tree.done, tree.value, tree.closed),
            rows,
            nodes,
            self._kind,
            self._beta,
            self._discount,
        )


@njit(cache=True)
def gather(
    parent: np.ndarray, latent: np.ndarray, chunk: np.ndarray, rows: np.ndarray, nodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Latent slots ``[L]`` of the parents of nodes (rows ``[L]``, nodes ``[L]``), and the nodes' chunks."""
    slots = np.empty(rows.size, np.int64)
    chunks = np.empty((rows.size, *chunk.shape[2:]), chunk.dtype)
    for i in range(rows.size):
        slots[i] = latent[rows[i], parent[rows[i], nodes[i]]]
        chunks[i] = chunk[rows[i], nodes[i]]
    return slots, chunks


@njit(cache=True)
def scatter(
    arrays: Any,
    rows: np.ndarray,
    nodes: np.ndarray,
    chunks: np.ndarray,
    source: np.ndarray,
    prior: np.ndarray,
) -> None:
    """Write the candidates of nodes (rows ``[R]``, nodes ``[R]``) to their children."""
    first_child, tree_chunk, tree_source, tree_prior = arrays
    for i in range(rows.size):
        first = first_child[rows[i], nodes[i]]
        for k in range(chunks.shape[1]):
            tree_chunk[rows[i], first + k] = chunks[i, k]
            tree_source[rows[i], first + k] = source[i, k]
            tree_prior[rows[i], first + k] = prior[i, k]


@njit(cache=True)
def judge(
    value: np.ndarray,
    spread: np.ndarray,
    disagreement: np.ndarray,
    done: np.ndarray,
    whole: np.ndarray,
    weights: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """``Scoring.judge`` of numbers ``float64 [M]`` and whether the latent is finite, ``bool [M]``: own and
    backed-up scores, done-probabilities, who qualifies and who ended. ``weights`` are the pessimism, the
    weight of the disagreement, and the done-probability that ends."""
    pessimism, distrust, terminal = weights
    own, scores, certain = np.empty(value.size), np.empty(value.size), np.empty(value.size)
    qualified, ended = np.empty(value.size, np.bool_), np.empty(value.size, np.bool_)
    for i in range(value.size):
        alive = value[i] - pessimism * spread[i] - distrust * disagreement[i]
        good = whole[i] and math.isfinite(alive) and math.isfinite(done[i]) and math.isfinite(disagreement[i])
        likely = min(max(done[i], 0.0), 1.0) if good else 0.0
        own[i] = alive if good else -np.inf
        # The end is absorbing and worth 1: the done-probability mixes that in.
        scores[i] = likely + (1.0 - likely) * alive if good else -np.inf
        certain[i], qualified[i], ended[i] = likely, good, not good or likely >= terminal
    return own, scores, certain, qualified, ended


@njit(cache=True)
def settle(
    numbers: Any,
    states: Any,
    rows: np.ndarray,
    nodes: np.ndarray,
    first_slot: int,
    judged: Any,
    facts: Any,
    max_depth: int,
) -> None:
    """Write what the models said about nodes (rows ``[L]``, nodes ``[L]``); see ``TreeSearch.evaluate``.

    ``judged`` holds own and backed-up scores, spread, done and disagreement, each ``float64 [L]``; ``facts``
    who qualifies and who ended, ``bool [L]``.
    """
    latent, own, value, spread, done, disagreement = numbers
    closed, depth, spent, disqualified = states
    owns, values, spreads, dones, disagreements = judged
    qualified, ended = facts
    for i in range(rows.size):
        row, node = rows[i], nodes[i]
        latent[row, node] = first_slot + i
        own[row, node] = owns[i]
        value[row, node] = values[i]
        spread[row, node] = spreads[i]
        done[row, node] = dones[i]
        disagreement[row, node] = disagreements[i]
        closed[row, node] = ended[i] or depth[row, node] >= max_depth
        spent[row] += 1
        if not qualified[i]:
            disqualified[row] += 1


@njit(cache=True)
def _carry(
    shape: Any,
    statistics: Any,
    rows: np.ndarray,
    nodes: np.ndarray,
    kind: int,
    beta: float,
    discount: float,
) -> None:
    # A parent is computed anew after each claim below it; the last time, everything below it is final.
    parent, first_child, child_count, visits, pending = shape
    own, done, value, closed = statistics
    for i in range(rows.size):
        row, node = rows[i], nodes[i]
        counted = 1 if math.isfinite(value[row, node]) else 0
        visits[row, node] += counted
        pending[row, node] = 0
        up = np.int64(parent[row, node])
        while up != NONE:
            visits[row, up] += counted
            pending[row, up] = 0
            first = first_child[row, up]
            best, total, below, all_closed = -np.inf, 0.0, 0, True
            for child in range(first, first + child_count[row, up]):
                all_closed = all_closed and closed[row, child]
                if math.isfinite(value[row, child]):
                    best = max(best, value[row, child])
                    total += discount * value[row, child] * visits[row, child]
                    below += visits[row, child]
            backed = own[row, up]
            if kind == MEAN:
                backed = (own[row, up] + total) / (1.0 + below)
            elif math.isfinite(best):
                backed = discount * best
                if kind == MIX:
                    backed = (1.0 - beta) * own[row, up] + beta * discount * best
            value[row, up] = done[row, up] + (1.0 - done[row, up]) * backed
            closed[row, up] = all_closed
            up = np.int64(parent[row, up])
