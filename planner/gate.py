"""Searches only where it may help: where the policy's samples disagree, or its state became worse."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..interfaces import (
    ActionSamples,
    ActionSpec,
    Candidates,
    Decision,
    ForethoughtError,
    Latent,
    Observation,
    Planner,
    RewardModel,
    RowPlanner,
    WorldModel,
)
from .chunk_space import ChunkSpace
from .inputs import Inputs, checked, distinct
from .tree import finite_rows


@dataclass(frozen=True, eq=False)
class StateValue:
    """Value of what is seen now, without imagining anything.

    Attributes:
        world_model: Encodes the observation.
        reward_model: Scores the state.
        pessimism: λ in value − λ·spread.
    """

    world_model: WorldModel
    reward_model: RewardModel
    pessimism: float = 1.0

    def __call__(self, observation: Observation) -> np.ndarray:
        """``float64 [B]``, NaN where the state or its value is not finite."""
        latent: Latent = self.world_model.encode(observation)
        value = np.full(observation.batch, np.nan)
        rows = np.flatnonzero(finite_rows(latent))
        if rows.size:
            score = self.reward_model.score(latent[rows], [observation.instruction[row] for row in rows])
            value[rows] = np.asarray(score.value, np.float64).reshape(-1)
            value[rows] -= self.pessimism * np.asarray(score.spread, np.float64).reshape(-1)
        value[~np.isfinite(value)] = np.nan
        return value


def sample_spread(chunks: np.ndarray, space: ChunkSpace) -> np.ndarray:
    """How far apart the samples ``[B, N, H, A]`` of each row lie, ``float64 [B]``.

    The root mean square deviation from their mean in whitened coordinates, unbiased: samples of a kernel of
    bandwidth σ have a spread of σ. NaN for a single sample.
    """
    if chunks.shape[1] < 2:
        return np.full(chunks.shape[0], np.nan)
    white = space.whiten(chunks)
    if not white.shape[2]:
        return np.zeros(chunks.shape[0])
    return np.sqrt(white.var(axis=1, ddof=1).mean(axis=1))


def gripper_dissent(chunks: np.ndarray, space: ChunkSpace) -> np.ndarray:
    """Largest share over the steps of samples ``[B, N, H, A]`` whose binary gripper is not that of sample 0,
    ``float64 [B]``."""
    signs = space.signs(chunks)
    different = (signs != signs[:, :1]).mean(axis=1)
    return different.reshape(len(chunks), -1).max(axis=1, initial=0.0)


@dataclass(eq=False)
class Gate:
    """A planner that asks another one only where there is something to decide.

    A row is searched when the policy's samples disagree (``spread``, ``dissent``), when its state is worth
    less than at its last decision (``drop``; the first decision of an episode is searched), or when one of
    these cannot be told: a single sample, a number that is not finite. Elsewhere the policy's own chunk is
    executed, no simulation is spent, and ``value`` and ``policy_value`` are the value of the state as it is
    seen. The reason says which, row by row. A policy without randomness always agrees with itself: gate it by
    ``drop``.

    Rows are taken for the same from decision to decision as long as batches are of one size; ``plan_rows``
    gives them names. ``reset`` starts an episode.

    Attributes:
        planner: Any planner. One with ``plan_rows`` is told which rows it plans for.
        action_spec: Meaning and bounds of the action.
        value: Value of what is seen, ``float64 [B]``, such as ``StateValue``.
        spread: Spread of the samples from which a row is searched, in units of a kernel's bandwidth (half the
            range of the bounds); None: however far they are apart.
        dissent: Share of samples with another binary gripper from which a row is searched, in (0, 1]; None:
            whatever they are. Counts only where ``spread`` is given.
        drop: Loss of value since the last decision from which a row is searched; None: whatever it is worth.
        shared, rotation_scale: Geometry of chunks, see ``ChunkSpace``.
    """

    planner: Planner
    action_spec: ActionSpec
    value: Callable[[Observation], np.ndarray]
    spread: float | None = 0.05
    dissent: float | None = 0.25
    drop: float | None = None
    shared: float = 0.85
    rotation_scale: float = 0.4
    _last: dict[int, float] = field(default_factory=dict, init=False, repr=False)
    _batch: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        given = f"spread={self.spread}, dissent={self.dissent}, drop={self.drop}"
        if self.spread is None and self.drop is None:
            raise ForethoughtError(f"A gate needs spread or drop; got {given}. To always search, use none.")
        if (self.spread is not None and not self.spread >= 0.0) or (
            self.drop is not None and not self.drop >= 0.0
        ):
            raise ForethoughtError(f"spread and drop must not be negative; got {given}.")
        if self.dissent is not None and not 0.0 < self.dissent <= 1.0:
            raise ForethoughtError(f"dissent is a share in (0, 1]; got {given}.")
        ChunkSpace(self.action_spec, 1, self.shared, self.rotation_scale)

    @property
    def n(self) -> int:
        """Samples to ask of the policy, where the planner says."""
        return self.planner.n  # type: ignore[attr-defined]

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """Forget the last values, of all rows or of some, and let the planner forget."""
        for row in list(self._last) if rows is None else rows:
            self._last.pop(int(row), None)
        if isinstance(self.planner, RowPlanner):
            self.planner.reset(rows)
        elif callable(reset := getattr(self.planner, "reset", None)):
            reset()

    def executed(self, actions: np.ndarray, rows: Sequence[int]) -> None:
        """What the rows executed since their last decision, ``[B, T, A]``, for a planner that asks."""
        if callable(tell := getattr(self.planner, "executed", None)):
            tell(actions, rows)

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        """One decision per row."""
        if observation.batch != self._batch:
            if self._batch:
                self.reset()
            self._batch = observation.batch
        return self.plan_rows(observation, samples, seeds, np.arange(observation.batch))

    def plan_rows(
        self, observation: Observation, samples: ActionSamples, seeds: np.ndarray, rows: np.ndarray
    ) -> Decision:
        """The same for rows that have names, distinct integers ``[B]``."""
        start = time.perf_counter()
        names = distinct(rows, observation.batch)
        inputs = checked(samples, observation, seeds, self.action_spec)
        search, reason = self._disagree(inputs)
        undecided = np.ones(inputs.seeds.size, bool) if self.drop is not None else ~search
        value = np.full(inputs.seeds.size, np.nan)
        if undecided.any():
            value[undecided] = self.value(observation.rows(np.flatnonzero(undecided)))
        self._judge(value, names, search, reason)
        decision = self._without_search(inputs, value, reason)
        gate = 1e3 * (time.perf_counter() - start)
        chosen = np.flatnonzero(search)
        milliseconds: dict[str, float] = {}
        if chosen.size:
            searched = self._searched(observation, samples, inputs.seeds, np.asarray(rows), chosen)
            milliseconds = dict(searched.milliseconds)
            decision = _merged(decision, searched, chosen, reason)
        return replace(decision, milliseconds=milliseconds | {"gate": gate})

    def _disagree(self, inputs: Inputs) -> tuple[np.ndarray, list[str]]:
        """Which rows are searched for their samples' sake, ``bool [B]``, and why each is or is not."""
        search, reason = ~inputs.whole, ["" if whole else "no finite chunk" for whole in inputs.whole]
        if self.spread is None:
            return search, reason
        space = ChunkSpace(self.action_spec, inputs.chunks.shape[2], self.shared, self.rotation_scale)
        spread, dissent = sample_spread(inputs.chunks, space), gripper_dissent(inputs.chunks, space)
        for row in np.flatnonzero(inputs.whole):
            if not np.isfinite(spread[row]):
                reason[row] = "too few samples to agree"
            elif spread[row] >= self.spread:
                reason[row] = f"samples spread by {spread[row]:.3f}"
            elif self.dissent is not None and dissent[row] >= self.dissent:
                reason[row] = f"{100 * dissent[row]:.0f} % of the samples differ in the gripper"
            else:
                reason[row] = f"samples agree within {spread[row]:.3f}"
                continue
            search[row] = True
        return search, reason

    def _judge(self, value: np.ndarray, names: Sequence[int], search: np.ndarray, reason: list[str]) -> None:
        """Add the rows whose value fell, and those whose value cannot be told."""
        for row, name in enumerate(names):
            if not np.isfinite(value[row]):
                if not search[row]:
                    search[row], reason[row] = True, "the state has no finite value"
                continue
            if self.drop is None:
                continue
            before = self._last.get(name)
            self._last[name] = float(value[row])
            if search[row]:
                continue
            if before is None:
                search[row], reason[row] = True, "first decision"
            elif before - value[row] > self.drop:
                search[row], reason[row] = True, f"value fell by {before - value[row]:.3f}"
            else:
                held = f"value fell by no more than {self.drop:g}"
                reason[row] = f"{reason[row]}, {held}" if reason[row] else held

    def _searched(
        self,
        observation: Observation,
        samples: ActionSamples,
        seeds: np.ndarray,
        names: np.ndarray,
        chosen: np.ndarray,
    ) -> Decision:
        seen, log_probability = observation.rows(chosen), samples.log_probability
        asked = ActionSamples(
            np.asarray(samples.chunks)[chosen],
            None if log_probability is None else np.asarray(log_probability)[chosen],
        )
        if isinstance(self.planner, RowPlanner):
            return self.planner.plan_rows(seen, asked, seeds[chosen], names[chosen])
        return self.planner.plan(seen, asked, seeds[chosen])

    def _without_search(self, inputs: Inputs, value: np.ndarray, reason: Sequence[str]) -> Decision:
        rows = inputs.seeds.size
        no = np.zeros(rows, bool)
        return Decision(
            chunk=self.action_spec.clip(inputs.chunks[:, 0]),
            slot=np.zeros(rows, np.int32),
            value=value.astype(np.float32),
            policy_value=value.astype(np.float32),
            overridden=no,
            fallback=no.copy(),
            reason=tuple(f"policy: not searched, {words}" for words in reason),
            simulations=np.zeros(rows, np.int32),
        )


