"""The tree: one flat struct of named arrays for B trees at once, and the pool that holds their latents."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from ..interfaces import Latent

NONE = -1
"""Marks an index that points nowhere."""

# Name, type and initial value of what is known of a node.
_FIELDS: tuple[tuple[str, Any, Any], ...] = (
    ("parent", np.int32, NONE),
    ("first_child", np.int32, NONE),
    ("child_count", np.int32, 0),
    ("depth", np.int32, 0),
    ("latent", np.int64, NONE),
    ("visits", np.int32, 0),
    ("pending", np.int32, 0),
    ("blocked", np.int32, 0),
    ("value", np.float64, np.nan),
    ("prior", np.float64, 0.0),
    ("log_prior", np.float64, 0.0),
    ("own", np.float64, np.nan),
    ("done", np.float64, 0.0),
    ("spread", np.float64, 0.0),
    ("disagreement", np.float32, 0.0),
    ("source", np.int8, 0),
    ("closed", np.bool_, False),
)

NODE = np.dtype([(name, kind) for name, kind, _ in _FIELDS], align=True)
"""A node as the compiled loops see it: what they read of it together lies together."""

_NAMES = frozenset(name for name, *_ in _FIELDS)

BLANK = np.array([tuple(blank for *_, blank in _FIELDS)], NODE)
"""A node of which nothing is known, ``[1]``."""
BLANK.setflags(write=False)


class Tree:
    """B search trees side by side. A proposal becomes a node when it is drawn, so an edge and its child share
    an index.

    The children of a node are contiguous: ``first_child .. first_child + child_count``. Slots behind them may
    be reserved for children that are yet to be drawn; those hold nothing. Arrays are ``[B, N]`` with N the
    nodes reserved so far; in row b the first ``size[b]`` are in use or reserved, node 0 being the root. A
    node takes 96 bytes and its chunk (4·H·A), beside its latent.

    Attributes:
        size: Nodes in use or reserved for children, ``int64 [B]``.
        nodes: All that follows but the chunks, an array of records ``NODE [B, N]``.
        parent: ``int32``, NONE at the root.
        first_child: ``int32``, NONE before expansion.
        child_count: ``int32``, children that are open.
        depth: ``int32``, 0 at the root.
        latent: Slot in the latent pool, ``int64``; NONE before evaluation, and that of its row at a root.
        visits: Evaluations in the subtree, the node's own included, ``int32``.
        pending: Virtual visits: claims of the wave under way, ``int32``.
        blocked: The wave, from 1, in which nothing more was to be claimed at or below the node, ``int32``.
        value: Backed-up value v(s), ``float64``; NaN before evaluation, −inf when disqualified.
        prior: ``float64``, normalised among siblings.
        log_prior: Its logarithm before it is normalised, ``float64``; below the root's children only.
        own: The node's own score V(s), ``float64``; −inf when disqualified, NaN at the root, which is not
            scored.
        done: Probability that the episode ended in success on the way here from the parent, ``float64``.
        spread: The reward model's spread at the node, ``float64``.
        disagreement: The world model's disagreement about the node's state, ``float32``.
        source: Proposal source of the chunk, ``int8``.
        closed: ``bool``: nothing is left to evaluate at or below this node.
        chunk: Action chunk that leads here, environment units, ``float32 [B, N, H, A]``.
    """

    parent: np.ndarray
    first_child: np.ndarray
    child_count: np.ndarray
    depth: np.ndarray
    latent: np.ndarray
    visits: np.ndarray
    pending: np.ndarray
    value: np.ndarray
    prior: np.ndarray
    log_prior: np.ndarray
    own: np.ndarray
    done: np.ndarray
    spread: np.ndarray
    disagreement: np.ndarray
    source: np.ndarray
    closed: np.ndarray

    def __init__(self, batch: int, nodes: int, horizon: int, action_size: int) -> None:
        # Pages are fetched when something is written: most of what is reserved never is.
        self.chunk = np.empty((batch, nodes, horizon, action_size), np.float32)
        self.nodes, self.size = np.empty((batch, nodes), NODE), np.empty(batch, np.int64)
        _plant(self.nodes, self.chunk, self.size)

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in _NAMES:
            raise AttributeError(f"A tree has no {name!r}; of a node it knows {', '.join(sorted(_NAMES))}.")
        return self.nodes[name]

    @property
    def batch(self) -> int:
        """Number of trees B."""
        return self.size.size

    def add_children(
        self, rows: np.ndarray, nodes: np.ndarray, count: int, reserved: int | None = None
    ) -> np.ndarray:
        """Append ``count`` children to one node of each row (rows distinct). Their numbers, ``int64 [R,
        count]``.

        Their chunks are not drawn yet; until then their priors are uniform. With ``reserved`` so many slots
        are kept in all for children of these nodes, for ``open_child``.
        """
        first = self.size[rows]
        self.reserve(int(first.max()) + max(count, reserved or 0))
        self.first_child[rows, nodes] = first
        self.size[rows] += max(count, reserved or 0)
        children = first[:, None] + np.arange(count)
        block = rows[:, None], children
        self.nodes[block] = BLANK
        self.parent[block] = nodes[:, None]
        self.depth[block] = self.depth[rows, nodes][:, None] + 1
        self.prior[block] = 1.0 / max(count, 1)
        self.child_count[rows, nodes] = count
        return children

    def add_roots(self, chunks: np.ndarray, source: np.ndarray, prior: np.ndarray) -> slice:
        """Append candidates ``[B, K, H, A]``, their sources and their priors ``[B, K]`` to the root of every
        row of new trees. Their numbers."""
        new = slice(1, 1 + chunks.shape[1])
        self.reserve(new.stop)
        add_roots(
            self.nodes,
            self.chunk,
            self.size,
            np.ascontiguousarray(chunks, np.float32),
            np.ascontiguousarray(source, np.int8),
            np.ascontiguousarray(prior, np.float64),
        )
        return new

    def open_child(self, rows: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Open the next reserved child of one node of each row. Which of the children it is, ``int64 [R]``.

        Its chunk is not drawn yet and NaN; until then its prior is that of an average sibling.
        """
        place = self.child_count[rows, nodes].astype(np.int64)
        child = rows, self.first_child[rows, nodes] + place
        self.nodes[child] = BLANK
        self.parent[child] = nodes
        self.depth[child] = self.depth[rows, nodes] + 1
        self.chunk[child] = np.nan
        for row, node, known in zip(rows, nodes, place):
            first = self.first_child[row, node]
            self.prior[row, first : first + known] *= known / (known + 1)
            self.prior[row, first + known] = 1.0 / (known + 1)
        self.child_count[rows, nodes] += 1
        return place

    def children(self, rows: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """Numbers of the children of expanded nodes that have equally many, ``int64 [R, C]``."""
        count = int(self.child_count[rows[0], nodes[0]])
        return self.first_child[rows, nodes].astype(np.int64)[:, None] + np.arange(count)

    def known(self) -> np.ndarray:
        """Which entries hold a node, ``bool [B, N]``; the others are reserved or free and hold anything."""
        known = np.zeros(self.nodes.shape, bool)
        known[:, 0] = True
        for row in range(self.batch):
            for node in range(int(self.size[row])):  # parents come before their children
                if known[row, node] and self.first_child[row, node] != NONE:
                    first = int(self.first_child[row, node])
                    known[row, first : first + int(self.child_count[row, node])] = True
        return known

    def reserve(self, nodes: int) -> None:
        """Make room for so many nodes in each row."""
        old = self.nodes.shape[1]
        if nodes <= old:
            return
        new = max(nodes, 2 * old)
        for name in ("nodes", "chunk"):
            array = getattr(self, name)
            larger = np.empty((array.shape[0], new, *array.shape[2:]), array.dtype)
            larger[:, :old] = array
            setattr(self, name, larger)


@njit(cache=True, nogil=True, error_model="numpy")
def _plant(nodes: Any, chunk: np.ndarray, size: np.ndarray) -> None:
    """The roots, and nothing else, of new trees. Records are written whole, which NumPy does field by
    field."""
    for row in range(size.size):
        size[row], nodes[row, 0] = 1, BLANK[0]
        nodes[row, 0].latent = row
        for t in range(chunk.shape[2]):
            for a in range(chunk.shape[3]):
                chunk[row, 0, t, a] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def add_roots(
    nodes: Any, chunk: np.ndarray, size: np.ndarray, chunks: np.ndarray, source: np.ndarray, prior: np.ndarray
) -> None:
    """``Tree.add_roots`` where there is room."""
    count, horizon, actions = chunks.shape[1:]
    for row in range(size.size):
        nodes[row, 0].first_child, nodes[row, 0].child_count, size[row] = 1, count, 1 + count
        for k in range(count):
            nodes[row, 1 + k] = BLANK[0]
            child = nodes[row, 1 + k]
            child.parent, child.depth, child.source, child.prior = 0, 1, source[row, k], prior[row, k]
            for t in range(horizon):
                for a in range(actions):
                    chunk[row, 1 + k, t, a] = chunks[row, k, t, a]


class LatentPool:
    """Latents of evaluated nodes in numbered slots: a tensor on the model's device, or an array on the host.

    Args:
        roots: Latents ``[B, ...]`` that take the first slots, whose kind, shape and device the pool takes
            over.
        slots: Slots to reserve; the pool doubles when they are full.

    Attributes:
        used: Slots that hold something, the first of all.
        numbers: What the slots hold, a row each, as the compiled loops see it, ``float32`` or ``float64 [S,
            D]``; ``[0, 0]`` where latents are anything else or elsewhere.
    """

    def __init__(self, roots: Latent, slots: int) -> None:
        self._wrap: Callable[[Any], Any] | None = None if isinstance(roots, np.ndarray) else _from_numpy()
        shared: Any = on_host(roots)
        self._host = isinstance(shared, np.ndarray)
        self._keep(self._like(shared, max(slots, len(shared))))
        self.used = 0
        self.add(shared)

    def _like(self, latents: Any, slots: int) -> Any:
        """Room for so many of them."""
        shape = slots, *latents.shape[1:]
        return np.empty(shape, latents.dtype) if self._host else latents.new_empty(shape)

    def _keep(self, slots: Any) -> None:
        self._slots, self._room = slots, len(slots)
        known = self._host and slots.dtype.char in "fd"
        self.numbers = slots.reshape(self._room, -1) if known else NO_NUMBERS

    def add(self, latents: Latent) -> int:
        """Store latents ``[M, ...]``; the slot of the first, which the others follow."""
        added: Any = latents
        if self._host and not isinstance(latents, np.ndarray):
            added = on_host(latents)
        first = self.used
        self.used = end = first + len(added)
        if end > self._room:
            larger = self._like(self._slots, max(end, 2 * self._room))
            larger[:first] = self._slots[:first]
            self._keep(larger)
        if self._host:
            self._slots[first:end] = added
        else:
            self._slots.narrow(0, first, len(added)).copy_(added.detach())
        return first

    def take(self, slots: np.ndarray) -> Latent:
        """Latents ``[M, ...]`` of slots ``int64 [M]``."""
        if self._host:
            return self.latents(self._slots.take(slots, axis=0))
        assert self._wrap is not None
        return self._slots.index_select(0, self._wrap(slots).to(self._slots.device))

    def latents(self, numbers: np.ndarray) -> Latent:
        """Latents ``[M, ...]`` from rows of their numbers, ``[M, D]``, which become theirs."""
        if self._slots.ndim != numbers.ndim:
            numbers = numbers.reshape(-1, *self._slots.shape[1:])
        return numbers if self._wrap is None else self._wrap(numbers)


NO_NUMBERS = np.empty((0, 0), np.float32)


@functools.cache
def _from_numpy() -> Callable[[np.ndarray], Any]:
    """Torch's, looked up once: NumPy's users do without torch."""
    from torch import from_numpy

    return from_numpy


def on_host(latents: Latent) -> Latent:
    """An array on the memory of a tensor, where NumPy can have one: its calls take less time than torch's.
    Else the latents as they are."""
    if isinstance(latents, np.ndarray) or not latents.is_cpu:
        return latents
    try:
        return (latents.detach() if latents.requires_grad else latents).numpy()
    except (RuntimeError, TypeError):  # a type that NumPy does not know, or a layout
        return latents


def finite_rows(latents: Latent) -> np.ndarray:
    """Which latents ``[M, ...]`` hold only finite numbers, ``bool [M]``. Objects are taken to be finite."""
    latents = on_host(latents)
    if isinstance(latents, np.ndarray):
        if latents.dtype.char in "fd" and latents.flags.c_contiguous:
            return finite_numbers(latents)
        if latents.dtype == object:
            return np.ones(len(latents), bool)
        return np.asarray(np.isfinite(latents.reshape(len(latents), -1)).all(axis=1))
    if math.isfinite(float(latents.detach().sum())):
        return np.ones(len(latents), bool)
    return latents.isfinite().reshape(len(latents), -1).all(dim=1).cpu().numpy()


@njit(cache=True, nogil=True, error_model="numpy")
def finite_numbers(latents: np.ndarray) -> np.ndarray:
    """Which of ``[M, ...]``, in C order, hold only finite numbers, ``bool [M]``."""
    flat, finite = latents.reshape(len(latents), -1), np.empty(len(latents), np.bool_)
    for i in range(len(latents)):
        finite[i] = is_finite(flat, i)
    return finite


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def is_finite(latents: np.ndarray, row: int) -> bool:
    """Whether one row of ``[M, D]`` holds only finite numbers: times zero all else is not a number, and
    spreads to the sum."""
    total = latents.dtype.type(0)
    for j in range(latents.shape[1]):
        total += latents[row, j] * 0
    return total == 0
