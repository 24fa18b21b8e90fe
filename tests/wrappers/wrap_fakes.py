"""A policy of somebody else, what it is asked, and the plan that stands for its actions."""

from __future__ import annotations

from collections import deque

import numpy as np

PLANNED = [0.1, 0.2, 0.3, 0.4]
"""First numbers of the actions that the planner of the fixture `wrap` decides on."""


def foreign(batch: int | None = None) -> dict:
    """An observation as other projects spell it, with a batch axis or without."""
    lead = () if batch is None else (batch,)
    return {
        "observation/image": np.zeros((*lead, 6, 6, 3), np.uint8),
        "observation/state": np.zeros((*lead, 8), np.float32),
        "prompt": "push the block",
    }


class Actor:
    """A policy of somebody else: returns a chunk, counts in a list, draws from its own generator."""

    kind = "actor"

    def __init__(self) -> None:
        self.seen: deque = deque()
        self.random = np.random.default_rng(0)
        self.noise = 0.0

    def act(self, observation: dict, gain: float = 1.0) -> np.ndarray:
        """Acts."""
        self.seen.append(observation)
        chunk = np.full((4, 7), 0.25) * gain + self.noise * self.random.normal(size=(4, 7))
        chunk[:, 6] = 1.0
        return chunk

    def predict(self, observation: dict) -> dict:
        return {"actions": self.act(observation), "note": "kept"}

    def describe(self) -> str:
        return f"{self.kind} saw {len(self.seen)}"

    def reset(self) -> str:
        self.seen.clear()
        return "reset"
