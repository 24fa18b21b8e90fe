"""Problems in which a point must reach a goal and the value is honest; what differs is what it knows.

* ``Doorway``: a wall with a doorway stands in the way. The value is the exact discounted success of a policy
  that heads straight for the goal, which is what a value learned from its rollouts converges to; wherever the
  wall hides the goal it is 0. Only a search that looks as far as the goal comes into sight learns anything.
  The model is exact, or every imagined chunk ends up a little off.
* ``OpenField``: nothing stands in the way, the value is exact for the best policy, and the action has many
  dimensions. What lies behind a state is already in its value; what counts is to try many chunks.

Chunks move every coordinate by at most ``STEP``, so that distances are in the maximum norm and the shortest
way has a closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...interfaces import ActionSamples, ActionSpec, Latent, Observation, Prediction, Score

STEP = 0.25
"""Farthest that a chunk moves a coordinate."""

DISCOUNT = 0.9
"""γ of a chunk."""

PLANE = ActionSpec(low=-np.ones(2), high=np.ones(2), position=(0, 1))


class Course(Protocol):
    """A world with a value, its true dynamics, and the value of the best that can be done."""

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> ActionSpec:
        """Meaning and bounds of the action."""
        ...

    @property
    def bandwidths(self) -> tuple[float, ...]:
        """Kernel widths that the proposals need here."""
        ...

    @property
    def limit(self) -> int:
        """Decisions of an episode."""
        ...

    def start(self, rows: int) -> np.ndarray:
        """States of as many instances, ``float64 [B, P]``; instance b is the same however many."""
        ...

    def samples(self, state: np.ndarray, seeds: np.ndarray) -> ActionSamples:
        """The policy's chunks ``[B, N, 1, A]``; sample 0 is its own."""
        ...

    def after(self, state: np.ndarray, chunks: np.ndarray) -> np.ndarray:
        """Where chunks ``[B, 1, A]`` really lead."""
        ...

    def reached(self, state: np.ndarray) -> np.ndarray:
        """Whether the goal is reached, ``bool [B]``."""
        ...

    def optimum(self, state: np.ndarray) -> np.ndarray:
        """Discounted success of the best there is, ``float64 [B]``, with parts of chunks counted as parts."""
        ...

    def encode(self, observation: Observation) -> Latent: ...

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction: ...

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score: ...


@dataclass
class Doorway:
    """A wall on x = 0 with a doorway. State: place 2, goal 2, middle of the doorway 1.

    Attributes:
        error: Standard deviation of where an imagined chunk ends, units of ``STEP``.
    """

    error: float = 0.0
    bandwidths: tuple[float, ...] = (0.3, 0.6, 1.0)
    limit: int = 12
    spec = PLANE
    HALF_WIDTH = 0.25
    RADIUS = 0.1

    @property
    def name(self) -> str:
        return "doorway, errors" if self.error else "doorway"

    def start(self, rows: int) -> np.ndarray:
        draws = [np.random.default_rng([11, row]) for row in range(rows)]
        state = []
        for draw in draws:
            side = draw.choice([-1.0, 1.0])
            door = side * draw.uniform(0.35, 0.85)
            place = -draw.uniform(0.2, 0.6), draw.uniform(-0.1, 0.1)
            goal = draw.uniform(0.4, 0.8), draw.uniform(-0.1, 0.1)
            state.append([*place, *goal, door])
        return np.array(state)

    def samples(self, state: np.ndarray, seeds: np.ndarray) -> ActionSamples:
        toward = straight(state[:, :2], state[:, 2:4])
        return noisy(self.spec, toward, seeds, 0.2)

    def after(self, state: np.ndarray, chunks: np.ndarray) -> np.ndarray:
        after = state.copy()
        here, there = state[:, :2], state[:, :2] + STEP * chunks[:, 0].astype(np.float64)
        share = blocked_at(here, there, state[:, 4], self.HALF_WIDTH)
        after[:, :2] = here + share[:, None] * (there - here)
        return after

    def reached(self, state: np.ndarray) -> np.ndarray:
        return np.abs(state[:, :2] - state[:, 2:4]).max(axis=1) <= self.RADIUS

    def optimum(self, state: np.ndarray) -> np.ndarray:
        return DISCOUNT ** (through_door(state, self.HALF_WIDTH) / STEP)

    def encode(self, observation: Observation) -> Latent:
        return observation.proprioception

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        state = np.asarray(latent)
        after = self.after(state, chunks)
        off = np.zeros(len(after))
        if self.error:
            stray = self.error * STEP * scattered(np.concatenate([state, chunks[:, 0]], axis=1), 2)
            after = self.after(after, (stray / STEP)[:, None].astype(np.float32))
            off += self.error * STEP
        return Prediction(after, off, self.reached(after).astype(np.float64))

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        state = np.asarray(latent)
        here, goal = state[:, :2], state[:, 2:4]
        seen = blocked_at(here, goal, state[:, 4], self.HALF_WIDTH) >= 1.0
        value = np.where(seen, DISCOUNT ** (np.abs(goal - here).max(axis=1) / STEP), 0.0)
        return Score(value, np.zeros(len(value)))


