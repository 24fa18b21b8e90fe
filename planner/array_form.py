"""The walk down the tree and the way back in whole arrays, under any rule and backup.

This is what the compiled loops in ``kernels`` and ``settling`` do row by row, for rules that are not listed
there, and what the tests hold them against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .backup import Backup
from .kernels import Allowance, widths
from .selection import ProgressiveWidening, SelectionRule, Siblings
from .tree import NONE, Tree


@dataclass(frozen=True, eq=False)
class ArrayForm:
    """``simulate`` and ``backward`` of one decision.

    Attributes:
        root_rule, inner_rule: Selection at the root and below.
        widening: How many candidates of an inner node are open, by its visits.
        backup: How children's values reach their parent.
        depth: Longest sequence of chunks.
        inner_children: Candidates of every node but the root.
        discount: γ^H of a chunk.
        seeds: ``int64 [B]``.
    """

    root_rule: SelectionRule
    inner_rule: SelectionRule
    widening: ProgressiveWidening
    backup: Backup
    depth: int
    inner_children: int
    discount: float
    seeds: np.ndarray

    def simulate(self, tree: Tree, allowance: Allowance) -> tuple[np.ndarray, np.ndarray]:
        """Claims ``int64 [L, 2]`` and drawn ``int64 [3, D]``; see ``TreeSearch.simulate``."""
        blocked = tree.closed.copy()
        claimed: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
        drawn: list[np.ndarray] = [np.zeros((3, 0), np.int64)]
        left = widths(tree.nodes, allowance)
        # Each walk claims a leaf or blocks a dead end, so this ends.
        while (walking := (left > 0) & ~blocked[:, 0]).any():
            rows = np.flatnonzero(walking)
            nodes = np.zeros(rows.size, np.int64)
            for _ in range(self.depth):
                if not rows.size:
                    break
                if nodes[0] != 0:
                    blocked = self._widen(tree, rows, nodes, blocked, drawn)
                nodes, rows = self._select(tree, rows, nodes, blocked)
                leaf = tree.latent[rows, nodes] == NONE
                claim = np.stack([rows[leaf], nodes[leaf]], axis=1)
                blocked[rows[leaf], nodes[leaf]] = True
                left[rows[leaf]] -= 1
                _add_pending(tree, claim)
                claimed.append(claim)
                rows, nodes = rows[~leaf], nodes[~leaf]
        return np.concatenate(claimed), np.concatenate(drawn, axis=1)

    def _widen(
        self, tree: Tree, rows: np.ndarray, nodes: np.ndarray, blocked: np.ndarray, drawn: list[np.ndarray]
    ) -> np.ndarray:
        """Open as many children of inner nodes as their visits allow, and one more where all that is open is
        done or claimed, rather than wait. Returns ``blocked``, which may have to grow."""
        fresh = tree.first_child[rows, nodes] == NONE
        if fresh.any():
            tree.add_children(rows[fresh], nodes[fresh], 0, self.inner_children)
            if blocked.shape[1] < tree.nodes.shape[1]:
                blocked = np.pad(blocked, ((0, 0), (0, tree.nodes.shape[1] - blocked.shape[1])))
        wanted = self.widening(tree.visits[rows, nodes] + tree.pending[rows, nodes])
        place = np.arange(self.inner_children)
        while True:
            count = tree.child_count[rows, nodes]
            index = tree.first_child[rows, nodes][:, None] + place
            stuck = (blocked[rows[:, None], index] | (place >= count[:, None])).all(axis=1)
            more = (count < self.inner_children) & ((count < wanted) | stuck)
            if not more.any():
                return blocked
            opened = tree.open_child(rows[more], nodes[more])
            blocked[rows[more], tree.first_child[rows, nodes][more] + opened] = False
            drawn.append(np.stack([rows[more], nodes[more], opened]))

    def _select(
        self, tree: Tree, rows: np.ndarray, nodes: np.ndarray, blocked: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The child to go on with, ``[R']``, and its row ``[R']``; rows with nothing left are blocked and
        dropped."""
        rule = self.root_rule if nodes[0] == 0 else self.inner_rule
        chosen, possible = np.zeros(rows.size, np.int64), np.zeros(rows.size, bool)
        counts = tree.child_count[rows, nodes]
        for count in np.unique(counts):  # siblings that are equally many form an array
            same = np.flatnonzero(counts == count)
            siblings = Siblings(tree, rows[same], nodes[same], self.seeds[rows[same]])
            free = ~blocked[rows[same, None], siblings.index]
            score = np.where(free, rule(siblings), -np.inf)
            # A free child may itself score −inf; it still goes before one that is not free.
            score = np.where(free & ~np.isfinite(score), np.finfo(np.float64).min, score)
            chosen[same] = siblings.index[np.arange(same.size), score.argmax(axis=1)]
            possible[same] = free.any(axis=1)
        blocked[rows[~possible], nodes[~possible]] = True
        return chosen[possible], rows[possible]

    def backward(self, tree: Tree, claims: np.ndarray) -> None:
        """Carry the values of claims ``int64 [L, 2]`` up; see ``TreeSearch.backward``."""
        rows, nodes = claims[:, 0], claims[:, 1]
        counted = np.isfinite(tree.value[rows, nodes]).astype(np.int32)
        tree.visits[rows, nodes] += counted
        tree.pending[rows, nodes] = 0
        depth = tree.depth[rows, nodes]
        for level in range(int(depth.max(initial=0)), 0, -1):
            here = depth == level
            parents = tree.parent[rows[here], nodes[here]].astype(np.int64)
            np.add.at(tree.visits, (rows[here], parents), counted[here])
            tree.pending[rows[here], parents] = 0
            self._refresh(tree, rows[here], parents)
            nodes = np.where(here, tree.parent[rows, nodes], nodes)
            depth = np.where(here, level - 1, depth)

    def _refresh(self, tree: Tree, rows: np.ndarray, nodes: np.ndarray) -> None:
        """Recompute value and closedness of parents from their children."""
        both = np.unique(rows * tree.nodes.shape[1] + nodes)
        rows, nodes = both // tree.nodes.shape[1], both % tree.nodes.shape[1]
        counts = tree.child_count[rows, nodes]
        for count in np.unique(counts):
            self._refresh_equal(tree, rows[counts == count], nodes[counts == count])

    def _refresh_equal(self, tree: Tree, rows: np.ndarray, nodes: np.ndarray) -> None:
        block = rows[:, None], tree.children(rows, nodes)
        child = tree.value[block]
        seen = np.isfinite(child)
        backed = self.backup(
            tree.own[rows, nodes],
            np.where(seen, child, -np.inf),
            np.where(seen, tree.visits[block], 0),
            self.discount,
        )
        done = tree.done[rows, nodes]
        tree.value[rows, nodes] = done + (1.0 - done) * backed
        whole = (nodes == 0) | (block[1].shape[1] == self.inner_children)
        tree.closed[rows, nodes] = tree.closed[block].all(axis=1) & whole


def _add_pending(tree: Tree, claims: np.ndarray) -> None:
    rows, nodes = claims[:, 0], claims[:, 1]
    while rows.size:
        np.add.at(tree.pending, (rows, nodes), 1)
        up = tree.parent[rows, nodes].astype(np.int64)
        rows, nodes = rows[up != NONE], up[up != NONE]
