"""New placements of a task's objects, within the bounds of those that it comes with.

A suite ships a few dozen initial states of a task, some of which are kept for evaluation: a model sees too
few places of each object to tell a centimetre from another. LIBERO places every object in a rectangle of its
own, so the first states tell the rectangles, and new states are drawn from these without looking at any
other. (LIBERO's own reset draws as well, but puts what stands on fixtures off them from the second time on.)
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
        positions in the states ``seen``, with height and rotation of one of these; the arm is anywhere
        between its postures in two of them; all else is as in one of them.

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
    for joint in np.flatnonzero(np.asarray(model.jnt_type) == FREE_JOINT):
        first = 1 + int(model.jnt_qposadr[joint])  # after the time
        drawn[:, first : first + 7] = known[draw.integers(len(known), size=len(states)), first : first + 7]
        flat = known[:, first : first + 2]
        drawn[:, first : first + 2] = draw.uniform(flat.min(axis=0), flat.max(axis=0), (len(states), 2))
    joints = 1 + np.asarray(arm, np.int64)
    pair = draw.integers(len(known), size=(2, len(states)))
    between = draw.uniform(size=(len(states), 1))
    one, other = known[pair[0]][:, joints], known[pair[1]][:, joints]
    drawn[:, joints] = one + between * (other - one)
    return drawn