@dataclass
class OpenField:
    """Nothing between the place and the goal, in ``SIZE`` dimensions. State: place, goal."""

    name: str = "open field"
    bandwidths: tuple[float, ...] = (0.3, 0.6, 1.0)
    limit: int = 5
    SIZE = 8
    RADIUS = 0.15

    def __post_init__(self) -> None:
        self.spec = ActionSpec(low=-np.ones(self.SIZE), high=np.ones(self.SIZE))

    def start(self, rows: int) -> np.ndarray:
        draws = [np.random.default_rng([13, row]) for row in range(rows)]
        goals = [draw.uniform(-1.0, 1.0, self.SIZE) for draw in draws]
        return np.array([[*np.zeros(self.SIZE), *goal] for goal in goals])

    def samples(self, state: np.ndarray, seeds: np.ndarray) -> ActionSamples:
        toward = 0.5 * straight(state[:, : self.SIZE], state[:, self.SIZE :])
        return noisy(self.spec, toward, seeds, 0.4)

    def after(self, state: np.ndarray, chunks: np.ndarray) -> np.ndarray:
        after = state.copy()
        after[:, : self.SIZE] += STEP * chunks[:, 0].astype(np.float64)
        return after

    def reached(self, state: np.ndarray) -> np.ndarray:
        return self._gap(state) <= self.RADIUS

    def optimum(self, state: np.ndarray) -> np.ndarray:
        return DISCOUNT ** (self._gap(state) / STEP)

    def _gap(self, state: np.ndarray) -> np.ndarray:
        return np.abs(state[:, : self.SIZE] - state[:, self.SIZE :]).max(axis=1)

    def encode(self, observation: Observation) -> Latent:
        return observation.proprioception

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        after = self.after(np.asarray(latent), chunks)
        return Prediction(after, np.zeros(len(after)), self.reached(after).astype(np.float64))

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        value = self.optimum(np.asarray(latent))
        return Score(value, np.zeros(len(value)))


def straight(place: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The chunk ``[B, A]`` that heads straight for the goal, no farther than it."""
    way = (goal - place) / STEP
    return way / np.maximum(np.abs(way).max(axis=1, keepdims=True), 1.0)


def noisy(
    spec: ActionSpec, chunk: np.ndarray, seeds: np.ndarray, deviation: float, n: int = 8
) -> ActionSamples:
    """A policy's samples around its own chunk ``[B, A]``."""
    noise = np.stack([np.random.default_rng([17, seed]).normal(size=(n, spec.size)) for seed in seeds])
    noise[:, 0] = 0.0
    return ActionSamples(spec.clip((chunk[:, None] + deviation * noise)[:, :, None].astype(np.float32)))


def blocked_at(here: np.ndarray, there: np.ndarray, door: np.ndarray, half_width: float) -> np.ndarray:
    """Share of the way between places ``[B, 2]`` that the wall leaves, ``float64 [B]``; 1: all."""
    across = there[:, 0] - here[:, 0]
    crosses = (here[:, 0] < 0.0) != (there[:, 0] < 0.0)
    share = np.where(crosses, -here[:, 0] / np.where(crosses, across, 1.0), 1.0)
    met = here[:, 1] + share * (there[:, 1] - here[:, 1])
    outside = crosses & (np.abs(met - door) > half_width)
    # Just short of the wall, on the side that it came from.
    return np.where(outside, np.maximum(share - 1e-6, 0.0), 1.0)


def through_door(state: np.ndarray, half_width: float) -> np.ndarray:
    """Length of the shortest way to the goal in the maximum norm, ``float64 [B]``. Over the place in the
    doorway it is convex and piecewise linear, so the shortest is at a kink or at a jamb."""
    here, goal, door = state[:, :2], state[:, 2:4], state[:, 4]
    direct = np.abs(goal - here).max(axis=1)
    low, high = door - half_width, door + half_width
    kinks = [low, high]
    for point in (here, goal):
        kinks += [point[:, 1] + sign * np.abs(point[:, 0]) for sign in (-1.0, 0.0, 1.0)]
    place = np.clip(np.stack(kinks, axis=1), low[:, None], high[:, None])
    length = np.zeros(place.shape)
    for point in (here, goal):
        length += np.maximum(np.abs(point[:, :1]), np.abs(point[:, 1:] - place))
    behind = (here[:, 0] < 0.0) == (goal[:, 0] < 0.0)
    return np.where(behind, direct, length.min(axis=1))


def scattered(key: np.ndarray, n: int) -> np.ndarray:
    """Standard normal numbers ``[M, n]`` that depend on ``key [M, P]`` alone."""
    phase = key @ (12.9898 + 78.233 * np.arange(key.shape[1]))
    uniform = [np.mod(np.abs(np.sin(phase + 1.7 * i)) * 43758.5453, 1.0) for i in range(2 * n)]
    radius = np.sqrt(-2.0 * np.log(np.maximum(uniform[:n], 1e-12)))
    return (radius * np.cos(2.0 * np.pi * np.array(uniform[n:]))).T


COURSES: tuple[Course, ...] = (Doorway(), Doorway(error=0.2), OpenField())
"""The problems, in the order of the table."""
