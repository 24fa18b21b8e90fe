"""What breaks in a controller's parts, and what its policy does otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np

from forethought.interfaces import ActionSamples, Decision, Observation
from forethought.wrappers.guard import GuardReport

SEEDS = np.array([1], np.int64)


class Raising:
    """Every method raises."""

    def plan(self, *_: Any) -> Decision:
        raise RuntimeError("out of memory")

    def propose(self, *_: Any) -> ActionSamples:
        raise RuntimeError("out of memory")

    def consider(self, *_: Any) -> Observation:
        raise RuntimeError("out of memory")

    def check(self, *_: Any) -> GuardReport:
        raise RuntimeError("out of memory")


def own_chunk(batch: int = 1) -> np.ndarray:
    chunk = np.full((batch, 4, 7), 0.25, np.float32)
    chunk[..., 6] = 1.0
    return chunk
