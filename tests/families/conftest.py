"""Parts that the families' tests share. Those that need transformers are skipped where it is not installed:
`make test-families` runs them in an environment of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forethought
from forethought.interfaces import ActionSamples, ActionSpec, Decision, Observation

sys.path.insert(0, str(Path(__file__).resolve().parent))

HORIZON, SIZE = 8, 7


@pytest.fixture
def spec() -> ActionSpec:
    return ActionSpec(np.full(SIZE, -1.0), np.ones(SIZE), (0, 1, 2), (3, 4, 5), (6,))


class Planner:
    """Keeps the policy's chunk, or takes the sample of some slot, or writes 0.1, 0.2, … ; keeps what it was
    given."""

    n = 6

    def __init__(self, choose: str | int = "policy") -> None:
        self.choose = choose
        self.samples: list[ActionSamples] = []
        self.observations: list[Observation] = []
        self.resets = 0

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        self.samples.append(samples)
        self.observations.append(observation)
        slot = self.choose if isinstance(self.choose, int) else 0
        chunk = samples.chunks[:, slot].copy()
        if self.choose == "rising":
            chunk[..., 0] = 0.1 * np.arange(1, chunk.shape[1] + 1)
        batch = len(chunk)
        return Decision(
            chunk=chunk,
            slot=np.full(batch, slot, np.int32),
            value=np.full(batch, 0.75, np.float32),
            policy_value=np.full(batch, 0.5, np.float32),
            overridden=np.full(batch, self.choose != "policy"),
            fallback=np.zeros(batch, bool),
            reason=("better",) * batch,
            simulations=np.full(batch, 8, np.int32),
        )

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def planner() -> type[Planner]:
    return Planner


@pytest.fixture
def wrap(spec: ActionSpec) -> Callable[..., Any]:
    """wrap() around a ``Planner``, eight actions of seven numbers."""

    def make(policy: Any, choose: str | int = "policy", **options: Any) -> Any:
        options = {"action_spec": spec, "horizon": HORIZON, **options}
        return forethought.wrap(policy, planner=Planner(choose), **options)

    return make


@pytest.fixture
def scene() -> dict[str, Any]:
    """What a benchmark script has at hand."""
    return {
        "full_image": np.zeros((6, 6, 3), np.uint8),
        "wrist_image": np.zeros((6, 6, 3), np.uint8),
        "state": np.zeros(8, np.float32),
    }
