"""What a robot must never be asked to do, whoever asks: workspace, speed, acceleration, gripper, stale eyes.

`Limits` describe a robot; `RobotGuard` keeps every chunk within them and says what it changed. It stands
between the decision and the robot, so that it holds for the policy's own chunks too.

Each rule is a function of a chunk and of what is known of the robot. Later rules win: bounds and gripper,
speed, acceleration, and last the workspace, for whose sake a stop may be harder than the acceleration allows.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError, Observation
from .checks import finite_rows
from .guard import Guard, GuardReport
from .limits import Limits


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of B robots when a chunk is looked at.

    Attributes:
        position: Of the end effector, metres ``[B, 3]``, NaN where unknown.
        action: Executed last, ``[B, A]``; NaN before the first.
        since_change: Steps since a gripper command changed, ``[B, G]``; large before the first change.
    """

    position: np.ndarray
    action: np.ndarray
    since_change: np.ndarray


Rule = Callable[[np.ndarray, Known], np.ndarray]
"""From chunks ``[B, H, A]`` to chunks that keep one limit."""


class RobotGuard:
    """Keeps chunks within the limits of a robot; remembers what was executed.

    Args:
        action_spec: What the numbers of an action mean.
        limits: What the robot allows.
    """

    def __init__(self, action_spec: ActionSpec, limits: Limits) -> None:
        position, rotation = list(action_spec.position), list(action_spec.rotation)
        moves = limits.workspace_low or limits.speed or limits.acceleration
        if moves and len(position) != 3:
            raise ForethoughtError(
                f"The workspace, speed and acceleration need a position command of three numbers; the action "
                f"names {action_spec.position}. Leave these limits out, or say which numbers these are."
            )
        if (limits.turn_speed or limits.turn_acceleration) and not rotation:
            raise ForethoughtError("Limits on turning need a rotation command; the action names none.")
        self.action_spec, self.limits = action_spec, limits
        self._bounds = Guard(action_spec)
        self._rules = _rules(action_spec, limits)
        self.reset()

    def reset(self) -> None:
        """An episode starts."""
        self._known: Known | None = None
        self._digests: np.ndarray | None = None
        self._repeats = np.zeros(0, np.int64)
        self._milliseconds = 0.0

    def notice(self, observation: Any, executed: np.ndarray | None, milliseconds: float) -> None:
        """What happened since the last check.

        Args:
            observation: What is acted on now; anything else where there was none.
            executed: Actions since the last check, ``[B, T, A]``, or None.
            milliseconds: Since the observation came.
        """
        self._milliseconds = milliseconds
        batch = observation.batch if isinstance(observation, Observation) else None
        if batch is None and executed is None and self._known is None:
            return
        batch = batch or (len(executed) if executed is not None else len(self._known.action))  # type: ignore[union-attr]
        known = self._known if self._known is not None and len(self._known.action) == batch else None
        known = known or _unknown(self.action_spec, batch)
        moved = np.ones(batch, bool)
        if executed is not None and len(executed) == batch:
            known, moved = _after(known, executed, self.action_spec, self.limits.absolute)
        if isinstance(observation, Observation):
            known = replace(known, position=self._position(observation, known))
            self._look(observation, moved)
        self._known = known

    def check(self, chunks: np.ndarray) -> GuardReport:
        """Report on chunks ``[B, H, A]``. Changes nothing that is remembered."""
        report = self._bounds.check(chunks)
        known = self._known if self._known is not None and len(self._known.action) == len(chunks) else None
        known = known or _unknown(self.action_spec, len(chunks))
        chunk, good = report.chunk, ~report.rejected
        reasons: list[list[str]] = [[text] if text else [] for text in report.reason]
        for name, rule in self._rules:
            changed = chunk.copy()
            changed[good] = rule(chunk[good], _rows(known, good)).astype(np.float32)
            touched = np.abs(changed - chunk).reshape(len(chunk), -1).max(axis=-1, initial=0.0) > 1e-6
            for row in np.flatnonzero(touched):
                reasons[row].append(f"{name} limited")
            chunk = changed
        rejected = report.rejected.copy()
        for row, why in self._stops(len(chunks), known):
            rejected[row] = True
            reasons[row] = [why]
        texts = tuple("; ".join(words) for words in reasons)
        limited = np.array([bool(text) for text in texts]) & ~rejected
        return GuardReport(chunk, limited, rejected, texts)

    def _stops(self, batch: int, known: Known) -> list[tuple[int, str]]:
        """Rows that must be held still, and why."""
        limits, stops = self.limits, []
        for row in range(batch):
            if limits.late_ms is not None and self._milliseconds > limits.late_ms:
                stops.append((row, f"late: {self._milliseconds:.0f} ms of {limits.late_ms:g}"))
            elif limits.frozen and len(self._repeats) == batch and self._repeats[row] >= limits.frozen:
                stops.append((row, f"the observation did not change for {self._repeats[row]} decisions"))
            elif limits.workspace_low is not None and not np.isfinite(known.position[row]).all():
                stops.append((row, "no position to keep the workspace by"))
        return stops

    def _position(self, observation: Observation, known: Known) -> np.ndarray:
        """Seen where it can be, otherwise where the last one and what was executed lead to."""
        index = list(self.limits.position)
        body = np.asarray(observation.proprioception)
        if body.ndim != 2 or body.shape[1] <= max(index):
            return known.position
        seen = body[:, index].astype(np.float64)
        return np.where(np.isfinite(seen).all(axis=1, keepdims=True), seen, known.position)

    def _look(self, observation: Observation, moved: np.ndarray) -> None:
        if self.limits.frozen is None:
            return
        arrays = [observation.proprioception, *observation.images.values()]
        digests = np.array(
            [
                [zlib.crc32(np.ascontiguousarray(array[row]).data) for array in arrays]
                for row in range(len(moved))
            ]
        )
        if self._digests is None or self._digests.shape != digests.shape:
            self._repeats = np.zeros(len(moved), np.int64)
        else:
            same = (digests == self._digests).all(axis=1)
            self._repeats = np.where(same, self._repeats + moved, 0)
        self._digests = digests


