"""Learns from its own surprises within an episode: what came of a chunk corrects what is imagined of its
like.

A learned model that wrongly expects a push to move a jammed arm, or a grasp to hold, expects it again in the
same place, and the search repeats itself until the time is up. What was observed after a chunk is better
evidence than any model: the difference between the observed and the predicted state is added to the
predictions for similar chunks from similar states. This is kernel regression on residuals (Nadaraya, 1964;
Watson, 1964) whose weights are not normalised where they sum to less than one, so that far from all
experience the model speaks alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..interfaces import ActionSamples, Decision, ForethoughtError, Latent, Observation, Prediction
from .inputs import distinct
from .remembering import RememberingRows
from .search import Correct, TreeSearch


@dataclass(frozen=True, eq=False)
class Case:
    """One executed chunk and what came of it.

    Attributes:
        state: The state it was executed in, a row of numbers ``float32 [P]`` (particles averaged).
        chunk: ``float32 [H·A]``.
        residual: Observed minus predicted state, ``float32``, of the shape of one latent.
    """

    state: np.ndarray
    chunk: np.ndarray
    residual: np.ndarray


@dataclass(frozen=True, eq=False)
class _Pending:
    """A chunk under way: the latent ``[1, ...]`` it started from, and the chunk ``[H, A]``."""

    latent: Latent
    chunk: np.ndarray


@dataclass(eq=False)
class EpisodicCorrection(RememberingRows):
    """A tree search whose world model is corrected by what this episode has shown.

    A row's cases are its own: results depend neither on other rows nor on earlier episodes, and the first
    decision of an episode is that of the search alone. Latents that are no arrays of numbers (snapshots of a
    simulator, slots on a device) are left as they are predicted.

    The i-th row of a batch is taken for the i-th row of the batch before as long as batches are of one size;
    whoever plans for changing sets of rows uses ``plan_rows``. A decided chunk counts as executed whole
    unless ``executed`` says otherwise; whoever cuts chunks short, or lets a guard change them, must say so.

    Attributes:
        search: The search.
        state_width: Width of the kernel over states: root mean square difference of the latents' numbers,
            weighted by ``weights``.
        chunk_width: Width of the kernel over chunks: root mean square difference of their numbers, units of
            half the range of the action's bounds.
        weights: Weight of each number of a latent, ``[P]``, such as those of a retrieval memory; None: one.
        most: Cases of a row that are kept; the oldest go first.
    """

    search: TreeSearch
    state_width: float = 0.15
    chunk_width: float = 0.25
    weights: np.ndarray | None = None
    most: int = 256
    _cases: dict[int, list[Case]] = field(default_factory=dict, init=False, repr=False)
    _pending: dict[int, _Pending] = field(default_factory=dict, init=False, repr=False)
    _task: dict[int, str] = field(default_factory=dict, init=False, repr=False)
    _turn: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.state_width > 0.0 and self.chunk_width > 0.0 and self.most >= 1):
            raise ForethoughtError(
                "state_width and chunk_width must be above 0 and most at least 1; got "
                f"{self.state_width}, {self.chunk_width}, {self.most}."
            )

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """An episode begins: forget everything, or what some rows have seen."""
        self._turn += 1
        for memory in (self._cases, self._pending, self._task):
            for row in list(memory) if rows is None else rows:
                memory.pop(int(row), None)

    def executed(self, actions: np.ndarray, rows: Sequence[int]) -> None:
        """What the rows really executed since their last decision, ``[B, T, A]``. A chunk that was not
        executed as it was decided teaches nothing."""
        for row, done in zip(rows, np.asarray(actions), strict=True):
            pending = self._pending.get(int(row))
            if pending is not None and not _equal(pending.chunk, done):
                del self._pending[int(row)]

    def plan_rows(
        self, observation: Observation, samples: ActionSamples, seeds: np.ndarray, rows: np.ndarray
    ) -> Decision:
        """The same for rows that have names, distinct integers ``[B]``; others keep what they have seen."""
        names = distinct(rows, observation.batch)
        self.reset(
            [name for name, task in zip(names, observation.instruction) if self._task.get(name) != task]
        )
        self._task.update(zip(names, observation.instruction))
        self._turn = turn = self._turn + 1
        pending = {name: self._pending.pop(name) for name in names if name in self._pending}
        seen: list[Latent] = []

        def correct(latent: Latent, alive: np.ndarray) -> Correct | None:
            numbers = _numbers(latent)
            if numbers is None or turn != self._turn:  # an episode began meanwhile: nothing to learn for it
                return None
            seen.extend(latent[np.array([row])] for row in range(len(names)))
            for row in np.flatnonzero(alive):
                if names[row] in pending:
                    self._learn(names[row], pending[names[row]], numbers[row])
            return self._corrector([self._cases.get(name, ()) for name in names])

        decision, run = self.search.imagine(observation, samples, seeds, correct=correct)
        # A decision that came too late must not overwrite what was decided, or forgotten, since.
        if run is not None and turn == self._turn:
            for row, (name, latent) in enumerate(zip(names, seen)):
                if not decision.fallback[row]:
                    self._pending[name] = _Pending(latent, decision.chunk[row].copy())
        return decision

    def _learn(self, name: int, pending: _Pending, now: np.ndarray) -> None:
        """Make a case of the chunk that was under way, from the state ``[...]`` that it led to."""
        before = _numbers(pending.latent)
        predicted = _numbers(self.search.world_model.step(pending.latent, pending.chunk[None]).latent)
        if before is None or predicted is None or predicted.shape[1:] != now.shape:
            return
        residual = now - predicted[0]
        if np.isfinite(residual).all() and np.isfinite(before).all():
            cases = self._cases.setdefault(name, [])
            cases.append(Case(_row(before[0]), pending.chunk.ravel(), residual))
            del cases[: -self.most]

    def _corrector(self, cases: Sequence[Sequence[Case]]) -> Correct | None:
        """What corrects the predictions of rows with these cases; None where there is none."""
        if not any(len(own) for own in cases):
            return None

        def correct(
            rows: np.ndarray, states: Latent, chunks: np.ndarray, prediction: Prediction
        ) -> Prediction:
            numbers = _numbers(states)
            if numbers is None:
                return prediction
            change = np.zeros(numbers.shape, np.float32)
            for row in np.unique(rows):
                if len(cases[row]):
                    mine = np.flatnonzero(rows == row)
                    change[mine] = self._change(cases[row], numbers[mine], chunks[mine])
            return replace(prediction, latent=_added(prediction.latent, change))

        return correct

    def _change(self, cases: Sequence[Case], states: np.ndarray, chunks: np.ndarray) -> np.ndarray:
        """What the cases add to the predictions for states ``[n, ...]`` and chunks ``[n, H, A]``."""
        points = np.stack([_row(state) for state in states])
        weights = self._weights(points.shape[1])
        known = np.stack([case.state for case in cases])
        apart = _squared(points * weights, known * weights) / self.state_width**2
        half = 0.5 * (self.search.action_spec.high - self.search.action_spec.low)
        scale = np.tile(1.0 / np.maximum(half, 1e-9), chunks.shape[1]) / np.sqrt(chunks[0].size)
        done = np.stack([case.chunk for case in cases])
        apart += _squared(chunks.reshape(len(chunks), -1) * scale, done * scale) / self.chunk_width**2
        near = np.exp(-0.5 * apart)
        near /= np.maximum(near.sum(axis=1, keepdims=True), 1.0)
        return np.tensordot(near, np.stack([case.residual for case in cases]), axes=1).astype(np.float32)

    def _weights(self, size: int) -> np.ndarray:
        weights = np.ones(size) if self.weights is None else np.asarray(self.weights, np.float64)
        if weights.shape != (size,):
            raise ForethoughtError(
                f"weights are for latents of {weights.size} numbers; the world model's have {size}. Give one "
                "for each number of a latent, or None."
            )
        return weights / np.sqrt(np.maximum((weights**2).sum(), 1e-12))


def _numbers(latent: Any) -> np.ndarray | None:
    """Latents as an array ``float32 [M, ...]``, or None where they are no numbers."""
    if not isinstance(latent, np.ndarray):
        detach = getattr(latent, "detach", None)
        if not callable(detach):
            return None
        latent = latent.detach().float().cpu().numpy()
    if latent.ndim < 2 or not np.issubdtype(latent.dtype, np.floating):
        return None
    return np.asarray(latent, np.float32)


def _row(latent: np.ndarray) -> np.ndarray:
    """One latent as a row of numbers, particles ``[E, D]`` averaged."""
    return latent.mean(axis=0) if latent.ndim == 2 else latent.ravel()


def _added(latent: Any, change: np.ndarray) -> Any:
    if isinstance(latent, np.ndarray):
        return latent + change.astype(latent.dtype)
    return latent + latent.new_tensor(change)


def _squared(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances ``[n, m]``."""
    return np.square(points[:, None] - others[None]).sum(axis=2)


def _equal(chunk: np.ndarray, done: np.ndarray) -> bool:
    return chunk.shape == done.shape and bool(np.allclose(chunk, done, atol=1e-6))
