"""The compiled walk of a decision: the rules it knows, and its rows one after the other or in parts side by
side.

A search with a rule that is not listed here takes the array form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numba import njit, prange

from .kernels import DENSITY_UCB, HALVING, PUCT, Allowance, walk_rows, widths
from .noise import gumbels, stream_keys
from .opening import Drawing
from .parallel import side_by_side, together
from .rules import ImprovedPolicy
from .selection import (
    DensityUcb,
    ProgressiveWidening,
    Puct,
    SelectionRule,
    SequentialHalving,
    halving_schedule,
)
from .settling import Gathered
from .tree import Tree

NO_SCHEDULE, NO_NOISE = np.zeros(0, np.int64), np.zeros((1, 0))
NO_SCHEDULE.setflags(write=False)  # as schedules are: one compiled form serves all

RuleKernel: TypeAlias = tuple[int, tuple[float, float], np.ndarray, np.ndarray]
"""A selection rule as the compiled walk takes it: which formula; its constants; visits that are due,
``int64 [simulations]``, empty without a schedule; and what is added to the logits of halving at the root,
``float64 [B, K]``, ``[1, 0]`` for nothing and below the root."""


def _halving(rule: SequentialHalving, children: int, seeds: np.ndarray) -> RuleKernel:
    noise = NO_NOISE
    if rule.gumbel_scale:
        noise = rule.gumbel_scale * gumbels(stream_keys(seeds, -1), children)
    constants = float(rule.visit_offset), float(rule.value_scale)
    return HALVING, constants, halving_schedule(children, rule.simulations), noise


def _unscheduled(kind: int, first: float, second: float = 0.0) -> RuleKernel:
    return kind, (float(first), float(second)), NO_SCHEDULE, NO_NOISE


RULES: dict[type, Callable[[Any, int, np.ndarray], RuleKernel]] = {
    Puct: lambda rule, children, seeds: _unscheduled(PUCT, rule.exploration),
    DensityUcb: lambda rule, children, seeds: _unscheduled(DENSITY_UCB, rule.exploration),
    SequentialHalving: _halving,
    # Halving whose schedule is over.
    ImprovedPolicy: lambda rule, children, seeds: _unscheduled(HALVING, rule.visit_offset, rule.value_scale),
}
"""By exact type: a subclass may score otherwise."""


class Walk:
    """The compiled walk of one decision.

    Args:
        root, inner: Rules at the root and below.
        factor, power: Progressive widening below the root.
        depth: Longest sequence of chunks.
        inner_children: Candidates of every node but the root.
        drawing: How they are drawn.
    """

    def __init__(
        self,
        root: RuleKernel,
        inner: RuleKernel,
        factor: float,
        power: float,
        depth: int,
        inner_children: int,
        drawing: Drawing,
    ) -> None:
        self._how = root, inner, (float(factor), float(power)), int(depth), int(inner_children), drawing
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
        drawing: Drawing,
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
            drawing,
        )

    def __call__(
        self, tree: Tree, latents: np.ndarray, allowance: Allowance
    ) -> tuple[np.ndarray, np.ndarray, Gathered | None]:
        """Claims ``int64 [L, 2]``, and the children that were opened and are yet to be drawn, ``int64 [3,
        D]``; see ``TreeSearch.simulate``. If none are, also what the models need of the claims, with the
        ``latents`` of ``LatentPool.numbers``."""
        self._wave += 1
        claims, drawn, gathered, room = self._go(tree, latents, allowance)
        if room:
            tree.reserve(room)
            claims, drawn, gathered, _ = self._go(tree, latents, allowance)
        return claims, drawn, None if drawn.size else gathered

    def _go(self, tree: Tree, latents: np.ndarray, allowance: Allowance) -> Walked:
        """What ``_walk`` says, of all rows."""
        grown = tree.nodes, tree.chunk, tree.size, latents, self._wave
        parts = side_by_side(tree.size.size)
        if parts < 2:
            return _walk(grown, allowance, self._how)
        return together(_walk_side_by_side, parts, grown, allowance, self._how)


Walked: TypeAlias = tuple[np.ndarray, np.ndarray, Gathered, int]
"""Claims ``int64 [L, 2]``; children that are yet to be drawn, ``int64 [3, D]``; if there are none, what the
models need of the claims; and 0, or, nothing done yet, the nodes that each row must have room for."""


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(grown: Any, allowance: Allowance, how: Any) -> Walked:
    """The walk in all rows, one after the other; the arguments are those of ``Walk._go``."""
    tree, chunk, size, latents, wave = grown
    max_depth, inner_children = how[3:5]
    width = widths(tree, allowance)
    _, first, counts, room = _shared(1, width, size, tree.shape[1], inner_children)
    found = _room_for(first, tree, chunk, latents, max_depth, inner_children)
    known = tree, chunk, size, latents, wave, width
    if not room:
        counts[0] = walk_rows(0, size.size, 0, known, how, found[0], found[1][0], found[2], found[3])
    return _joined(first, counts, found, chunk.shape, room)


@njit(cache=True, nogil=True, error_model="numpy", parallel=True)
def _walk_side_by_side(parts: int, grown: Any, allowance: Allowance, how: Any) -> Walked:
    """The walk in so many parts of the rows at once; the same to the bit."""
    tree, chunk, size, latents, wave = grown
    root, inner, widening, max_depth, inner_children, drawing = how
    width = widths(tree, allowance)
    rows, first, counts, room = _shared(parts, width, size, tree.shape[1], inner_children)
    found = _room_for(first, tree, chunk, latents, max_depth, inner_children)
    # Threads are handed arrays and numbers, no tuples.
    claims, drawn, chunks, states = found
    root_kind, (root_first, root_second), root_schedule, root_noise = root
    inner_kind, (inner_first, inner_second), inner_schedule, inner_noise = inner
    factor, power = widening
    draw, seeds, entries, samples, log_weights, mixture = drawing
    centres, white, words, flip_probability, geometry, steps, constant, temperature = mixture
    continuous, gripper, own, common, bounds, wide = geometry
    rungs, keep, flip, horizon = steps
    walking = 0 if room else parts
    for part in prange(walking):
        space = continuous, gripper, own, common, bounds, wide
        described, ladder = (centres, white, words), (rungs, keep, flip, horizon)
        kernels = *described, flip_probability, space, ladder, constant, temperature
        above = root_kind, (root_first, root_second), root_schedule, root_noise
        below = inner_kind, (inner_first, inner_second), inner_schedule, inner_noise
        source = draw, seeds, entries, samples, log_weights, kernels
        known = tree, chunk, size, latents, wave, width
        rules = above, below, (factor, power), max_depth, inner_children, source
        into = claims, drawn[part], chunks, states
        claimed, opened = walk_rows(rows[part], rows[part + 1], first[part], known, rules, *into)
        counts[part, 0], counts[part, 1] = claimed, opened
    return _joined(first, counts, found, chunk.shape, room)


Found: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Where parts of the rows write: claims ``int64 [M, 2]``; children that are yet to be drawn, ``int64 [P, 3,
D]``, each part its own; chunks ``float32 [M, H·A]`` and states ``[M, D]`` of the claims."""


