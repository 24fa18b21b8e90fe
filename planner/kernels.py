"""The loops of the walk down the tree, compiled: select, widen, open nodes, claim leaves.

They do row by row what ``array_form`` writes for whole arrays. Sums run in another order there, so scores
agree to rounding.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numba import njit

from .opening import ELSEWHERE, draw_opened
from .settling import Gathered, gather, gather_into
from .tree import BLANK, NONE

PUCT, DENSITY_UCB, HALVING = 0, 1, 2


@njit(cache=True, error_model="numpy")
def claim_unknown(nodes: Any, chunk: np.ndarray, latents: np.ndarray) -> tuple[np.ndarray, Gathered]:
    """Claims ``int64 [L, 2]`` of all candidates at the roots that are not evaluated, and what the models need
    of them, with the ``latents`` of ``LatentPool.numbers``."""
    count = nodes[0, 0].child_count
    claims, claimed = np.empty((len(nodes) * count, 2), np.int64), 0
    for row in range(len(nodes)):
        for child in range(1, 1 + count):
            if nodes[row, child].latent == NONE:
                nodes[row, child].pending += 1
                nodes[row, 0].pending += 1
                claims[claimed, 0], claims[claimed, 1] = row, child
                claimed += 1
    return claims[:claimed], gather(nodes, chunk, latents, claims[:claimed])


@njit(cache=True, error_model="numpy")
def close_roots(nodes: Any, alive: np.ndarray) -> None:
    """Close rows that are not ``alive`` (``bool [B]``) and those whose policy chunk has no finite value."""
    for row in range(alive.size):
        if not alive[row] or not math.isfinite(nodes[row, 1].value):
            nodes[row, 0].closed = True


Allowance: TypeAlias = tuple[np.ndarray, int, int]
"""What rows may claim: evaluations so far, ``int64 [B]``; how many there may be in all; and how many in a
wave."""


@njit(cache=True, nogil=True, error_model="numpy")
def widths(nodes: Any, allowance: Allowance) -> np.ndarray:
    """Leaves that each row may claim now, ``int64 [B]``."""
    spent, simulations, wave = allowance
    width = np.zeros(spent.size, np.int64)
    for row in range(spent.size):
        if not nodes[row, 0].closed:
            width[row] = min(wave, max(simulations - spent[row], 0))
    return width


@njit(cache=True, nogil=True, error_model="numpy")
def walk_rows(
    start: int,
    stop: int,
    first: int,
    known: Any,
    how: Any,
    claims: np.ndarray,
    drawn: np.ndarray,
    chunks: np.ndarray,
    states: np.ndarray,
) -> tuple[int, int]:
    """The walk in the rows from ``start`` to ``stop``, whose claims are written from the ``first`` on, with
    what the models need of them. How many they are, and how many children are yet to be drawn."""
    tree, chunk, size, latents, wave, width = known
    root, inner, widening, max_depth, inner_children, drawing = how
    most = 0
    for row in range(start, stop):
        most += width[row]
    limit = most * (inner_children + max_depth)  # more can wait for a wave
    above, below = _siblings(tree[0, 0].child_count), _siblings(inner_children)
    claimed, opened = first, 0
    for row in range(start, stop):
        left = width[row]
        if left <= 0:
            continue
        nodes, count = tree[row], np.int64(tree[row, 0].child_count)
        logits = _root_logits(nodes, count, root, row)
        # Values of the root's candidates stay what they are during a wave: they are read once.
        free_above = _look(nodes, 1, count, wave, above)
        steady = _complete(root[0], nodes[0].own, count, above)
        while left > 0 and _is_free(nodes[0], wave):
            if not free_above:
                nodes[0].blocked = wave
                break
            if not steady:
                _look(nodes, 1, count, wave, above)
                _complete(root[0], nodes[0].own, count, above)
            _score(root, logits, count, above)
            step = _best(count, above)
            node = np.int64(1 + step)
            while nodes[node].latent != NONE:
                if nodes[node].first_child == NONE:
                    nodes[node].first_child = size[row]
                    size[row] += inner_children
                begin, children = np.int64(nodes[node].first_child), np.int64(nodes[node].child_count)
                wanted = _widened(nodes[node].visits + nodes[node].pending, widening, inner_children)
                free = _look(nodes, begin, children, wave, below)
                before = children
                # All that is open is done or claimed: widen by one rather than wait.
                while children < inner_children and (children < wanted or not free) and opened < limit:
                    _open(nodes, node, begin + children)
                    drawn[0, opened], drawn[1, opened], drawn[2, opened] = row, node, children
                    opened, children, free = opened + 1, children + 1, free + 1
                if not free:
                    break
                if children > before:  # which changed the others' priors
                    _look(nodes, begin, children, wave, below)
                if free > 1:
                    _complete(inner[0], nodes[node].own, children, below)
                    _score(inner, inner[3][0], children, below)
                node = begin + _best(children, below)
            nodes[node].blocked = wave  # claimed, or nothing is left below: a dead end for the rest of it
            if node == 1 + step:
                above[FREE][step], free_above = False, free_above - 1
            if nodes[node].latent == NONE:
                claims[claimed, 0], claims[claimed, 1] = row, node
                claimed, left = claimed + 1, left - 1
                above[SEEN][step] += 1
                while node != NONE:
                    nodes[node].pending += 1
                    node = np.int64(nodes[node].parent)
    if opened and drawing[0] != ELSEWHERE:
        draw_opened(tree, chunk, drawn[:, :opened], drawing)
        opened = 0
    if not opened:
        gather_into(tree, chunk, latents, claims[first:claimed], chunks[first:claimed], states[first:claimed])
    return claimed - first, opened


@njit(cache=True, error_model="numpy")
def _root_logits(nodes: Any, count: Any, root: Any, row: int) -> np.ndarray:
    """Logarithms of the priors of one root's candidates, plus noise, ``float64 [K]``: they stay what they are
    during a wave. Only halving looks at them."""
    logits, noise = np.empty(count), root[3]
    for k in range(count if root[0] == HALVING else 0):
        logits[k] = math.log(max(nodes[1 + k].prior, 1e-30))
        if noise.size:
            logits[k] += noise[row, k]
    return logits


@njit(cache=True, error_model="numpy")
def _open(nodes: Any, parent: Any, child: Any) -> None:
    """``Tree.open_child`` in one row."""
    place = nodes[parent].child_count
    nodes[child] = BLANK[0]
    new = nodes[child]
    new.parent, new.depth, new.prior = parent, nodes[parent].depth + 1, 1.0 / (place + 1)
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


VALUE, SEEN, PRIOR, FREE, SCORE = 0, 1, 2, 3, 4


@njit(cache=True)
def _siblings(most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Room for so many siblings: values, completed and rescaled; visits, virtual ones included; priors;
    whether something can still be claimed there; scores. Side by side, not a node's record after another's,
    the formulas compile to vector instructions."""
    seen, free = np.empty(most, np.int64), np.empty(most, np.bool_)
    return np.empty(most), seen, np.empty(most), free, np.empty(most)