def _merged(decision: Decision, searched: Decision, rows: np.ndarray, reason: Sequence[str]) -> Decision:
    """A decision without search in which some rows (integers) were searched."""
    fields: dict[str, Any] = {}
    for name in ("chunk", "slot", "value", "policy_value", "overridden", "fallback", "simulations"):
        fields[name] = getattr(decision, name).copy()
        fields[name][rows] = getattr(searched, name)
    words = list(decision.reason)
    for row, text in zip(rows, searched.reason, strict=True):
        words[row] = f"{text} (searched: {reason[row]})"
    return replace(decision, reason=tuple(words), candidates=_candidates(decision, searched, rows), **fields)


def _candidates(decision: Decision, searched: Decision, rows: np.ndarray) -> Candidates | None:
    """The searched rows' candidates; in the others every slot holds the policy's own chunk, unseen."""
    known = searched.candidates
    if known is None or rows.size == len(decision.chunk):
        return known
    batch, shape = len(decision.chunk), known.value.shape[1]
    merged = Candidates(
        chunks=np.repeat(decision.chunk[:, None], shape, axis=1),
        source=np.zeros((batch, shape), known.source.dtype),
        source_names=known.source_names,
        prior=np.repeat((np.arange(shape) == 0).astype(np.float32)[None], batch, axis=0),
        value=np.full((batch, shape), np.nan, np.float32),
        visits=np.zeros((batch, shape), known.visits.dtype),
    )
    for name in ("chunks", "source", "prior", "value", "visits"):
        getattr(merged, name)[rows] = getattr(known, name)
    return merged
