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
from .parallel import split
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
NO_SCHEDULE, NO_NOISE = (
    np.zeros(0, np.int64),
    np.zeros((1, 0)),
)  # the logits are worked out as they are needed
NO_SCHEDULE.setflags(write=False)  # as schedules are: one compiled form serves all


@dataclass(frozen=True, eq=False)
class RuleKernel:
    """A selection rule as the compiled walk takes it.

    Attributes:
        kind: Which formula.
        constants: Its constants, ``float64 [2]``.
        schedule: Visits that are due, ``int64 [simulations]``; empty without a schedule.
        noise: Added to the logits of halving at the root, ``float64 [B, K]`` or ``[1, 1]``; ``[1, 0]`` below.
    """

    kind: int
    constants: np.ndarray
    schedule: np.ndarray = field(default_factory=lambda: NO_SCHEDULE)
    noise: np.ndarray = field(default_factory=lambda: NO_NOISE)

    @property
    def arrays(self) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """All of it, in this order."""
        return self.kind, self.constants, self.schedule, self.noise


def _halving(rule: SequentialHalving, children: int, seeds: np.ndarray) -> RuleKernel:
    noise = np.zeros((1, 1))
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
        self._root, self._inner = root.arrays, inner.arrays
        self._widening = float(factor), float(power)
        self._depth, self._children = depth, inner_children
        self._wave = 0

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

    def __call__(self, tree: Tree, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Claims ``int64 [L, 2]`` and drawn ``int64 [D, 3]``; see ``TreeSearch.simulate``."""
        tree.reserve(int(tree.size.max()) + int(width.max()) * self._children)
        self._wave += 1
        if self._wave == 1 and self._root[0] == HALVING:  # the root's candidates stay what they are
            prior = tree.prior[:, 1 : 1 + int(tree.child_count[0, 0])]
            noise = self._root[3] if self._root[3].size else 0.0
            self._root = (*self._root[:3], np.log(np.maximum(prior, 1e-30)) + noise)

        def part(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            most = int(width[start:stop].sum())
            claims = np.empty((most, 2), np.int64)
            drawn = np.empty((most * (self._children + self._depth), 3), np.int64)  # more can wait for a wave
            rows = np.arange(start, stop)
            claimed, opened = _walk(
                tree.nodes,
                tree.size,
                self._wave,
                rows,
                width,
                self._root,
                self._inner,
                self._widening,
                self._depth,
                self._children,
                claims,
                drawn,
            )
            return claims[:claimed], drawn[:opened]

        parts = split(part, width.size, MANY)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([claims for claims, _ in parts]), np.concatenate([drawn for _, drawn in parts])


MANY = 4
"""Trees from which a second thread is worth being woken."""


@njit(cache=True, error_model="numpy")
def claim_unknown(nodes: Any) -> np.ndarray:
    """Claims ``int64 [L, 2]`` of all candidates at the roots that are not evaluated."""
    count = nodes[0, 0].child_count
    claims, claimed = np.empty((len(nodes) * count, 2), np.int64), 0
    for row in range(len(nodes)):
        for child in range(1, 1 + count):
            if nodes[row, child].latent == NONE:
                nodes[row, child].pending += 1
                nodes[row, 0].pending += 1
                claims[claimed, 0], claims[claimed, 1] = row, child
                claimed += 1
    return claims[:claimed]


@njit(cache=True, error_model="numpy")
def close_roots(nodes: Any, alive: np.ndarray) -> None:
    """Close rows that are not ``alive`` (``bool [B]``) and those whose policy chunk has no finite value."""
    for row in range(alive.size):
        if not alive[row] or not math.isfinite(nodes[row, 1].value):
            nodes[row, 0].closed = True


@njit(cache=True, error_model="numpy")
def widths(nodes: Any, spent: np.ndarray, simulations: int, wave: int) -> tuple[np.ndarray, bool]:
    """Leaves that each row may claim now, ``int64 [B]``, of ``simulations`` in all; and whether any may."""
    width, some = np.zeros(spent.size, np.int64), False
    for row in range(spent.size):
        if not nodes[row, 0].closed:
            width[row] = min(wave, max(simulations - spent[row], 0))
            some = some or width[row] > 0
    return width, some


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(
    tree: Any,
    size: np.ndarray,
    wave: int,
    rows: np.ndarray,
    width: np.ndarray,
    root: Any,
    inner: Any,
    widening: tuple[float, float],
    max_depth: int,
    inner_children: int,
    claims: np.ndarray,
    drawn: np.ndarray,
) -> tuple[int, int]:
    score = np.empty(max(inner_children, tree[0, 0].child_count))
    claimed, opened = 0, 0
    for row in rows:
        left = width[row]
        if left <= 0:
            continue
        nodes = tree[row]
        while left > 0 and _is_free(nodes[0], wave):
            node = np.int64(0)
            for _ in range(max_depth):
                wanted = np.int64(nodes[node].child_count)
                if node > 0:
                    if nodes[node].first_child == NONE:
                        nodes[node].first_child = size[row]
                        size[row] += inner_children
                    wanted = _widened(nodes[node].visits + nodes[node].pending, widening, inner_children)
                first, count = np.int64(nodes[node].first_child), np.int64(nodes[node].child_count)
                free = False
                for i in range(first, first + count):
                    free = free or _is_free(nodes[i], wave)
                # All that is open is done or claimed: widen by one rather than wait.
                while (
                    node > 0
                    and count < inner_children
                    and (count < wanted or not free)
                    and opened < drawn.shape[0]
                ):
                    child = first + count
                    _open(nodes, node, child)
                    count += 1
                    free = True
                    drawn[opened, 0], drawn[opened, 1], drawn[opened, 2] = row, node, count - 1
                    opened += 1
                if not free:  # nothing is left below: a dead end for the rest of the wave
                    nodes[node].blocked = wave
                    break
                children, rule = nodes[first : first + count], inner
                if node == 0:
                    rule = root
                kind, constants, schedule, noise = rule
                if kind == HALVING:
                    known = noise[min(row, noise.shape[0] - 1)]
                    _score_halving(children, nodes[node].own, constants, schedule, known, score)
                else:
                    _score(kind, children, nodes[node].own, constants, score)
                node = first + _best(score, children, wave)
                if nodes[node].latent == NONE:
                    nodes[node].blocked = wave
                    claims[claimed, 0], claims[claimed, 1] = row, node
                    claimed += 1
                    left -= 1
                    up = node
                    while up != NONE:
                        nodes[up].pending += 1
                        up = np.int64(nodes[up].parent)
                    break
    return claimed, opened


@njit(cache=True, error_model="numpy")
def _open(nodes: Any, parent: Any, child: Any) -> None:
    """``Tree.open_child`` in one row."""
    new = nodes[child]
    place = nodes[parent].child_count
    new.parent, new.first_child, new.child_count, new.depth = parent, NONE, 0, nodes[parent].depth + 1
    new.latent, new.visits, new.pending, new.blocked = NONE, 0, 0, 0
    new.value, new.prior, new.log_prior, new.own = np.nan, 1.0 / (place + 1), 0.0, np.nan
    new.done, new.spread, new.disagreement, new.source, new.closed = 0.0, 0.0, 0.0, 0, False
    nodes[parent].child_count = place + 1
    for sibling in range(child - place, child):
        nodes[sibling].prior *= place / (place + 1)


@njit(cache=True, error_model="numpy")
def _widened(visits: int, widening: tuple[float, float], most: int) -> int:
    """``ProgressiveWidening``, and not more than there may be."""
    factor, power = widening
    seen = max(visits, 1)
    grown = math.sqrt(seen) if power == 0.5 else seen**power
    return int(min(math.ceil(factor * grown), most))


@njit(cache=True, error_model="numpy")
def _is_free(node: Any, wave: int) -> bool:
    """Whether something can still be claimed at or below a node in this wave."""
    return not node.closed and node.blocked != wave


@njit(cache=True, error_model="numpy")
def _best(score: np.ndarray, children: Any, wave: int) -> int:
    """The free sibling with the highest score, the first of equals; scores that are not finite come last."""
    chosen, best = -1, -np.inf
    for i in range(children.size):
        if not _is_free(children[i], wave):
            continue
        own = score[i] if math.isfinite(score[i]) else -1.7976931348623157e308
        if chosen < 0 or own > best:
            chosen, best = i, own
    return chosen


@njit(cache=True, error_model="numpy")
def _complete(children: Any, parent: float, out: np.ndarray) -> tuple[int, float, float]:
    """Completed values into ``out``; visits of all, the lowest and the highest finite value."""
    total, weighted, evaluated, all_visits, known = 0.0, 0.0, 0, 0, 0
    low, high = np.inf, -np.inf
    for i in range(children.size):
        child = children[i]
        count = child.visits + child.pending
        all_visits += count
        out[i] = child.value
        if math.isfinite(child.value):
            total += child.prior
            weighted += child.prior * child.value
            evaluated += count
            low, high = min(low, child.value), max(high, child.value)
        known += not math.isnan(child.value)
    if known < children.size:
        average = weighted / total if total > 0.0 else weighted
        own = parent if math.isfinite(parent) else average
        mixed = (own + evaluated * average) / (1.0 + evaluated) if total > 0.0 else own
        for i in range(children.size):
            if math.isnan(out[i]):
                out[i] = mixed
        if math.isfinite(mixed):
            low, high = min(low, mixed), max(high, mixed)
    return all_visits, low, high


@njit(cache=True, error_model="numpy")
def _rescale(out: np.ndarray, count: int, low: float, high: float) -> None:
    span = max(high - low, 1e-8) if math.isfinite(high - low) else 1.0
    for i in range(count):
        out[i] = (out[i] - low) / span if math.isfinite(out[i]) else -np.inf


@njit(cache=True, error_model="numpy")
def _score(kind: int, children: Any, parent: float, constants: np.ndarray, out: np.ndarray) -> None:
    """``Puct`` or ``DensityUcb`` into ``out``."""
    all_visits, low, high = _complete(children, parent, out)
    count = children.size
    if kind == PUCT:
        _rescale(out, count, low, high)
        scale = constants[0] * math.sqrt(max(all_visits, 1))
        for i in range(count):
            out[i] += scale * children[i].prior / (1.0 + children[i].visits + children[i].pending)
    else:
        total = 0.0
        for i in range(count):
            total += 1.0 + count * children[i].prior
        log_total = math.log(max(total, 1.0))
        for i in range(count):
            out[i] += constants[0] * math.sqrt(log_total / (1.0 + count * children[i].prior))


@njit(cache=True, error_model="numpy")
def _score_halving(
    children: Any,
    parent: float,
    constants: np.ndarray,
    schedule: np.ndarray,
    logits: np.ndarray,
    out: np.ndarray,
) -> None:
    """``SequentialHalving`` into ``out``. ``logits`` are those of the prior, with noise, or empty."""
    turn, low, high = _complete(children, parent, out)
    count = children.size
    _rescale(out, count, low, high)
    most = 0
    for i in range(count):
        most = max(most, children[i].visits + children[i].pending)
    scale = (constants[0] + most) * constants[1]
    best = -np.inf
    for i in range(count):
        logit = logits[i] if logits.size else math.log(max(children[i].prior, 1e-30))
        out[i] = logit + scale * out[i]
        best = max(best, out[i])
    if turn < schedule.size:
        due = schedule[turn]
        for i in range(count):
            if children[i].visits + children[i].pending == due:
                out[i] += 1e6
        return
    best = best if math.isfinite(best) else 0.0
    total = 0.0
    for i in range(count):
        out[i] = math.exp(out[i] - best)
        total += out[i]
    total = max(total, 1e-30)
    for i in range(count):
        out[i] = out[i] / total - (children[i].visits + children[i].pending) / (1.0 + turn)
