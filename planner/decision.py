"""Which chunk to execute once the search is over, and why."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numba import njit

from ..interfaces import ActionSpec, Candidates, Decision, ForethoughtError
from .rotation import slerp
from .settling import root_candidates


@dataclass(eq=False)
class RootStatistics:
    """What the search knows about the root's children.

    Attributes:
        chunks: ``float32 [B, K, H, A]``; slot 0 is the policy's own.
        source: ``int8 [B, K]``.
        source_names: Names of the sources.
        value: Backed-up values, ``float64 [B, K]``; NaN where not evaluated, −inf where disqualified.
        spread: The reward model's spread, ``float64 [B, K]``.
        visits: ``int32 [B, K]``.
        closed: Whether everything below was evaluated, ``bool [B, K]``.
    """

    chunks: np.ndarray
    source: np.ndarray
    source_names: tuple[str, ...]
    value: np.ndarray
    spread: np.ndarray
    visits: np.ndarray
    closed: np.ndarray


@dataclass(eq=False)
class Choice:
    """The outcome for B rows; the fields are those of ``Decision``."""

    chunk: np.ndarray
    slot: np.ndarray
    value: np.ndarray
    policy_value: np.ndarray
    overridden: np.ndarray
    fallback: np.ndarray
    reason: tuple[str, ...]


@dataclass(frozen=True)
class DecisionRule:
    """Highest value among sufficiently visited children, past a margin over the policy's own chunk.

    Attributes:
        margin: How much more value than the policy's chunk another must have, in units of the value.
        visit_fraction: A child counts once it has this share of the most visited child's visits, in [0, 1].
            Children below which nothing is left to evaluate always count.
        confidence: z of the lower bound v − z·spread/√n by which children are compared; 0 compares the
            values.
        policy_weight: α of the injection α·policy + (1−α)·search, in [0, 1): positions linearly, rotations
            along the arc on SO(3). 0 executes the chunk found. (VLA-Reasoner uses 0.6, read so that
            its α = 1 is the policy alone.)
        gripper_votes: How many of the best children vote on each step's binary gripper when blending; 1 takes
            the chosen chunk's. A binary gripper is never averaged.
    """

    margin: float = 0.03
    visit_fraction: float = 0.25
    confidence: float = 0.0
    policy_weight: float = 0.0
    gripper_votes: int = 1

    def __post_init__(self) -> None:
        if not self.margin >= 0.0 or not self.confidence >= 0.0:
            raise ForethoughtError(
                f"margin and confidence must not be negative; got {self.margin}, {self.confidence}."
            )
        if not 0.0 <= self.visit_fraction <= 1.0 or not 0.0 <= self.policy_weight < 1.0:
            raise ForethoughtError(
                f"visit_fraction must lie in [0, 1] and policy_weight in [0, 1); got {self.visit_fraction}, "
                f"{self.policy_weight}. To execute the policy alone, use no planner."
            )
        if self.gripper_votes < 1:
            raise ForethoughtError(f"gripper_votes must be at least 1; got {self.gripper_votes}.")

    def __call__(self, root: RootStatistics, spec: ActionSpec) -> Choice:
        """Decide for every row. A row whose policy chunk has no finite value falls back to it."""
        chosen, ranked, gain = _choose(
            np.ascontiguousarray(root.chunks, np.float32),
            np.ascontiguousarray(root.value, np.float64),
            np.ascontiguousarray(root.spread, np.float64),
            np.ascontiguousarray(root.visits, np.int32),
            np.ascontiguousarray(root.closed, np.bool_),
            (float(self.margin), float(self.visit_fraction), float(self.confidence)),
        )
        chunk, slot, *_, overridden, fallback = chosen
        if self.policy_weight and overridden.any():
            chunk[overridden] = self._inject(root, ranked, slot, spec)[overridden]
        reason = self._reasons(root.source_names, root.source, slot, fallback, gain)
        return Choice(*chosen, reason)

    def of_trees(
        self,
        nodes: np.ndarray,
        chunk: np.ndarray,
        alive: np.ndarray,
        spent: np.ndarray,
        source_names: tuple[str, ...],
        milliseconds: Mapping[str, float],
    ) -> Decision | None:
        """The decision among the candidates at the roots of trees, in one compiled call; None where it has no
        such form: a subclass may choose otherwise, and blending takes more.

        Args:
            nodes, chunk: Those of the ``Tree``.
            alive: Which rows were searched, ``bool [B]``.
            spent: Distinct evaluations, ``[B]``.
            source_names: Names of the sources.
            milliseconds: ``Decision.milliseconds``.
        """
        if type(self) is not DecisionRule or self.policy_weight:
            return None
        settings = float(self.margin), float(self.visit_fraction), float(self.confidence)
        chosen, gain, simulations, known = _choose_at_roots(nodes, chunk, alive, spent, settings)
        action, slot, value, policy_value, overridden, fallback = chosen
        chunks, source, prior, values, visits = known
        return Decision(
            action,
            slot,
            value,
            policy_value,
            overridden,
            fallback,
            self._reasons(source_names, source, slot, fallback, gain),
            simulations,
            milliseconds,
            candidates=Candidates(chunks, source, source_names, prior, values, visits),
        )

    def _inject(
        self, root: RootStatistics, ranked: np.ndarray, slot: np.ndarray, spec: ActionSpec
    ) -> np.ndarray:
        rows = np.arange(slot.size)
        chosen = root.chunks[rows, slot]
        gripper = chosen
        if self.gripper_votes > 1:
            order = np.argsort(-ranked, axis=1, kind="stable")[:, : self.gripper_votes]
            voters = np.isfinite(np.take_along_axis(ranked, order, axis=1))
            gripper = vote(root.chunks[rows[:, None], order], voters, chosen)
        return blend(root.chunks[:, 0], chosen, gripper, self.policy_weight, spec)

    @functools.cached_property
    def _within(self) -> str:
        """What a reason says of the margin; numbers take long to become words."""
        return f"within the margin of {self.margin:g}"

    def _reasons(
        self,
        source_names: tuple[str, ...],
        source: np.ndarray,
        slot: np.ndarray,
        fallback: np.ndarray,
        gain: np.ndarray,
    ) -> tuple[str, ...]:
        """Why, in words, for every row."""
        reasons = []
        for row, (failed, chosen, more) in enumerate(zip(fallback.tolist(), slot.tolist(), gain.tolist())):
            if failed:
                reasons.append("fallback: the policy's chunk has no finite value")
            elif chosen:
                reasons.append(f"search: {source_names[source[row, chosen]]} is better by {more:.3f}")
            elif more > 0.0:
                reasons.append(f"policy: the best is better by {more:.3f}, {self._within}")
            else:
                reasons.append("policy: nothing is better")
        return tuple(reasons)


Chosen: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""The fields of ``Choice`` but for the reason."""


