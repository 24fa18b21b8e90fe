"""Moves a part of yesterday's tree under today's root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..interfaces import Latent
from .tree import NONE, LatentPool, Tree

INHERITED = "inherited"
"""Name of the source of candidates that come from the tree of the decision before."""

_COPIED = (
    "chunk",
    "visits",
    "own",
    "spread",
    "done",
    "disagreement",
    "value",
    "prior",
    "log_prior",
    "source",
    "latent",
)


@dataclass(frozen=True, eq=False)
class Subtree:
    """What lies below one node of a finished search.

    Attributes:
        tree: The trees of that search.
        pool: Their latents.
        row: Row of the tree.
        node: The node; what is known below it is what is inherited.
    """

    tree: Tree
    pool: LatentPool
    row: int
    node: int

    @property
    def latent(self) -> Latent:
        """State that was predicted at the node, ``[1, ...]``."""
        return self.pool.take(self.tree.latent[[self.row], [self.node]])

    @property
    def disagreement(self) -> float:
        """The world model's disagreement about it."""
        return float(self.tree.disagreement[self.row, self.node])

    def best(self, count: int) -> np.ndarray:
        """The ``count`` best children among those with a finite value, ``int64 [<= count]``, in the order in
        which they were drawn."""
        first = int(self.tree.first_child[self.row, self.node])
        children = first + np.arange(int(self.tree.child_count[self.row, self.node]))
        value = self.tree.value[self.row, children]
        seen = children[np.isfinite(value)]
        order = np.argsort(-self.tree.value[self.row, seen], kind="stable")[: max(count, 0)]
        return np.sort(seen[order])


def graft(
    subtrees: Sequence[Subtree | None],
    tree: Tree,
    pool: LatentPool,
    children: np.ndarray,
    source: int,
    depth: int,
    inner_children: int,
    terminal: float,
) -> None:
    """Put the best children below each subtree's node into slots of the new root, with all that is known
    below them.

    They take at most half of the slots beside the policy's own, evenly spread, so that every source of fresh
    proposals gives up its share. The number of slots stays what it was: a row does not notice whether its
    neighbours inherit.

    Args:
        subtrees: One per row, or None.
        tree: The new trees; the root's candidates are drawn and not evaluated.
        pool: Their latents.
        children: Numbers of the root's candidates, ``int64 [K]``, the policy's own first.
        source: What ``Tree.source`` says of inherited candidates.
        depth: Longest imagined sequence of chunks: nodes that are now less deep may be open again.
        inner_children: Children that a node below the root may have.
        terminal: Done-probability from which a node counts as the end.
    """
    for row, subtree in enumerate(subtrees):
        if subtree is None:
            continue
        best = subtree.best((children.size - 1) // 2)
        if not best.size:
            continue
        places = np.linspace(1, children.size - 1, best.size).round().astype(np.int64)
        slots = children[places]
        # A prior is relative to how many siblings share it.
        siblings = int(subtree.tree.child_count[subtree.row, subtree.node])
        levels = _copy(subtree, best, tree, pool, row, slots, inner_children)
        tree.source[row, slots] = source
        tree.prior[row, slots] *= siblings / children.size
        tree.prior[row, children] /= tree.prior[row, children].sum()
        tree.visits[row, 0] += tree.visits[row, slots].sum()
        for nodes in reversed(levels):
            _close(tree, row, nodes, depth, inner_children, terminal)


def _copy(
    subtree: Subtree,
    nodes: np.ndarray,
    tree: Tree,
    pool: LatentPool,
    row: int,
    places: np.ndarray,
    inner_children: int,
) -> list[np.ndarray]:
    """Copy nodes and all their descendants; the first go to ``places``, the rest to the end of the row. The
    numbers of the copies, level by level."""
    old, levels = subtree.tree, [places]
    while True:
        for name in _COPIED:
            getattr(tree, name)[row, places] = getattr(old, name)[subtree.row, nodes]
        known = places[tree.latent[row, places] != NONE]
        slot = pool.add(subtree.pool.take(tree.latent[row, known]))
        tree.latent[row, known] = np.arange(slot, pool.used)
        expanded = old.first_child[subtree.row, nodes] != NONE
        parents, nodes = places[expanded], nodes[expanded]
        if not nodes.size:
            return levels
        blocks = []
        for parent, count in zip(parents, old.child_count[subtree.row, nodes]):
            opened = tree.add_children(np.array([row]), np.array([parent]), int(count), inner_children)
            blocks.append(opened[0])
        nodes = np.concatenate(
            [
                first + np.arange(block.size)
                for first, block in zip(old.first_child[subtree.row, nodes].astype(np.int64), blocks)
            ]
        )
        places = np.concatenate(blocks)
        levels.append(places)


def _close(tree: Tree, row: int, nodes: np.ndarray, depth: int, inner_children: int, terminal: float) -> None:
    """Say which nodes of one level have nothing left below them, deepest levels first."""
    known = tree.latent[row, nodes] != NONE
    ended = np.isneginf(tree.own[row, nodes]) | (tree.done[row, nodes] >= terminal)
    ended |= tree.depth[row, nodes] >= depth
    for index in np.flatnonzero(known & ~ended & (tree.first_child[row, nodes] != NONE)):
        below = tree.children(np.array([row]), nodes[[index]])[0]
        ended[index] = below.size == inner_children and tree.closed[row, below].all()
    tree.closed[row, nodes] = known & ended
