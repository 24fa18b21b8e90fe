"""Runs in an environment of its own: `make test-lerobot`. Elsewhere these tests are skipped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.interfaces import ActionSamples, ActionSpec, Decision, Observation

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

HORIZON = 4
FAR = 3.0


class Plan:
    """Executes a chunk that rises by 0.01 a step, in some rows; remembers what it was shown."""

    n = 5

    def __init__(self, rows: Sequence[int] | None = (), start: float = 0.1) -> None:
        self.rows, self.start = rows, start
        self.seen: list[Observation] = []
        self.samples: list[np.ndarray] = []
        self.seeds: list[np.ndarray] = []

    def chunk(self, horizon: int, size: int) -> np.ndarray:
        steps = self.start + 0.01 * np.arange(horizon, dtype=np.float32)[:, None]
        return np.repeat(steps, size, axis=1)

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        self.seen.append(observation)
        self.samples.append(samples.chunks.copy())
        self.seeds.append(seeds)
        batch = observation.batch
        overridden = np.zeros(batch, bool)
        overridden[slice(None) if self.rows is None else list(self.rows)] = True
        chunk = samples.chunks[:, 0].copy()
        chunk[overridden] = self.chunk(*chunk.shape[1:])
        return Decision(
            chunk=chunk,
            slot=overridden.astype(np.int32),
            value=np.full(batch, 0.75, np.float32),
            policy_value=np.full(batch, 0.5, np.float32),
            overridden=overridden,
            fallback=np.zeros(batch, bool),
            reason=("better",) * batch,
            simulations=np.full(batch, 8, np.int32),
        )


@pytest.fixture
def plan() -> Callable[..., Plan]:
    return Plan


@pytest.fixture
def wide() -> Callable[[int], ActionSpec]:
    """Bounds that no policy leaves."""
    return lambda size: ActionSpec(np.full(size, -FAR), np.full(size, FAR))


@pytest.fixture
def observations() -> Callable[..., list[dict[str, Any]]]:
    """What an environment shows, step by step, as LeRobot hands it to a preprocessor."""
    import torch

    def make(steps: int, batch: int, state: int, cameras: Sequence[str], pixels: int = 32) -> list[dict]:
        draw = np.random.default_rng(7)
        shown = []
        for _ in range(steps):
            pictures = {name: draw.integers(0, 256, (batch, 3, pixels, pixels)) for name in cameras}
            shown.append(
                {
                    "observation.state": torch.from_numpy(
                        draw.uniform(-0.4, 0.4, (batch, state)).astype("f4")
                    ),
                    **{
                        f"observation.{name}": torch.from_numpy(picture.astype("f4") / 255)
                        for name, picture in pictures.items()
                    },
                    "task": ["push the block"] * batch,
                }
            )
        return shown

    return make