@njit(cache=True)
def _choose(
    chunks: np.ndarray,
    value: np.ndarray,
    spread: np.ndarray,
    visits: np.ndarray,
    closed: np.ndarray,
    settings: tuple[float, float, float],
) -> tuple[Chosen, np.ndarray, np.ndarray]:
    """The choice; what counts of each child, −inf where it does not, ``float64 [B, K]``; and by how much the
    best is better than the policy's, ``float64 [B]``. Values are NaN in rows whose policy chunk has none that
    is finite."""
    margin, visit_fraction, confidence = settings
    ranked = np.empty(value.shape)
    chunk = np.empty((len(value), chunks.shape[2], chunks.shape[3]), np.float32)
    slot, gain = np.zeros(len(value), np.int32), np.empty(len(value))
    overridden, fallback = np.empty(len(value), np.bool_), np.empty(len(value), np.bool_)
    best_value, policy_value = (
        np.full(len(value), np.float32(np.nan)),
        np.full(len(value), np.float32(np.nan)),
    )
    for row in range(len(value)):
        enough = max(1.0, visit_fraction * visits[row].max())
        best = 0
        for k in range(value.shape[1]):
            ranked[row, k] = -np.inf
            if math.isfinite(value[row, k]) and (k == 0 or closed[row, k] or visits[row, k] >= enough):
                doubt = confidence * spread[row, k] / math.sqrt(max(visits[row, k], 1)) if confidence else 0.0
                ranked[row, k] = value[row, k] - doubt
            if ranked[row, k] > ranked[row, best]:
                best = k
        fallback[row] = not math.isfinite(value[row, 0])
        gain[row] = ranked[row, best] - ranked[row, 0]
        if best != 0 and not fallback[row] and gain[row] > margin:
            slot[row] = best
        if not fallback[row]:
            best_value[row], policy_value[row] = value[row, slot[row]], value[row, 0]
        overridden[row] = slot[row] > 0
        for t in range(chunk.shape[1]):
            for a in range(chunk.shape[2]):
                chunk[row, t, a] = chunks[row, slot[row], t, a]
    return (chunk, slot, best_value, policy_value, overridden, fallback), ranked, gain


