"""The tree: one flat struct of named arrays for B trees at once, and the pool that holds their latents."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..interfaces import Latent

NONE = -1
"""Marks an index that points nowhere."""

# Name, type and initial value of each [B, N] array.
_FIELDS: tuple[tuple[str, Any, Any], ...] = (
    ("parent", np.int32, NONE),
    ("first_child", np.int32, NONE),
    ("child_count", np.int32, 0),
    ("depth", np.int32, 0),
    ("source", np.int8, 0),
    ("prior", np.float64, 0.0),
    ("latent", np.int64, NONE),
    ("visits", np.int32, 0),
    ("pending", np.int32, 0),
    ("own", np.float64, np.nan),
    ("spread", np.float64, 0.0),
    ("done", np.float64, 0.0),
    ("disagreement", np.float32, 0.0),
    ("value", np.float64, np.nan),
    ("closed", np.bool_, False),
)


class Tree:
    """B search trees side by side. A proposal becomes a node when it is drawn, so an edge and its child share
    an index.

    The children of a node are contiguous: ``first_child .. first_child + child_count``. Arrays are ``[B, N]``
    with N the nodes reserved so far; in row b the first ``size[b]`` are in use, node 0 being the root. A node
    takes 78 bytes and its chunk (4·H·A), beside its latent.

    Attributes:
        size: Nodes in use, ``int64 [B]``.
        parent: ``int32``, NONE at the root.
        first_child: ``int32``, NONE before expansion.
        child_count: ``int32``.
        depth: ``int32``, 0 at the root.
        chunk: Action chunk that leads here, environment units, ``float32 [B, N, H, A]``.
        source: Proposal source of the chunk, ``int8``.
        prior: ``float64``, normalised among siblings.
        latent: Slot in the latent pool, ``int64``; NONE before evaluation.
        visits: Evaluations in the subtree, the node's own included, ``int32``.
        pending: Virtual visits: claims of the wave under way, ``int32``.
        own: The node's own score V(s), ``float64``; −inf when disqualified, NaN at the root, which is not
            scored.
        spread: The reward model's spread at the node, ``float64``.
        done: Probability that the episode ended in success on the way here from the parent, ``float64``.
        disagreement: The world model's disagreement about the node's state, ``float32``.
        value: Backed-up value v(s), ``float64``; NaN before evaluation, −inf when disqualified.
        closed: ``bool``: nothing is left to evaluate at or below this node.
    """

    parent: np.ndarray
    first_child: np.ndarray
    child_count: np.ndarray
    depth: np.ndarray
    source: np.ndarray
    prior: np.ndarray
    latent: np.ndarray
    visits: np.ndarray
    pending: np.ndarray
    own: np.ndarray
    spread: np.ndarray
    done: np.ndarray
    disagreement: np.ndarray
    value: np.ndarray
    closed: np.ndarray

    def __init__(self, batch: int, nodes: int, horizon: int, action_size: int) -> None:
        self.size = np.ones(batch, np.int64)
        self.chunk = np.zeros((batch, nodes, horizon, action_size), np.float32)
        for name, kind, blank in _FIELDS:
            setattr(self, name, np.full((batch, nodes), blank, kind))

    @property
    def batch(self) -> int:
        """Number of trees B."""
        return self.size.size

    def add_children(self, rows: np.ndarray, nodes: np.ndarray, count: int) -> np.ndarray:
        """Append ``count`` children to one node of each row (rows distinct). Their numbers, ``int64 [R,
        count]``.

        Their chunks are not drawn yet; until then their priors are uniform.
        """
        first = self.size[rows]
        self.reserve(int(first.max()) + count)
        children = first[:, None] + np.arange(count)
        block = rows[:, None], children
        self.parent[block] = nodes[:, None]
        self.depth[block] = self.depth[rows, nodes][:, None] + 1
        self.prior[block] = 1.0 / count
        self.first_child[rows, nodes] = first
        self.child_count[rows, nodes] = count
        self.size[rows] += count
        return children

    def children(self, rows: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Numbers of the children of expanded nodes that have equally many, ``int64 [R, C]``."""
        count = int(self.child_count[rows[0], nodes[0]])
        return self.first_child[rows, nodes].astype(np.int64)[:, None] + np.arange(count)

    def reserve(self, nodes: int) -> None:
        """Make room for so many nodes in each row."""
        old = self.parent.shape[1]
        if nodes <= old:
            return
        new = max(nodes, 2 * old)
        for name, _, blank in (*_FIELDS, ("chunk", np.float32, 0.0)):
            array = getattr(self, name)
            larger = np.full((array.shape[0], new, *array.shape[2:]), blank, array.dtype)
            larger[:, :old] = array
            setattr(self, name, larger)


class LatentPool:
    """Latents of evaluated nodes in numbered slots: a tensor on the model's device, or an array on the host.

    Args:
        like: Latents ``[M, ...]`` whose kind, shape and device the pool takes over.
        slots: Slots to reserve; the pool doubles when they are full.
    """

    def __init__(self, like: Latent, slots: int) -> None:
        self._new: Callable[[int], Any]
        if isinstance(like, np.ndarray):
            self._new = lambda n: np.empty((n, *like.shape[1:]), like.dtype)
        else:
            from torch import from_numpy

            self._new = lambda n: like.new_empty((n, *like.shape[1:]))
            self._index = lambda slots: from_numpy(slots).to(like.device)
        self._slots: Any = self._new(max(slots, len(like)))
        self.used = 0

    def add(self, latents: Latent) -> np.ndarray:
        """Store latents ``[M, ...]``; their slots, ``int64 [M]``."""
        end = self.used + len(latents)
        if end > len(self._slots):
            larger = self._new(max(end, 2 * len(self._slots)))
            larger[: self.used] = self._slots[: self.used]
            self._slots = larger
        if isinstance(latents, np.ndarray):
            self._slots[self.used : end] = latents
        else:
            self._slots.narrow(0, self.used, len(latents)).copy_(latents.detach())
        slots = np.arange(self.used, end)
        self.used = end
        return slots

    def take(self, slots: np.ndarray) -> Latent:
        """Latents ``[M, ...]`` of slots ``int64 [M]``."""
        if isinstance(self._slots, np.ndarray):
            return self._slots[slots]
        return self._slots.index_select(0, self._index(slots))


def finite_rows(latents: Latent) -> np.ndarray:
    """Which latents ``[M, ...]`` hold only finite numbers, ``bool [M]``. Objects are taken to be finite."""
    if isinstance(latents, np.ndarray):
        if latents.dtype == object:
            return np.ones(len(latents), bool)
        return np.asarray(np.isfinite(latents.reshape(len(latents), -1)).all(axis=1))
    if math.isfinite(float(latents.detach().sum())):  # what is not finite spreads to the sum
        return np.ones(len(latents), bool)
    return latents.isfinite().reshape(len(latents), -1).all(dim=1).cpu().numpy()