@njit(cache=True, error_model="numpy")
def _look(nodes: Any, first: Any, count: Any, wave: int, siblings: Any) -> int:
    """What is known of siblings; how many are free."""
    value, seen, prior, free = siblings[:4]
    left = 0
    for i in range(count):
        node = nodes[first + i]
        value[i], prior[i] = node.value, node.prior
        seen[i] = node.visits + node.pending
        free[i] = _is_free(node, wave)
        left += free[i]
    return left


@njit(cache=True, error_model="numpy")
def _best(count: Any, siblings: Any) -> int:
    """The free sibling with the highest score, the first of equals; scores that are not finite come last. The
    only one that is free needs no score."""
    free, score = siblings[FREE], siblings[SCORE]
    chosen, best = -1, -np.inf
    for i in range(count):
        if not free[i]:
            continue
        own = score[i] if math.isfinite(score[i]) else -1.7976931348623157e308
        if chosen < 0 or own > best:
            chosen, best = i, own
    return chosen


@njit(cache=True, error_model="numpy")
def _complete(kind: int, parent: float, count: Any, siblings: Any) -> bool:
    """Fills the gaps in the values and, but for ``DensityUcb``, rescales them. Whether there were none."""
    value, seen, prior = siblings[:3]
    total, weighted, evaluated, known = 0.0, 0.0, 0, 0
    low, high = np.inf, -np.inf
    for i in range(count):
        if math.isfinite(value[i]):
            total += prior[i]
            weighted += prior[i] * value[i]
            evaluated += seen[i]
            low, high = min(low, value[i]), max(high, value[i])
        known += not math.isnan(value[i])
    if known < count:
        average = weighted / total if total > 0.0 else weighted
        own = parent if math.isfinite(parent) else average
        mixed = (own + evaluated * average) / (1.0 + evaluated) if total > 0.0 else own
        for i in range(count):
            if math.isnan(value[i]):
                value[i] = mixed
        if math.isfinite(mixed):
            low, high = min(low, mixed), max(high, mixed)
    if kind != DENSITY_UCB:
        span = max(high - low, 1e-8) if math.isfinite(high - low) else 1.0
        for i in range(count):
            value[i] = (value[i] - low) / span if math.isfinite(value[i]) else -np.inf
    return known == count


@njit(cache=True, error_model="numpy")
def _score(rule: Any, logits: np.ndarray, count: Any, siblings: Any) -> None:
    """Scores under a ``RuleKernel``, whose ``logits`` at the root are those of the prior, with noise."""
    kind, constants, schedule = rule[:3]
    value, seen, prior, _, score = siblings
    all_visits, most = 0, 0
    for i in range(count):
        all_visits += seen[i]
        most = max(most, seen[i])
    if kind == PUCT:
        scale = constants[0] * math.sqrt(max(all_visits, 1))
        for i in range(count):
            score[i] = value[i] + scale * prior[i] / (1.0 + seen[i])
    elif kind == DENSITY_UCB:
        total = 0.0
        for i in range(count):
            total += 1.0 + count * prior[i]
        log_total = math.log(max(total, 1.0))
        for i in range(count):
            score[i] = value[i] + constants[0] * math.sqrt(log_total / (1.0 + count * prior[i]))
    else:
        scale = (constants[0] + most) * constants[1]
        if logits.size:
            for i in range(count):
                score[i] = logits[i] + scale * value[i]
        else:
            for i in range(count):
                score[i] = math.log(max(prior[i], 1e-30)) + scale * value[i]
        if all_visits < schedule.size:
            due = schedule[all_visits]
            for i in range(count):
                score[i] += 1e6 if seen[i] == due else 0.0
        else:
            _fall_short(seen, all_visits, count, score)


@njit(cache=True, error_model="numpy")
def _fall_short(seen: np.ndarray, all_visits: int, count: Any, score: np.ndarray) -> None:
    """``selection.shortfall`` of logits, in place."""
    best, total = -np.inf, 0.0
    for i in range(count):
        best = max(best, score[i])
    best = best if math.isfinite(best) else 0.0
    for i in range(count):
        score[i] = math.exp(score[i] - best)
        total += score[i]
    total = max(total, 1e-30)
    for i in range(count):
        score[i] = score[i] / total - seen[i] / (1.0 + all_visits)