@njit(cache=True)
def _choose_at_roots(
    nodes: Any,
    chunk: np.ndarray,
    alive: np.ndarray,
    spent: np.ndarray,
    settings: tuple[float, float, float],
) -> tuple[Chosen, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """The choice among the candidates at the roots; by how much the best is better than the policy's; what
    was spent, ``int32``; and of the candidates what ``Candidates`` keeps."""
    chunks, source, value, spread, visits, closed, prior = root_candidates(nodes, chunk, alive)
    chosen, _, gain = _choose(chunks, value, spread, visits, closed, settings)
    simulations, values = np.empty(spent.size, np.int32), np.empty(value.shape, np.float32)
    for row in range(spent.size):
        simulations[row] = spent[row]
        for k in range(value.shape[1]):
            values[row, k] = value[row, k]
    return chosen, gain, simulations, (chunks, source, prior, values, visits)


def with_candidates(
    choice: Choice,
    root: RootStatistics,
    prior: np.ndarray,
    spent: np.ndarray,
    milliseconds: Mapping[str, float] | None = None,
) -> Decision:
    """The choice as a decision, with the candidates that it was made among.

    Args:
        choice: What ``DecisionRule`` chose.
        root: What it chose from.
        prior: Of the candidates, ``[B, K]``.
        spent: Distinct evaluations, ``[B]``.
        milliseconds: ``Decision.milliseconds``.
    """
    return Decision(
        chunk=choice.chunk,
        slot=choice.slot,
        value=choice.value,
        policy_value=choice.policy_value,
        overridden=choice.overridden,
        fallback=choice.fallback,
        reason=choice.reason,
        simulations=spent.astype(np.int32),
        milliseconds={} if milliseconds is None else milliseconds,
        candidates=Candidates(
            chunks=root.chunks,
            source=root.source,
            source_names=root.source_names,
            prior=prior.astype(np.float32, copy=False),
            value=root.value.astype(np.float32),
            visits=root.visits,
        ),
    )


def blend(
    policy: np.ndarray, chosen: np.ndarray, gripper: np.ndarray, policy_weight: float, spec: ActionSpec
) -> np.ndarray:
    """α·policy + (1−α)·chosen for chunks ``[..., H, A]``: linear, but rotations on SO(3) and binary grippers
    from ``gripper`` (chunks of the same shape). Inside the bounds, float32."""
    weight = 1.0 - policy_weight
    result = policy_weight * policy.astype(np.float64) + weight * chosen
    rotation = list(spec.rotation)
    if len(rotation) == 3:
        scale = spec.rotation_scale
        arc = slerp(policy[..., rotation].astype(np.float64) * scale, chosen[..., rotation] * scale, weight)
        result[..., rotation] = arc / scale
    binary = [index for index in range(spec.size) if index not in spec.continuous]
    result[..., binary] = gripper[..., binary]
    return spec.clip(result)


def vote(chunks: np.ndarray, voters: np.ndarray, tie: np.ndarray) -> np.ndarray:
    """Per entry the majority among chunks ``[B, n, H, A]`` whose ``voters`` ``[B, n]`` is true, for entries
    that only take two values; where both have as many, that of ``tie`` ``[B, H, A]``."""
    same = ((chunks == tie[:, None]) & voters[:, :, None, None]).sum(axis=1)
    other = (chunks != tie[:, None]) & voters[:, :, None, None]
    rival = np.take_along_axis(chunks, other.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(same >= other.sum(axis=1), tie, rival)
