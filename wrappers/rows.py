"""Decisions row by row: one without a plan, one with the policy's chunk in some rows, two put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..interfaces import ActionSamples, Decision


def without_plan(chunk: np.ndarray, fallback: np.ndarray, reason: tuple[str, ...]) -> Decision:
    """The decision to execute chunks ``[B, H, A]`` about which no planner said anything."""
    batch = len(chunk)
    return Decision(
        chunk=chunk.copy(),
        slot=np.zeros(batch, np.int32),
        value=np.full(batch, np.nan, np.float32),
        policy_value=np.full(batch, np.nan, np.float32),
        overridden=np.zeros(batch, bool),
        fallback=fallback.copy(),
        reason=reason,
        simulations=np.zeros(batch, np.int32),
    )


def take_policy(decision: Decision, rows: np.ndarray, own: np.ndarray, reason: str) -> Decision:
    """The decision with the policy's own chunk ``own [B, H, A]`` in some rows ``bool [B]``."""
    return replace(
        decision,
        chunk=np.where(rows[:, None, None], own, decision.chunk).astype(np.float32),
        slot=np.where(rows, 0, decision.slot).astype(np.int32),
        value=np.where(rows, np.nan, decision.value).astype(np.float32),
        policy_value=np.where(rows, np.nan, decision.policy_value).astype(np.float32),
        overridden=np.asarray(decision.overridden, bool) & ~rows,
        fallback=np.asarray(decision.fallback, bool) | rows,
        reason=tuple(reason if taken else text for taken, text in zip(rows, decision.reason, strict=True)),
        candidates=None if rows.all() else decision.candidates,
    )


def merge(decision: Decision, rows: np.ndarray, planned: Decision) -> Decision:
    """The decision with some rows (integers) replaced by those of a smaller one."""
    if len(rows) == len(decision.chunk):
        return planned
    merged: dict[str, Any] = {}
    for name in ("chunk", "slot", "value", "policy_value", "overridden", "fallback", "simulations"):
        merged[name] = getattr(decision, name).copy()
        merged[name][rows] = getattr(planned, name)
    reason = list(decision.reason)
    for row, text in zip(rows, planned.reason, strict=True):
        reason[row] = text
    return replace(decision, reason=tuple(reason), **merged)


def sample_rows(samples: ActionSamples, rows: np.ndarray) -> ActionSamples:
    """The samples of some rows (integers)."""
    log_probability = samples.log_probability
    return ActionSamples(samples.chunks[rows], None if log_probability is None else log_probability[rows])