class DryRun:
    """Says what a guard would have changed, and lets chunks pass as they came; only NaN is still stopped."""

    def __init__(self, guard: Any) -> None:
        self.guard = guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guard, name)

    def check(self, chunks: np.ndarray) -> GuardReport:
        """The guard's report as what would have been done."""
        report = self.guard.check(chunks.copy())
        broken = ~finite_rows(chunks)
        texts = tuple(
            text if bad or not text else f"would: {text}" + (", held still" if stopped else "")
            for text, bad, stopped in zip(report.reason, broken, report.rejected, strict=True)
        )
        return GuardReport(np.array(chunks, np.float32), np.zeros(len(chunks), bool), broken, texts)


def make_guard(guard: Any, action_spec: ActionSpec) -> Any:
    """The guard of a controller: one that is given, one that keeps given `Limits`, or the action's bounds."""
    if not isinstance(guard, Limits):
        return Guard(action_spec) if guard is None else guard
    kept = RobotGuard(action_spec, guard)
    return DryRun(kept) if guard.dry_run else kept


def _rules(spec: ActionSpec, limits: Limits) -> list[tuple[str, Rule]]:
    position, rotation = list(spec.position), list(spec.rotation)
    rules: list[tuple[str, Rule]] = []
    if limits.gripper_rate is not None and spec.gripper:
        rules.append(("gripper", _gripper(spec, limits)))
    for name, index, scale, most in (
        ("speed", position, spec.position_scale, limits.speed),
        ("turn speed", rotation, spec.rotation_scale, limits.turn_speed),
    ):
        if most is not None:
            rules.append((name, _speed(index, most / limits.hz / scale)))
    for name, index, scale, most in (
        ("acceleration", position, spec.position_scale, limits.acceleration),
        ("turn acceleration", rotation, spec.rotation_scale, limits.turn_acceleration),
    ):
        if most is not None:
            rules.append((name, _acceleration(index, most / limits.hz**2 / scale)))
    if limits.workspace_low is not None and limits.workspace_high is not None:
        low, high = np.asarray(limits.workspace_low), np.asarray(limits.workspace_high)
        rules.append(("workspace", _workspace(position, low, high, spec.position_scale)))
    if limits.absolute:
        rules = [
            (name, rule if name == "gripper" else _on_displacements(rule, position, spec.position_scale))
            for name, rule in rules
        ]
    return rules


def _speed(index: Sequence[int], most: float) -> Rule:
    """Shortens displacements to ``most`` units of the command a step; the direction stays."""

    def rule(chunks: np.ndarray, known: Known) -> np.ndarray:
        limited = chunks.copy()
        length = np.linalg.norm(chunks[..., index], axis=-1, keepdims=True)
        limited[..., index] *= np.minimum(1.0, most / np.maximum(length, 1e-12))
        return limited

    return rule


