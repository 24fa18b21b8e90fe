"""New placements of a task's objects, within the bounds of those that it comes with.

A suite ships a few dozen initial states of a task, some of which are kept for evaluation. LIBERO places every
object in a rectangle of its own, so the first states tell the rectangles, and new states are drawn from these
without looking at any other. (LIBERO's own reset draws as well, but puts what stands on fixtures off them
from the second time on.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError

FREE_JOINT = 0
"""MuJoCo's number of a joint that leaves a body free: position 3, quaternion 4."""


def drawn_states(
    model: Any, states: np.ndarray, seen: Sequence[int], arm: Sequence[int], seed: int | Sequence[int]
) -> np.ndarray:
    """As many new initial states as there are, ``float64 [n, 1 + nq + nv]``.

    Args:
        model: MuJoCo's.
        states: The task's own initial states, ``[n, 1 + nq + nv]`` (time, positions, velocities).
        seen: Those that may be looked at.
        arm: Indices into the positions of the arm's joints.
        seed: Of the draws.

    Returns:
        States whose free objects stand, each by itself, anywhere between the bounds of its horizontal
        positions in the states ``seen``, with height and rotation of one of these; what stands on another
        object (the way between them is the same in all of these) moves with it. The arm is anywhere between
        its postures in two of them; all else is as in one of them.

    Raises:
        ForethoughtError: ``seen`` holds fewer than two states, or some that there are not.
    """
    chosen = np.asarray(seen, np.int64)
    if chosen.size < 2 or chosen.min() < 0 or chosen.max() >= len(states):
        raise ForethoughtError(
            f"New placements are drawn between those of at least two initial states from 0 to "
            f"{len(states) - 1}; got {chosen.tolist()}."
        )
    draw, known = np.random.default_rng(seed), np.asarray(states, np.float64)[chosen]
    drawn = known[draw.integers(len(known), size=len(states))]
    free = np.flatnonzero(np.asarray(model.jnt_type) == FREE_JOINT)
    for stack in _stacks(known, [1 + int(model.jnt_qposadr[joint]) for joint in free]):  # after the time
        base = stack[0]
        donor = known[draw.integers(len(known), size=len(states))]
        flat = known[:, base : base + 2]
        place = draw.uniform(flat.min(axis=0), flat.max(axis=0), (len(states), 2))
        for first in stack:
            drawn[:, first : first + 7] = donor[:, first : first + 7]
            drawn[:, first : first + 2] += place - donor[:, base : base + 2]
    joints = 1 + np.asarray(arm, np.int64)
    pair = draw.integers(len(known), size=(2, len(states)))
    between = draw.uniform(size=(len(states), 1))
    one, other = known[pair[0]][:, joints], known[pair[1]][:, joints]
    drawn[:, joints] = one + between * (other - one)
    return drawn


def _stacks(known: np.ndarray, objects: Sequence[int]) -> list[list[int]]:
    """Objects, by where their positions begin in a state, that stand on one another in all states."""
    stacks: list[list[int]] = []
    for first in objects:
        for stack in stacks:
            way = known[:, first : first + 2] - known[:, stack[0] : stack[0] + 2]
            # What stands still is no stack: of two that never move the way is the same as well.
            if np.ptp(way, axis=0).max() < 1e-6 and np.ptp(known[:, first : first + 2], axis=0).max() > 1e-6:
                stack.append(first)
                break
        else:
            stacks.append([first])
    return stacks