@njit(cache=True, nogil=True, error_model="numpy")
def _shared(
    parts: int, width: np.ndarray, size: np.ndarray, reserved: int, inner_children: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows that begin the parts, and their number, ``int64 [P + 1]``; the first claim of each part, and how
    many there may be, ``int64 [P + 1]``; zeros for what parts find, ``int64 [P, 2]``; and 0, or, as in
    ``Walked``, the nodes that each row must have room for."""
    rows, first, room = np.zeros(parts + 1, np.int64), np.zeros(parts + 1, np.int64), 0
    for part in range(parts):
        rows[part + 1], first[part + 1] = size.size * (part + 1) // parts, first[part]
        for row in range(rows[part], rows[part + 1]):
            first[part + 1] += width[row]
            room = max(room, size[row] + width[row] * inner_children)
    if room > reserved:
        first[:] = 0
    return rows, first, np.zeros((parts, 2), np.int64), room if room > reserved else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _room_for(
    first: np.ndarray, tree: Any, chunk: np.ndarray, latents: np.ndarray, max_depth: int, inner_children: int
) -> Found:
    """Room for what so many claims may bring."""
    most, widest = first[-1], 0
    for part in range(first.size - 1):
        widest = max(widest, first[part + 1] - first[part])
    claims = np.empty((most, 2), np.int64)
    drawn = np.empty((first.size - 1, 3, widest * (inner_children + max_depth)), np.int64)
    chunks = np.empty((most, chunk.shape[2] * chunk.shape[3]), np.float32)
    return claims, drawn, chunks, np.empty((most, latents.shape[1]), latents.dtype)


@njit(cache=True, nogil=True, error_model="numpy")
def _joined(
    first: np.ndarray, counts: np.ndarray, found: Found, shape: tuple[int, int, int, int], room: int
) -> Walked:
    """What the parts found, one after the other; ``counts`` are their claims and drawn, ``int64 [P, 2]``."""
    claims, drawn, chunks, states = found
    claimed, opened, every = counts[0, 0], counts[0, 1], drawn[0]
    if len(counts) > 1:
        every = np.empty((3, drawn.shape[0] * drawn.shape[2]), np.int64)
        claimed, opened = 0, 0
        for part in range(len(counts)):
            for i in range(counts[part, 1]):
                for k in range(3):
                    every[k, opened + i] = drawn[part, k, i]
            for i in range(counts[part, 0] if claimed < first[part] else 0):  # a part before claimed fewer
                claims[claimed + i] = claims[first[part] + i]
                chunks[claimed + i] = chunks[first[part] + i]
                states[claimed + i] = states[first[part] + i]
            claimed, opened = claimed + counts[part, 0], opened + counts[part, 1]
    gathered = chunks[:claimed].reshape(claimed, shape[2], shape[3]), states[:claimed]
    return claims[:claimed], every[:, :opened], gathered, room