def _acceleration(index: Sequence[int], most: float) -> Rule:
    """Lets a displacement differ by ``most`` units from the one before; at rest before the first."""

    def rule(chunks: np.ndarray, known: Known) -> np.ndarray:
        limited = chunks.copy()
        before = known.action[:, index]
        before = np.where(np.isfinite(before), before, 0.0)
        for step in range(chunks.shape[1]):
            wanted = chunks[:, step][:, index]
            change = wanted - before
            length = np.linalg.norm(change, axis=-1, keepdims=True)
            slowed = before + change * (most / np.maximum(length, most))
            limited[:, step, index] = before = np.where(length <= most, wanted, slowed)
        return limited

    return rule


def _workspace(index: Sequence[int], low: np.ndarray, high: np.ndarray, scale: float) -> Rule:
    """Stops each axis at the wall. Outside the box an axis may only come nearer to it."""

    def rule(chunks: np.ndarray, known: Known) -> np.ndarray:
        limited, place = chunks.copy(), known.position
        for step in range(chunks.shape[1]):
            wanted = place + scale * chunks[:, step][:, index]
            reached = np.clip(wanted, np.minimum(low, place), np.maximum(high, place))
            inside = reached == wanted  # nothing to change: keep the number to the bit
            limited[:, step, index] = np.where(inside, chunks[:, step][:, index], (reached - place) / scale)
            place = reached
        return limited

    return rule


def _gripper(spec: ActionSpec, limits: Limits) -> Rule:
    """Holds a binary gripper for a while after each change; slows another."""
    index, rate = list(spec.gripper), limits.gripper_rate
    assert rate is not None
    wait, most = math.ceil(limits.hz / rate), rate / limits.hz

    def rule(chunks: np.ndarray, known: Known) -> np.ndarray:
        limited, since = chunks.copy(), known.since_change.copy()
        before = np.where(np.isfinite(known.action[:, index]), known.action[:, index], chunks[:, 0][:, index])
        for step in range(chunks.shape[1]):
            wanted = chunks[:, step][:, index]
            if spec.gripper_is_binary:
                now = np.where(since < wait, before, wanted)
            else:
                slowed = before + np.clip(wanted - before, -most, most)
                now = np.where(np.abs(wanted - before) <= most, wanted, slowed)
            since = np.where(now != before, 1, since + 1)
            limited[:, step, index] = before = now
        return limited

    return rule


def _on_displacements(rule: Rule, index: Sequence[int], scale: float) -> Rule:
    """A rule about displacements, for chunks of places: step by step, towards the place that is wanted.

    Where the place is unknown the first one is it.
    """

    def on_places(chunks: np.ndarray, known: Known) -> np.ndarray:
        limited, first = chunks.copy(), chunks[:, 0][:, index]
        place = np.where(np.isfinite(known.position), known.position / scale, first)
        for step in range(chunks.shape[1]):
            wanted, moving = chunks[:, step][:, index], chunks[:, step : step + 1].astype(np.float64)
            moving[:, 0, index] = wanted - place
            kept = rule(moving, replace(known, position=place * scale))[:, 0]
            same = kept[:, index] == moving[:, 0, index]
            limited[:, step, index] = place = np.where(same, wanted, place + kept[:, index])
            known = replace(known, action=kept)
        return limited

    return on_places


def _unknown(spec: ActionSpec, batch: int) -> Known:
    return Known(
        position=np.full((batch, 3), np.nan),
        action=np.full((batch, spec.size), np.nan),
        since_change=np.full((batch, len(spec.gripper)), 10**9),
    )


def _rows(known: Known, rows: np.ndarray) -> Known:
    return Known(known.position[rows], known.action[rows], known.since_change[rows])


def _after(known: Known, executed: np.ndarray, spec: ActionSpec, absolute: bool) -> tuple[Known, np.ndarray]:
    """What is known after actions ``[B, T, A]``, and which rows ``bool [B]`` were told to move.

    Of absolute commands the remembered position part is the displacement, which is what accelerates.
    """
    executed = np.asarray(executed, np.float64)
    position, gripper = list(spec.position), list(spec.gripper)
    place, since, action = known.position, known.since_change, known.action
    moved = np.zeros(len(executed), bool)
    for step in range(executed.shape[1]):
        now = executed[:, step].copy()
        if len(position) == 3:
            target = now[:, position] * spec.position_scale
            if absolute:
                now[:, position] = np.nan_to_num(target - place) / spec.position_scale
                place = target
            else:
                place = place + target
        moved |= np.abs(now[:, [*position, *spec.rotation]]).max(axis=-1, initial=0.0) > 1e-6
        changed = (now[:, gripper] != action[:, gripper]) & np.isfinite(action[:, gripper])
        since = np.where(changed, 1, since + 1)
        action = now
    return Known(place, action, since), moved
