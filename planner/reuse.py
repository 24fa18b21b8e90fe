"""Keeps the part of a tree that came true: the next decision's root starts from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeAlias

import numpy as np

from ..interfaces import ActionSamples, Decision, ForethoughtError, Latent, Observation
from .graft import Subtree
from .inputs import distinct
from .remembering import RememberingRows
from .search import Run, TreeSearch
from .tree import NONE

LatentDistance: TypeAlias = Callable[[Latent, Latent], np.ndarray]
"""From predicted and observed latents ``[M, ...]`` to distances ``float64 [M]`` in the units in which the
world model states its disagreement."""


def latent_distance(predicted: Latent, observed: Latent) -> np.ndarray:
    """Root mean square difference per coordinate, ``float64 [M]``: the unit of ``Prediction.disagreement``.

    Snapshots of a simulator (object arrays) are 0 apart where they are equal in every number, else infinitely
    far.
    """
    if isinstance(predicted, np.ndarray) and predicted.dtype == object:
        equal = [_same(one, other) for one, other in zip(predicted, observed, strict=True)]
        return np.where(equal, 0.0, np.inf)
    one, other = (_numbers(latent) for latent in (predicted, observed))
    if one.shape != other.shape:
        return np.full(len(one), np.inf)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.sqrt(((one - other) ** 2).reshape(len(one), -1).mean(axis=1))


def _numbers(latent: Any) -> np.ndarray:
    if not isinstance(latent, np.ndarray):
        latent = latent.detach().double().cpu().numpy()
    return np.asarray(latent, np.float64)


def _same(one: Any, other: Any) -> bool:
    """Whether two snapshots are equal through and through."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(one.shape == other.shape and (one == other).all())
    if is_dataclass(one):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    try:
        return bool(one == other)
    except (TypeError, ValueError):  # a comparison that is neither true nor false
        return False


@dataclass(frozen=True, eq=False)
class _Kept:
    """What one row remembers: the executed child's subtree, and the task that it was grown for."""

    subtree: Subtree
    instruction: str


@dataclass(eq=False)
class TreeReuse(RememberingRows):
    """A tree search whose next root is the executed child, when what is observed is what it predicted.

    Each row remembers the child that it executed. If at its next decision the instruction is the same and the
    encoded observation lies within ``tolerance · disagreement + exact`` of the child's predicted state, the
    child's own children become candidates of the new root, with their values, visits and subtrees, and cost
    nothing of the budget; else they are forgotten. An episode that begins, a chunk that the guard changed or
    that was cut short, and a blend of two chunks do not match, so no row needs to be told apart by hand;
    ``reset`` forgets at once. A row's result depends on its own history alone.

    The i-th row of a batch is taken for the i-th row of the batch before as long as batches are of one size;
    when the size changes, all is forgotten. Whoever plans for changing sets of rows uses ``plan_rows``.

    Attributes:
        search: The search, with depth >= 2: at depth 1 nothing is known below the executed chunk.
        tolerance: Distance between predicted and observed state, in units of the world model's own
            disagreement about that prediction. A calibrated ensemble is off by about 1.
        exact: Distance that always matches, in units of the latent (standardised, in learned models): what
            rounding does to a model without disagreement.
        distance: How far apart two latents are.
    """

    search: TreeSearch
    tolerance: float = 2.0
    exact: float = 1e-4
    distance: LatentDistance = latent_distance
    _kept: dict[int, _Kept] = field(default_factory=dict, init=False, repr=False)
    _turn: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.search.depth < 2:
            raise ForethoughtError(
                f"Reuse keeps what lies below the executed chunk, which takes a search of depth >= 2; got "
                f"depth={self.search.depth}. Search deeper, or rebuild the tree."
            )
        if not self.tolerance >= 0.0 or not self.exact >= 0.0:
            raise ForethoughtError(
                f"tolerance and exact are distances and must not be negative; got {self.tolerance}, "
                f"{self.exact}."
            )

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """Forget everything, or what some rows remember."""
        self._turn += 1
        for row in list(self._kept) if rows is None else rows:
            self._kept.pop(int(row), None)

    def plan_rows(
        self, observation: Observation, samples: ActionSamples, seeds: np.ndarray, rows: np.ndarray
    ) -> Decision:
        """The same for rows that have names, distinct integers ``[B]``; others keep what they remember."""
        names = distinct(rows, observation.batch)
        kept = {name: self._kept.pop(name) for name in names if name in self._kept}
        self._turn = turn = self._turn + 1

        def inherit(latent: Latent) -> list[Subtree | None]:
            return self._matching([kept.get(name) for name in names], latent, observation.instruction)

        decision, run = self.search.imagine(observation, samples, seeds, inherit)
        # A decision that came too late must not overwrite what was decided, or forgotten, since.
        if run is not None and turn == self._turn:
            self._kept.update(self._executed(run, decision, names))
        return decision

    def _matching(
        self, kept: Sequence[_Kept | None], latent: Latent, instruction: Sequence[str]
    ) -> list[Subtree | None]:
        """What came true, row by row."""
        matching: list[Subtree | None] = [None] * len(kept)
        for row, memory in enumerate(kept):
            if memory is None or memory.instruction != instruction[row]:
                continue
            subtree = memory.subtree
            distance = float(self.distance(subtree.latent, latent[np.array([row])])[0])
            if distance <= self.tolerance * subtree.disagreement + self.exact:
                matching[row] = subtree
        return matching

    @staticmethod
    def _executed(run: Run, decision: Decision, names: Sequence[int]) -> dict[int, _Kept]:
        kept: dict[int, _Kept] = {}
        candidates = decision.candidates
        for row, name in enumerate(names):
            slot = int(decision.slot[row])
            if decision.fallback[row] or candidates is None:
                continue
            node = int(run.tree.first_child[row, 0]) + slot
            whole = np.array_equal(decision.chunk[row], candidates.chunks[row, slot])
            if whole and run.tree.first_child[row, node] != NONE:
                kept[name] = _Kept(Subtree(run.tree, run.pool, row, node), run.instruction[row])
        return kept
