"""Drives a robot: policy, planner and guard in one call that does not raise while an episode runs.

What happens when a part fails:

    reasoner   fails → the observation as it came
    policy     fails → hold still: no motion, the gripper as last commanded
    planner    fails, is late, or answers nonsense → the policy's own chunk
    guard      rejects → the policy's own chunk; rejects that too → hold still

Every failure is counted by kind and row in `Controller.counters`, and logged once per kind.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np

from ..interfaces import (
    ActionSamples,
    ActionSpec,
    Decision,
    ForethoughtError,
    Observation,
    Planner,
    Policy,
    Reasoner,
    RowPlanner,
)
from . import checks
from .deadline import DeadlineExceeded, DeadlineRunner
from .guard import Guard
from .limits import Limits
from .rows import merge, sample_rows, take_policy, without_plan
from .safety import make_guard

log = logging.getLogger(__name__)

PROBLEMS = {
    "observation": "NaN or a wrong shape in the observation; not planned on",
    "seeds": "missing or of a wrong shape; zeros stand in",
    "reasoner": "raised, or returned an unusable observation; the observation is used as it came",
    "policy": "raised, or its own chunk had a wrong shape or NaN; held still",
    "samples": "further samples of the policy raised or held NaN; its own chunk stands in for them",
    "planner": "raised, or returned a wrong shape or NaN; the policy's own chunk is executed",
    "deadline": "the planner was late; the policy's own chunk is executed",
    "guard": "raised, or rejected the chunk; the policy's own chunk is executed, or held still",
    "controller": "a failure that none of the above explains; held still",
}
"""The keys of `Controller.counters`, and what was done."""


class Controller:
    """A policy that looks ahead, safe to put in a control loop.

    Args:
        policy: Proposes chunks.
        planner: Chooses among what it imagines; None executes the policy's own chunk.
        reasoner: Looks at the observation first.
        guard: Looks at the chunk last; by default it clips to the policy's action bounds. ``safety.Limits``
            make one that keeps them.
        samples: Chunks asked of the policy per row when there is a planner; by default as many as the planner
            compares (its ``n``), or 8.
        deadline_ms: Wall time after which the planner is given up and the policy's own chunk is taken. The
            planner then runs in a thread, where it may finish later: not for a planner that steps the live
            environment. None waits.
        execution_horizon: Steps of every chunk that are executed before the next look, 1 to the policy's
            horizon: ``decide`` returns no more than these. None executes all.

    Attributes:
        counters: Number of rows by kind of problem, one of `PROBLEMS`.
        first: The first problem of each kind, an exception or a phrase.
    """

    def __init__(
        self,
        policy: Policy,
        planner: Planner | None,
        *,
        reasoner: Reasoner | None = None,
        guard: Guard | Limits | None = None,
        samples: int | None = None,
        deadline_ms: float | None = None,
        execution_horizon: int | None = None,
    ) -> None:
        samples = int(getattr(planner, "n", 8)) if samples is None else samples
        if samples < 1:
            raise ForethoughtError(f"samples must be 1 or more chunks per row; got {samples}.")
        if deadline_ms is not None and not (math.isfinite(deadline_ms) and deadline_ms > 0):
            raise ForethoughtError(
                f"deadline_ms must be a positive number of milliseconds, or None to wait; got {deadline_ms}."
            )
        for name in ("propose", "action_spec", "horizon"):
            if not hasattr(policy, name):
                raise ForethoughtError(
                    f"The controller needs a policy with propose, action_spec and horizon; "
                    f"{type(policy).__name__} has no {name}. forethought.wrap takes other objects."
                )
        whole = isinstance(execution_horizon, Integral) and not isinstance(execution_horizon, bool)
        if execution_horizon is not None and not (whole and 1 <= execution_horizon <= int(policy.horizon)):
            raise ForethoughtError(
                f"execution_horizon must be an integer 1 to {int(policy.horizon)}, the steps of the policy's "
                f"chunks, or None for all of them; got {execution_horizon!r}."
            )
        self.guard: Any = make_guard(guard, policy.action_spec)
        for part, method in ((planner, "plan"), (reasoner, "consider"), (self.guard, "check")):
            if part is not None and not callable(getattr(part, method, None)):
                raise ForethoughtError(
                    f"The controller needs an object with a method {method} here; got {type(part).__name__}."
                )
        self.policy = policy
        self.planner = planner
        self.reasoner = reasoner
        self.samples = samples
        self.deadline_ms = deadline_ms
        self.execution_horizon = execution_horizon
        self.counters: Counter[str] = Counter()
        self.first: dict[str, str | Exception] = {}
        self._spec = policy.action_spec
        self._horizon = int(policy.horizon)
        self._runner = DeadlineRunner()
        self._batch = 0
        self._last: np.ndarray | None = (
            None  # [B, A], last action of each row's last good chunk; NaN before one
        )
        self._executed: list[np.ndarray] = []  # [B, T, A] each, since the guard was last told

    def reset(self) -> None:
        """Call when an episode starts. Resets the policy too, if it can be."""
        self.forget()
        _reset(self.policy)

    def forget(self) -> None:
        """What `reset` does, without resetting the policy."""
        self._last, self._executed = None, []
        for part in (self.planner, self.reasoner, self.guard):
            _reset(part)

    def decide(self, observation: Observation, seeds: np.ndarray) -> Decision:
        """What to execute, for each row of the observation. ``seeds`` is ``int64 [B]``. Does not raise."""
        try:
            return self._decide(observation, seeds)
        except Exception as error:
            batch = max(1, int(np.size(seeds)))
            self.count("controller", batch, error)
            nothing = np.zeros(batch, np.int32)
            held = hold_still(self._spec, self._horizon, self._last_actions(batch))
            held = held[:, : self.execution_horizon]
            return without_plan(held, nothing == 0, ("controller failed: hold still",) * batch)

    def _decide(self, observation: Observation, seeds: np.ndarray) -> Decision:
        clock = _Clock()
        batch = (
            len(observation.instruction) if isinstance(observation, Observation) else max(1, np.size(seeds))
        )
        seeds = self._seeds(seeds, batch)
        unusable, what = checks.unusable_rows(observation, batch)
        if unusable.any():
            self.count("observation", unusable, what)
        elif self.reasoner is not None:
            observation = self._consider(self.reasoner, observation)
            clock.lap("reasoner")

        samples, failed = self._propose(observation, seeds)
        own = samples.chunks[:, 0]
        clock.lap("policy")

        default = "no planner" if self.planner is None else "fallback: " + what
        reason = tuple("policy failed: hold still" if row else default for row in failed)
        decision = without_plan(own, failed if self.planner is None else unusable | failed, reason)
        rows = np.flatnonzero(~(unusable | failed))
        self._same_rows(batch)
        if self.planner is not None and rows.size:
            seen = observation if rows.size == batch else observation.rows(rows)
            planned = self._plan(seen, sample_rows(samples, rows), seeds[rows], own[rows], rows)
            decision = merge(decision, rows, planned)
            clock.lap("search")
            clock.milliseconds |= planned.milliseconds

        self._tell_guard(observation, sum(clock.milliseconds.values()), batch)
        decision, held = self._guarded(decision, own, failed)
        clock.lap("guard")
        chunk = decision.chunk[:, : self.execution_horizon]
        self._last = np.where((failed | held)[:, None], self._last_actions(batch), chunk[:, -1])
        self._executed = [chunk]
        return replace(decision, chunk=chunk, milliseconds=clock.milliseconds)

    def _seeds(self, seeds: Any, batch: int) -> np.ndarray:
        try:
            array = np.asarray(seeds).astype(np.int64, casting="same_kind")
            if array.shape == (batch,):
                return array
            problem: str | Exception = f"expected integers [{batch}], got shape {list(array.shape)}"
        except (TypeError, ValueError) as error:
            problem = error
        self.count("seeds", batch, problem)
        return np.zeros(batch, np.int64)

    def _consider(self, reasoner: Reasoner, observation: Observation) -> Observation:
        try:
            considered = reasoner.consider(observation)
        except Exception as error:
            self.count("reasoner", observation.batch, error)
            return observation
        unusable, what = checks.unusable_rows(considered, observation.batch)
        if unusable.any():
            self.count("reasoner", unusable, what)
            return observation
        return considered

    def _propose(self, observation: Observation, seeds: np.ndarray) -> tuple[ActionSamples, np.ndarray]:
        """The policy's samples, and the rows ``bool [B]`` where it failed and they hold still instead."""
        batch, n = len(seeds), 1 if self.planner is None else self.samples
        what: str | Exception = "NaN or infinity in the policy's chunk"
        try:
            samples = self.policy.propose(observation, n, seeds)
            chunks = checks.own_chunks(samples, batch, self._horizon, self._spec.size)
        except Exception as error:
            if batch > 1 and isinstance(observation, Observation):
                return self._propose_row_by_row(observation, seeds)
            what = error
            chunks = np.full((batch, n, self._horizon, self._spec.size), np.nan, np.float32)
            samples = ActionSamples(chunks)
        failed = ~checks.finite_rows(chunks[:, 0])
        if failed.any():
            self.count("policy", failed, what)
            held = hold_still(self._spec, self._horizon, self._last_actions(batch))
            chunks[failed] = held[failed, None]
        broken = ~checks.finite_rows(chunks, axes=2)
        if broken.any():
            self.count("samples", np.asarray(broken.any(axis=-1)), "NaN or infinity in further samples")
            chunks = np.where(broken[:, :, None, None], chunks[:, :1], chunks)
        log_probability = None if broken.any() else checks.usable_log_probability(samples, chunks)
        return ActionSamples(chunks, log_probability), failed

    def _propose_row_by_row(
        self, observation: Observation, seeds: np.ndarray
    ) -> tuple[ActionSamples, np.ndarray]:
        """The same when a batch made the policy raise: one bad row must not stop its neighbours."""
        last, parts, failed = self._last_actions(len(seeds)), [], []
        for row in range(len(seeds)):
            self._last = last[row : row + 1]
            samples, bad = self._propose(observation.rows([row]), seeds[row : row + 1])
            parts.append(samples.chunks)
            failed.append(bad)
        self._last = last
        most = max(part.shape[1] for part in parts)
        parts = [part[:, np.minimum(np.arange(most), part.shape[1] - 1)] for part in parts]
        return ActionSamples(np.concatenate(parts)), np.concatenate(failed)

    def _same_rows(self, batch: int) -> None:
        """Batches of another size hold other robots: nothing that was remembered of a row is true of them."""
        if batch != self._batch and self._batch and isinstance(self.planner, RowPlanner):
            _reset(self.planner)
        self._batch = batch

    def _plan(
        self,
        observation: Observation,
        samples: ActionSamples,
        seeds: np.ndarray,
        own: np.ndarray,
        rows: np.ndarray,
    ) -> Decision:
        """The planner's decision, with the policy's own chunk wherever it must not be followed. ``rows`` are
        the places in the whole batch, by which a planner that remembers knows them again."""
        batch, planner = len(seeds), self.planner
        assert planner is not None

        def plan() -> Decision:
            if callable(tell := getattr(planner, "executed", None)):
                done = self._done(self._batch)
                tell(np.zeros((batch, 0, 0)) if done is None else done[rows], rows)
            if isinstance(planner, RowPlanner):
                return planner.plan_rows(observation, samples, seeds, rows)
            return planner.plan(observation, samples, seeds)

        kind = "planner"
        decision = without_plan(own, np.ones(batch, bool), ("",) * batch)
        try:
            planned = plan() if self.deadline_ms is None else self._runner.run(plan, self.deadline_ms)
            failed, what = checks.failed_rows(planned, batch, self._horizon, self._spec.size)
            if not failed.all():
                decision = replace(planned, milliseconds=dict(planned.milliseconds))
        except DeadlineExceeded as error:
            kind, failed, what = "deadline", np.ones(batch, bool), error
        except Exception as error:
            failed, what = np.ones(batch, bool), error
        if failed.any():
            self.count(kind, failed, what)
            decision = take_policy(decision, failed, own, f"fallback: {_words(what)}")
        gave_up = np.asarray(decision.fallback, bool) & ~failed
        if gave_up.any():
            self.count("planner", gave_up, decision.reason[int(np.argmax(gave_up))])
            decision = replace(decision, chunk=np.where(gave_up[:, None, None], own, decision.chunk))
        return decision

    def _guarded(
        self, decision: Decision, own: np.ndarray, failed: np.ndarray
    ) -> tuple[Decision, np.ndarray]:
        """The decision as the guard lets it pass, and the rows ``bool [B]`` that it holds still."""
        chunk, rejected, words = self._checked(decision.chunk)
        if rejected.any():
            what = "; ".join(sorted({word for word, bad in zip(words, rejected, strict=True) if bad}))
            self.count("guard", rejected, what)
            decision = take_policy(replace(decision, chunk=chunk), rejected, own, f"guard: {what}")
            chunk, rejected, again = self._checked(decision.chunk)
            words = tuple(
                "; ".join(dict.fromkeys(filter(None, pair))) for pair in zip(words, again, strict=True)
            )
        held = rejected & ~failed
        if rejected.any():
            chunk = np.where(
                rejected[:, None, None],
                hold_still(self._spec, self._horizon, self._last_actions(len(own))),
                chunk,
            )
        return replace(decision, chunk=chunk, guard=words), held

    def executed(self, actions: np.ndarray, *, instead: bool = False) -> None:
        """Notes actions ``[B, T, A]`` that were executed after the latest decision, for guard and planner.

        Args:
            actions: What was executed.
            instead: Of the latest decision only these were; by default it was executed whole, and these
                after it.
        """
        self._executed = [actions] if instead else [*self._executed, actions]

    def _done(self, batch: int) -> np.ndarray | None:
        """What was executed since the latest decision, ``[B, T, A]``, or None before one."""
        done = [actions for actions in self._executed if len(actions) == batch]
        return np.concatenate(done, axis=1) if done else None

    def _tell_guard(self, observation: Any, milliseconds: float, batch: int) -> None:
        notice = getattr(self.guard, "notice", None)
        if not callable(notice):
            return
        try:
            notice(observation, self._done(batch), milliseconds)
        except Exception as error:
            self.count("guard", batch, error)

    def _checked(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
        try:
            report = self.guard.check(chunk.copy())
            checked, rejected = np.asarray(report.chunk, np.float32), np.asarray(report.rejected, bool)
            if checked.shape != chunk.shape or rejected.shape != chunk.shape[:1]:
                raise ValueError(f"the guard returned {checked.shape} for {chunk.shape}")
            return checked, rejected | ~checks.finite_rows(checked), tuple(report.reason)
        except Exception as error:
            self.count("guard", len(chunk), error)
            report = Guard(self._spec).check(chunk)
            return report.chunk, report.rejected, report.reason

    def _last_actions(self, batch: int) -> np.ndarray:
        if self._last is None or len(self._last) != batch:
            return np.full((batch, self._spec.size), np.nan, np.float32)
        return self._last

    def count(self, kind: str, rows: np.ndarray | int, what: str | Exception) -> None:
        """Notes a problem of a kind in `PROBLEMS` on some rows (how many, or ``bool [B]``)."""
        self.counters[kind] += int(np.sum(rows))
        if kind in self.first:
            return
        self.first[kind] = what
        error = what if isinstance(what, Exception) else None
        log.warning("%s: %s (%s). Counted from now on.", kind, _words(what), PROBLEMS[kind], exc_info=error)


def hold_still(spec: ActionSpec, horizon: int, last: np.ndarray) -> np.ndarray:
    """Chunks ``[B, H, A]`` that do not move: no translation, no rotation, everything else as last commanded.

    Args:
        last: The last action of each row, ``[B, A]``; NaN where there was none, then grippers go to their
            lower bound and other numbers to zero.
    """
    unknown = np.zeros(spec.size, np.float32)
    unknown[list(spec.gripper)] = spec.low[list(spec.gripper)]
    action = np.where(np.isfinite(last), last, unknown).astype(np.float32)
    action[:, [*spec.position, *spec.rotation]] = 0.0
    return np.repeat(spec.clip(action)[:, None], horizon, axis=1)


def _reset(part: object) -> None:
    reset = getattr(part, "reset", None)
    if callable(reset):
        reset()


def _words(what: str | Exception) -> str:
    return what if isinstance(what, str) else f"{type(what).__name__}: {what}"


class _Clock:
    """Wall time by component."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._start = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.milliseconds[name] = 1e3 * (now - self._start)
        self._start = now
