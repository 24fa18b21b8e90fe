"""Small parts with a known right answer: a point that moves, a planner that prefers one direction."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forethought
from forethought.interfaces import (
    ActionSamples,
    ActionSpec,
    Decision,
    Observation,
    Prediction,
    Score,
)
from forethought.wrappers.models import Models

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for the fakes beside these tests

HORIZON, SIZE = 4, 7


@pytest.fixture
def spec() -> ActionSpec:
    return ActionSpec(np.full(SIZE, -1.0), np.ones(SIZE), (0, 1, 2), (3, 4, 5), (6,))


@pytest.fixture
def observe() -> Callable[..., Observation]:
    """Makes observations of some rows; ``broken`` rows hold NaN."""

    def make(batch: int = 1, broken: Sequence[int] = ()) -> Observation:
        proprioception = np.zeros((batch, 8), np.float32)
        proprioception[list(broken), 2] = np.nan
        image = np.zeros((batch, 6, 6, 3), np.uint8)
        return Observation({"agentview_rgb": image}, proprioception, ("push the block",) * batch)

    return make


class SteadyPolicy:
    """Proposes 0.25 everywhere, the gripper closed, and remembers what it was asked."""

    horizon = HORIZON

    def __init__(self, spec: ActionSpec) -> None:
        self.action_spec = spec
        self.asked: list[int] = []
        self.resets = 0

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        self.asked.append(n)
        chunks = np.full((len(seeds), n, HORIZON, SIZE), 0.25, np.float32)
        chunks[..., 6] = 1.0
        return ActionSamples(chunks)

    def act(self, observation: Observation) -> np.ndarray:
        return self.propose(observation, 1, np.zeros(observation.batch, np.int64)).chunks[:, 0]

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def policy(spec: ActionSpec) -> SteadyPolicy:
    return SteadyPolicy(spec)


class RisingPlanner:
    """Executes a chunk whose first number rises 0.1, 0.2, … and whose value is 0.75; counts its calls."""

    def __init__(
        self, change: Callable[[Decision], Any] = lambda decision: decision, override: bool = True
    ) -> None:
        self.change = change
        self.override = override
        self.calls: list[np.ndarray] = []
        self.resets = 0

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        self.calls.append(np.array(seeds))
        batch = observation.batch
        chunk = samples.chunks[:, 0].copy()
        if self.override:
            chunk[..., 0] = 0.1 * np.arange(1, HORIZON + 1)
        return self.change(
            Decision(
                chunk=chunk,
                slot=np.full(batch, int(self.override), np.int32),
                value=np.full(batch, 0.75, np.float32),
                policy_value=np.full(batch, 0.5, np.float32),
                overridden=np.full(batch, self.override),
                fallback=np.zeros(batch, bool),
                reason=("better",) * batch,
                simulations=np.full(batch, 8, np.int32),
                milliseconds={"encode": 1.0, "search": 2.0},
            )
        )

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def planner() -> Callable[..., RisingPlanner]:
    return RisingPlanner


class PointModel:
    """The latent is the sum of the first action numbers so far, ``[M, 1]``."""

    def encode(self, observation: Observation) -> np.ndarray:
        return np.zeros((observation.batch, 1), np.float32)

    def step(self, latent: Any, chunks: np.ndarray) -> Prediction:
        moved = latent + chunks[:, :, 0].sum(axis=1, keepdims=True)
        zeros = np.zeros(len(moved), np.float32)
        return Prediction(moved.astype(np.float32), zeros, zeros)


class FurtherIsBetter:
    """The value grows with the point's position."""

    def score(self, latent: Any, instruction: Sequence[str]) -> Score:
        value = 1.0 / (1.0 + np.exp(-np.asarray(latent, np.float32)[:, 0]))
        return Score(value, np.zeros_like(value))


@pytest.fixture
def point_models(spec: ActionSpec) -> Models:
    return Models(
        PointModel(), FurtherIsBetter(), horizon=HORIZON, cameras=("agentview_rgb",), action_spec=spec
    )


@pytest.fixture
def wrap(spec, planner):
    """wrap() around a planner that overrides with a rising chunk."""

    def make(policy, *, override=True, change=lambda decision: decision, **options):
        plans = planner(change, override=override)
        options = {"action_spec": spec, "horizon": 4, **options}
        return forethought.wrap(policy, planner=plans, **options)

    return make
