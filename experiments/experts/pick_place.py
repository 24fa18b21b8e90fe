"""A scripted expert: picks the object that the goal names and puts it where the goal wants it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from .grasp import Grasp, choose_grasp
from .scene import Goal, Scene
from .servo import Servo, pointing_down

OPEN, CLOSED = -1.0, 1.0


class Phase(Enum):
    """What the hand is busy with."""

    ABOVE = "above"
    DOWN = "down"
    CLOSE = "close"
    LIFT = "lift"
    CARRY = "carry"
    LOWER = "lower"
    RELEASE = "release"
    RETREAT = "retreat"


@dataclass(frozen=True)
class ExpertOptions:
    """How the expert behaves.

    Attributes:
        early_release: Probability, per episode, that the hand lets go once on the way to the target.
        grasp_offset: Standard deviation of a horizontal error of the first grasp of an episode, metres.
        recover: Whether a lost or misplaced object is grasped again; without it the hand goes on empty, and
            waits after its one attempt.
        clearance: Height of the hand above the grasp before it comes down, metres.
    """

    early_release: float = 0.0
    grasp_offset: float = 0.0
    recover: bool = True
    clearance: float = 0.08


class PickPlaceExpert:
    """Pick and place from privileged state, one action at a time.

    Above, down, close, lift straight up, carry, lower, open, retreat; when the object is not where a held
    object would be, from the start again. Every action is a function of the present state and the phase, so
    the expert corrects what noise does to it.
    """

    def __init__(self, scene: Scene, options: ExpertOptions | None = None) -> None:
        self._scene = scene
        self._options = options or ExpertOptions()
        self._servo = Servo()

    def reset(self, seed: int) -> None:
        """Start an episode; ``seed`` decides the deliberate errors."""
        self._scene.refresh()
        generator = np.random.default_rng(seed)
        options = self._options
        self._drop_at = (
            float(generator.uniform(0.15, 0.65)) if generator.random() < options.early_release else None
        )
        self._error = np.append(generator.normal(0.0, 1.0, 2) * options.grasp_offset, 0.0)
        self._goals = self._scene.goals
        _, rotation = self._scene.hand
        self._home_yaw = float(np.arctan2(rotation[1, 0], rotation[0, 0]))
        self._goal = 0
        self._failed: list[Grasp] = []
        self._held = np.zeros(3)
        self._regrasp()

    @property
    def phase(self) -> Phase:
        """What the hand is busy with."""
        return self._phase

    def act(self) -> np.ndarray:
        """The next action, ``float32 [7]``: position, rotation, gripper, each in [-1, 1]."""
        self._scene.refresh()
        goal = self._goals[self._goal]
        for _ in range(4):
            phase = self._phase
            getattr(self, f"_check_{phase.value}")(goal)
            if self._phase is phase:
                break
        self._steps += 1
        position, speed = self._target(goal)
        move = self._servo.command(self._scene.hand, position, pointing_down(self._grasp.yaw), speed)
        grip = CLOSED if self._phase in (Phase.CLOSE, Phase.LIFT, Phase.CARRY, Phase.LOWER) else OPEN
        return np.append(move, grip).astype(np.float32)

    # Each phase says where the hand should be, and a check says when the phase is over.

    def _target(self, goal: Goal) -> tuple[np.ndarray, float]:
        hand = self._scene.hand[0]
        if self._phase is Phase.ABOVE:
            grip = self._grip_position(goal)
            above = grip + np.array([0.0, 0.0, self._options.clearance])
            if np.linalg.norm(hand[:2] - grip[:2]) > 0.06:
                above[2] = max(above[2], self._travel_height)
            return above, 1.0
        if self._phase is Phase.DOWN:
            return _funnel(hand, self._grip_position(goal)), 0.7
        if self._phase is Phase.LIFT:
            return np.array([self._anchor[0], self._anchor[1], self._carry_height(goal)]), 1.0
        if self._phase is Phase.CARRY:
            place = self._place(goal)
            return np.array([place[0], place[1], self._carry_height(goal)]), 1.0
        if self._phase is Phase.LOWER:
            place = _funnel(hand, self._place(goal))
            return place, 0.7 if hand[2] - place[2] < 0.08 else 1.0
        return self._anchor + np.array([0.0, 0.0, 0.12 if self._phase is Phase.RETREAT else 0.0]), 1.0

    def _grip_position(self, goal: Goal) -> np.ndarray:
        return self._scene.pose(goal.item)[0] + self._grasp.offset + self._error

    def _enter(self, phase: Phase) -> None:
        self._phase, self._steps = phase, 0
        self._anchor = self._scene.hand[0]
        if phase in (Phase.ABOVE, Phase.LIFT, Phase.CARRY):
            self._servo.reset()

    def _regrasp(self) -> None:
        goal = self._goals[self._goal]
        names = [n for n in self._scene.objects if n != goal.item]
        clouds = [self._scene.cloud(name) for name in names]
        item, position = self._scene.cloud(goal.item), self._scene.pose(goal.item)[0]
        around = np.concatenate([*clouds, np.zeros((0, 3))])
        near = around[np.linalg.norm(around[:, :2] - position[:2], axis=1) < 0.2] if len(around) else around
        self._grasp: Grasp = choose_grasp(item, position, near, self._home_yaw, self._failed)
        self._around = around
        obstacle = self._highest_on_the_way(self._scene.hand[0], position)
        self._travel_height = max(float(item[:, 2].max()) + 0.06, obstacle + 0.05)
        target = self._scene.cloud(self._scene.owner(goal.target))
        self._target_top = float(target[:, 2].max()) if len(target) else float(position[2])
        self._enter(Phase.ABOVE)

    def _check_above(self, goal: Goal) -> None:
        hand, rotation = self._scene.hand
        grip = self._grip_position(goal)
        turned = np.abs(rotation[:, 0] @ pointing_down(self._grasp.yaw)[:, 0]) > 0.985
        level = hand[2] - grip[2] < self._options.clearance + 0.03
        if np.linalg.norm(hand[:2] - grip[:2]) < 0.012 and level and turned and self._scene.opening > 0.06:
            self._enter(Phase.DOWN)

    def _check_down(self, goal: Goal) -> None:
        if np.linalg.norm(self._scene.hand[0] - self._grip_position(goal)) < 0.010 or self._steps > 25:
            self._enter(Phase.CLOSE)

    def _check_close(self, goal: Goal) -> None:
        if self._steps >= 8:
            self._held = self._scene.pose(goal.item)[0] - self._scene.hand[0]
            self._error = np.zeros(3)
            self._lift_start = float(self._scene.hand[0][2])
            self._obstacle_top = self._highest_on_the_way(
                self._scene.hand[0], self._scene.pose(goal.target)[0]
            )
            self._enter(Phase.LIFT)

    def _check_lift(self, goal: Goal) -> None:
        if self._lost(goal):
            self._recover()
        elif abs(self._scene.hand[0][2] - self._carry_height(goal)) < 0.02 or self._steps > 40:
            self._carry_start = self._scene.hand[0]
            self._enter(Phase.CARRY)

    def _check_carry(self, goal: Goal) -> None:
        hand, place = self._scene.hand[0], self._place(goal)
        if self._lost(goal):
            self._recover()
            return
        whole = np.linalg.norm(self._carry_start[:2] - place[:2])
        left = float(np.linalg.norm(hand[:2] - place[:2]))
        if self._drop_at is not None and left < (1.0 - self._drop_at) * whole:
            self._drop_at = None
            self._enter(Phase.RELEASE)
        elif left < 0.015:
            self._enter(Phase.LOWER)

    def _check_lower(self, goal: Goal) -> None:
        if self._lost(goal):
            self._recover()
        elif np.linalg.norm(self._scene.hand[0] - self._place(goal)) < 0.012 or self._steps > 60:
            self._enter(Phase.RELEASE)

    def _check_release(self, goal: Goal) -> None:
        if self._steps >= 8:
            self._enter(Phase.RETREAT)

    def _check_retreat(self, goal: Goal) -> None:
        finished = self._goal == len(self._goals) - 1
        if self._steps >= 12 and (self._options.recover or not finished):
            self._goal = 0 if finished else self._goal + 1
            self._regrasp()

    def _lost(self, goal: Goal) -> bool:
        """Whether the object is no longer where a held object would be."""
        hand, item = self._scene.hand[0], self._scene.pose(goal.item)[0]
        return bool(np.linalg.norm(item - hand - self._held) > 0.05) or self._scene.opening < 0.0015

    def _recover(self) -> None:
        if self._options.recover:
            if self._phase is Phase.LIFT:
                self._failed.append(self._grasp)
            self._regrasp()

    def _carry_height(self, goal: Goal) -> float:
        """Hand height at which the bottom of the held object clears the target and what stands on the way."""
        return max(
            max(self._target_top, self._obstacle_top) + 0.03 + self._hang(goal), self._lift_start + 0.06
        )

    def _hang(self, goal: Goal) -> float:
        """How far the held object reaches below the grip site."""
        return float(self._scene.hand[0][2] - self._scene.cloud(goal.item)[:, 2].min())

    def _highest_on_the_way(self, start: np.ndarray, end: np.ndarray) -> float:
        """Top of whatever stands within 10 cm of the straight way, metres;

        minus infinity where nothing does.
        """
        way = (end - start)[:2]
        relative = self._around[:, :2] - start[:2]
        share = np.clip(relative @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
        near = np.linalg.norm(relative - share[:, None] * way, axis=1) < 0.10
        return float(self._around[near, 2].max()) if near.any() else -np.inf

    def _place(self, goal: Goal) -> np.ndarray:
        """Hand position that brings the held object to its place."""
        target = self._scene.pose(goal.target)[0]
        offset = self._scene.pose(goal.item)[0] - self._scene.hand[0]
        if np.linalg.norm(offset - self._held) > 0.05:
            offset = self._held
        if goal.inside:
            height = self._target_top - 0.03 + self._hang(goal) * 0.5
        else:
            height = self._target_top + self._hang(goal) + 0.004
        return np.array([target[0] - offset[0], target[1] - offset[1], height])


def _funnel(hand: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The goal, kept higher as long as the hand is beside it."""
    beside = float(np.linalg.norm(hand[:2] - goal[:2]))
    return goal + np.array([0.0, 0.0, float(np.clip(4.0 * (beside - 0.012), 0.0, 0.08))])


__all__ = ["ExpertOptions", "Phase", "PickPlaceExpert"]
