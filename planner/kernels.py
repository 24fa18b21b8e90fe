"""The walk down the tree, compiled: select, widen, open nodes, claim leaves.

It does row by row what ``search`` writes for whole arrays, with the rules that are listed here; a search with
another one takes the array form. Sums run in another order there, so scores agree to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit

from .noise import gumbels, stream_keys
from .rules import ImprovedPolicy
from .selection import (
    DensityUcb,
    ProgressiveWidening,
    Puct,
    SelectionRule,
    SequentialHalving,
    halving_schedule,
)
from .tree import NONE, Tree

PUCT, DENSITY_UCB, HALVING = 0, 1, 2
NO_SCHEDULE, NO_NOISE = np.zeros(0, np.int64), np.zeros((1, 0))
NO_SCHEDULE.setflags(write=False)  # as schedules are: one compiled form serves all


@dataclass(frozen=True, eq=False)
class RuleKernel:
    """A selection rule as the compiled walk takes it.

    Attributes:
        kind: Which formula.
        constants: Its constants, ``float64 [2]``.
        schedule: Visits that are due, ``int64 [simulations]``; empty without a schedule.
        noise: Added to the scores, ``float64 [B, K]``; ``[1, 0]`` without noise.
    """

    kind: int
    constants: np.ndarray
    schedule: np.ndarray = field(default_factory=lambda: NO_SCHEDULE)
    noise: np.ndarray = field(default_factory=lambda: NO_NOISE)


def _halving(rule: SequentialHalving, children: int, seeds: np.ndarray) -> RuleKernel:
    noise = NO_NOISE
    if rule.gumbel_scale:
        noise = rule.gumbel_scale * gumbels(stream_keys(seeds, -1), children)
    constants = np.array([rule.visit_offset, rule.value_scale])
    return RuleKernel(HALVING, constants, halving_schedule(children, rule.simulations), noise)


RULES: dict[type, Callable[[Any, int, np.ndarray], RuleKernel]] = {
    Puct: lambda rule, children, seeds: RuleKernel(PUCT, np.array([rule.exploration, 0.0])),
    DensityUcb: lambda rule, children, seeds: RuleKernel(DENSITY_UCB, np.array([rule.exploration, 0.0])),
    SequentialHalving: _halving,
    # Halving whose schedule is over.
    ImprovedPolicy: lambda rule, children, seeds: RuleKernel(
        HALVING, np.array([rule.visit_offset, rule.value_scale])
    ),
}
"""By exact type: a subclass may score otherwise."""


class Walk:
    """The compiled walk of one decision.

    Args:
        root, inner: Rules at the root and below.
        factor, power: Progressive widening below the root.
        depth: Longest sequence of chunks.
        inner_children: Candidates of every node but the root.
    """

    def __init__(
        self,
        root: RuleKernel,
        inner: RuleKernel,
        factor: float,
        power: float,
        depth: int,
        inner_children: int,
    ) -> None:
        self._root, self._inner = root, inner
        self._widening = np.array([factor, power], np.float64)
        self._depth, self._children = depth, inner_children
        self._blocked = np.zeros((0, 0), np.bool_)

    @staticmethod
    def of(
        root: SelectionRule,
        inner: SelectionRule,
        widening: ProgressiveWidening,
        *,
        depth: int,
        root_children: int,
        inner_children: int,
        seeds: np.ndarray,
    ) -> Walk | None:
        """The walk under these rules, or None where one of them has no compiled form."""
        if type(root) not in RULES or type(inner) not in RULES:
            return None
        if type(widening) is not ProgressiveWidening:
            return None
        return Walk(
            RULES[type(root)](root, root_children, seeds),
            RULES[type(inner)](inner, inner_children, seeds),
            widening.factor,
            widening.power,
            depth,
            inner_children,
        )

    def __call__(
        self, tree: Tree, width: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
        """Claims and fresh nodes; see ``TreeSearch.simulate``. Every claim opens one node at the most."""
        most = int(width.sum())
        tree.reserve(int(tree.size.max()) + int(width.max()) * self._children)
        if self._blocked.shape != tree.closed.shape:
            self._blocked = np.zeros(tree.closed.shape, np.bool_)
        claims, fresh = np.empty((2, most), np.int64), np.empty((2, most), np.int64)
        root, inner = self._root, self._inner
        claimed, opened = _walk(
            (tree.size, tree.parent, tree.first_child, tree.child_count, tree.depth),
            (tree.prior, tree.latent, tree.visits, tree.pending, tree.own, tree.value, tree.closed),
            self._blocked,
            width,
            (root.kind, root.constants, root.schedule, root.noise),
            (inner.kind, inner.constants, inner.schedule, inner.noise),
            self._widening,
            self._depth,
            self._children,
            claims,
            fresh,
        )
        new = [(fresh[0, :opened], fresh[1, :opened])] if opened else []
        return (claims[0, :claimed], claims[1, :claimed]), new


@njit(cache=True)
def _walk(
    shape: Any,
    statistics: Any,
    blocked: np.ndarray,
    width: np.ndarray,
    root: Any,
    inner: Any,
    widening: np.ndarray,
    max_depth: int,
    inner_children: int,
    claims: np.ndarray,
    fresh: np.ndarray,
) -> tuple[int, int]:
    size, parent, first_child, child_count, depth = shape
    prior, latent, visits, pending, own, value, closed = statistics
    score = np.empty(max(inner_children, child_count[0, 0]))
    claimed, opened = 0, 0
    for row in range(width.size):
        left = width[row]
        if left <= 0:
            continue
        blocked[row, : size[row]] = closed[row, : size[row]]
        while left > 0 and not blocked[row, 0]:
            node = np.int64(0)
            for _ in range(max_depth):
                if first_child[row, node] == NONE:
                    start = size[row]
                    first_child[row, node] = start
                    child_count[row, node] = inner_children
                    size[row] = start + inner_children
                    for i in range(start, start + inner_children):
                        parent[row, i] = node
                        depth[row, i] = depth[row, node] + 1
                        prior[row, i] = 1.0 / inner_children
                        blocked[row, i] = False
                    fresh[0, opened], fresh[1, opened] = row, node
                    opened += 1
                first, count = np.int64(first_child[row, node]), np.int64(child_count[row, node])
                block = slice(first, first + count)
                if node == 0:
                    open_children = count
                else:
                    seen = max(visits[row, node] + pending[row, node], 1)
                    open_children = np.int64(min(math.ceil(widening[0] * seen ** widening[1]), count))
                open_children = _opened(blocked[row, block], open_children)
                if open_children == 0:  # nothing is left below: a dead end for the rest of the wave
                    blocked[row, node] = True
                    break
                arrays = (
                    value[row, block],
                    prior[row, block],
                    visits[row, block],
                    pending[row, block],
                    score[:count],
                )
                kind, constants, schedule, noise = root if node == 0 else inner
                if kind == HALVING:
                    noise_row = noise[min(row, noise.shape[0] - 1)]
                    _score_halving(arrays, own[row, node], constants, schedule, noise_row)
                else:
                    _score(kind, arrays, own[row, node], constants)
                node = first + _best(score, blocked[row, block], open_children)
                if latent[row, node] == NONE:
                    blocked[row, node] = True
                    claims[0, claimed], claims[1, claimed] = row, node
                    claimed += 1
                    left -= 1
                    up = node
                    while up != NONE:
                        pending[row, up] += 1
                        up = np.int64(parent[row, up])
                    break
    return claimed, opened


@njit(cache=True)
def _opened(blocked: np.ndarray, wanted: int) -> int:
    """How many of the siblings are open: those wanted, or up to the first that is free; 0 if none is."""
    for i in range(blocked.size):
        if not blocked[i]:
            return max(wanted, i + 1)
    return 0


@njit(cache=True)
def _best(score: np.ndarray, blocked: np.ndarray, opened: int) -> int:
    """The free sibling with the highest score, the first of equals; scores that are not finite come last."""
    chosen, best = -1, -np.inf
    for i in range(opened):
        if blocked[i]:
            continue
        own = score[i] if math.isfinite(score[i]) else -1.7976931348623157e308
        if chosen < 0 or own > best:
            chosen, best = i, own
    return chosen


@njit(cache=True)
def _complete(arrays: Any, parent: float) -> tuple[int, float, float]:
    """Completed values into the last array; visits of all, the lowest and the highest finite value."""
    value, prior, visits, pending, out = arrays
    total, weighted, evaluated, all_visits = 0.0, 0.0, 0, 0
    for i in range(value.size):
        count = visits[i] + pending[i]
        all_visits += count
        if math.isfinite(value[i]):
            total += prior[i]
            weighted += prior[i] * value[i]
            evaluated += count
    average = weighted / total if total > 0.0 else weighted
    own = parent if math.isfinite(parent) else average
    mixed = (own + evaluated * average) / (1.0 + evaluated) if total > 0.0 else own
    low, high = np.inf, -np.inf
    for i in range(value.size):
        out[i] = mixed if math.isnan(value[i]) else value[i]
        if math.isfinite(out[i]):
            low, high = min(low, out[i]), max(high, out[i])
    return all_visits, low, high


@njit(cache=True)
def _rescale(out: np.ndarray, low: float, high: float) -> None:
    span = max(high - low, 1e-8) if math.isfinite(high - low) else 1.0
    for i in range(out.size):
        out[i] = (out[i] - low) / span if math.isfinite(out[i]) else -np.inf


@njit(cache=True)
def _score(kind: int, arrays: Any, parent: float, constants: np.ndarray) -> None:
    """``Puct`` or ``DensityUcb`` into the last array."""
    _, prior, visits, pending, out = arrays
    all_visits, low, high = _complete(arrays, parent)
    if kind == PUCT:
        _rescale(out, low, high)
        root = math.sqrt(max(all_visits, 1))
        for i in range(out.size):
            out[i] += constants[0] * prior[i] * root / (1.0 + visits[i] + pending[i])
    else:
        total = 0.0
        for i in range(out.size):
            total += 1.0 + out.size * prior[i]
        log_total = math.log(max(total, 1.0))
        for i in range(out.size):
            out[i] += constants[0] * math.sqrt(log_total / (1.0 + out.size * prior[i]))


@njit(cache=True)
def _score_halving(
    arrays: Any, parent: float, constants: np.ndarray, schedule: np.ndarray, noise: np.ndarray
) -> None:
    """``SequentialHalving`` into the last array."""
    _, prior, visits, pending, out = arrays
    turn, low, high = _complete(arrays, parent)
    _rescale(out, low, high)
    most = 0
    for i in range(out.size):
        most = max(most, visits[i] + pending[i])
    scale = (constants[0] + most) * constants[1]
    best = -np.inf
    for i in range(out.size):
        out[i] = math.log(max(prior[i], 1e-30)) + scale * out[i]
        if noise.size:
            out[i] += noise[i]
        best = max(best, out[i])
    if turn < schedule.size:
        due = schedule[turn]
        for i in range(out.size):
            if visits[i] + pending[i] == due:
                out[i] += 1e6
        return
    best = best if math.isfinite(best) else 0.0
    total = 0.0
    for i in range(out.size):
        out[i] = math.exp(out[i] - best)
        total += out[i]
    total = max(total, 1e-30)
    for i in range(out.size):
        out[i] = out[i] / total - (visits[i] + pending[i]) / (1.0 + turn)
