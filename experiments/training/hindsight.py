"""Where the gripper will close and where it will let go: what the robot itself tells an encoder afterwards.

An episode that succeeded says, at its end, where the object was all along: where the gripper closed on it.
And it says where the goal is: where the gripper was when the task was done. Both are read from
proprioception, commands and success alone, which every robot has; no simulator state is involved. Whether
something is held the fingers tell in every episode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dataset import EpisodeSet

HINDSIGHT_FEATURES = 7
"""Numbers that are known in hindsight: way to the next grasp (3, m) and to the end of the task (3, m), and
whether something is held, which the fingers tell in every episode."""

CLOSED_STEPS = 4
"""Control steps that fingers get to close before what is between them counts as held."""

STILL = 1.2e-3
"""Fingers that hold something move less than this, metres a step."""

LEAST_HOLD = 8
"""Control steps that a hold must last; a finger that brushes an object is none."""

GAP = 4
"""A hold interrupted for no more than this many control steps is one hold."""


@dataclass(frozen=True, eq=False)
class Hindsight:
    """What is known of S states afterwards.

    Attributes:
        way: Position to come minus position now, metres, ``float32 [S, 6]``: of the next grasp (zero while
            something is held) and of the end of the task.
        known: Whether each number is, ``bool [S, 6]``. Nothing is known in episodes that failed.
        held: Whether something is between the fingers, ``bool [S]``.
        sure: Whether that is known, ``bool [S]``: not while they close.
    """

    way: np.ndarray
    known: np.ndarray
    held: np.ndarray
    sure: np.ndarray

    def told(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All that is known of states ``int64 [n]``: ways (m) and whether something is held, ``float32 [n,
        7]``, and which of it is, ``bool [n, 7]``."""
        numbers = np.concatenate([self.way[states], self.held[states, None]], axis=1)
        return numbers.astype(np.float32), np.concatenate(
            [self.known[states], self.sure[states, None]], axis=1
        )


def hindsight(data: EpisodeSet, held_width: float, gripper: int) -> Hindsight:
    """What the episodes that succeeded tell about their states.

    Args:
        data: Episodes.
        held_width: Fingers that stay this far apart after a command to close hold something, metres.
        gripper: Index of the gripper's command in an action; above zero it closes.
    """
    held, opened = _held(data, held_width, gripper)
    position = data.proprioception[:, :3]
    way = np.zeros((len(position), 6), np.float32)
    known = np.zeros(way.shape, bool)
    first = np.flatnonzero(data.step == 0)
    for episode in np.flatnonzero(data.success):
        start, last = int(first[episode]), int(first[episode] + data.length[episode])
        way[start : last + 1, 3:] = position[last] - position[start : last + 1]
        known[start : last + 1, 3:] = True
        before = start
        for begin, end in _holds(start + np.flatnonzero(held[start : last + 1])):
            grasp = max(int(opened[begin]), start)
            way[before:grasp, :3] = position[grasp] - position[before:grasp]
            known[before : end + 1, :3] = True
            before = end + 1
    closing = np.arange(len(position)) - opened
    return Hindsight(way, known, held, (closing == 0) | (closing >= CLOSED_STEPS))


def _held(data: EpisodeSet, held_width: float, gripper: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether something is held in each state, and the last state in which the fingers were told to open (or
    the episode's first), both ``[S]``."""
    width = np.abs(data.proprioception[:, 6] - data.proprioception[:, 7])
    first = data.step == 0
    closing = np.concatenate([[False], data.actions[:-1, gripper] > 0]) & ~first
    index = np.arange(len(width))
    opened = np.maximum.accumulate(np.where(closing, 0, index))
    moved = np.abs(np.diff(width, prepend=width[:1]))
    return (index - opened >= CLOSED_STEPS) & (width > held_width) & (moved < STILL), opened


def _holds(states: np.ndarray) -> list[tuple[int, int]]:
    """First and last state of each hold that lasts, from the states of one episode in which something is
    held."""
    runs = np.split(states, np.flatnonzero(np.diff(states) > GAP + 1) + 1)
    return [(int(run[0]), int(run[-1])) for run in runs if len(run) and run[-1] - run[0] + 1 >= LEAST_HOLD]
