"""How good decisions are at equal numbers of distinct evaluations, on problems whose optimum is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...interfaces import ActionSamples, ActionSpec, Decision, Latent, Observation, Prediction, Score
from ...planner import (
    Budget,
    DecisionRule,
    KernelProposals,
    MaximumBackup,
    PolicyKernels,
    PolicySamples,
    Proposals,
    Scoring,
    TreeSearch,
)

LINE = ActionSpec(low=np.array([-1.0]), high=np.array([1.0]))
PLANE = ActionSpec(low=-np.ones(2), high=np.ones(2), position=(0, 1))


class Problem(Protocol):
    """A world with a value, and what the best decision would be worth."""

    name: str
    depth: int
    spec: ActionSpec
    proposals: Proposals

    def question(self, rows: int, candidates: int) -> tuple[Observation, ActionSamples]:
        """An observation and the policy's samples for as many instances of the problem as there are rows."""
        ...

    def regret(self, observation: Observation, samples: ActionSamples, decision: Decision) -> np.ndarray:
        """Value lost by each row's decision, ``float64 [B]``, >= 0."""
        ...


@dataclass
class Increments:
    """A chain of ``depth`` choices among a finite set. Each choice adds to the total a number that depends on
    all choices so far; the value of a state is its total, so that only the end tells what a choice is worth.

    State: (hash of the choices so far, total), float64.
    """

    name: str = "increments"
    depth: int = 3
    spec: ActionSpec = LINE

    def __post_init__(self) -> None:
        self.proposals: Proposals = PolicySamples(self.spec)

    def question(self, rows: int, candidates: int) -> tuple[Observation, ActionSamples]:
        state = np.stack([np.arange(rows) + 1.0, np.zeros(rows)], axis=1)
        choices = np.linspace(-1.0, 1.0, candidates, dtype=np.float32)[None, :, None, None]
        return Observation({}, state, ("",) * rows), ActionSamples(np.repeat(choices, rows, axis=0))

    def encode(self, observation: Observation) -> Latent:
        return observation.proprioception

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        state = np.asarray(latent)
        zero = np.zeros(len(state))
        return Prediction(self.after(state, chunks[:, 0, 0].astype(np.float64)), zero, zero)

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        total = np.asarray(latent)[:, 1]
        return Score(total, np.zeros(len(total)))

    @staticmethod
    def after(state: np.ndarray, choice: np.ndarray) -> np.ndarray:
        """The next state. The fraction of a large sine is as good as random here and the same everywhere."""
        key = np.mod(np.abs(np.sin(state[..., 0] * 12.9898 + choice * 78.233)) * 43758.5453, 1.0)
        return np.stack([key, state[..., 1] + key], axis=-1)

    def regret(self, observation: Observation, samples: ActionSamples, decision: Decision) -> np.ndarray:
        choices = samples.chunks[0, :, 0, 0].astype(np.float64)
        state = observation.proprioception
        for _ in range(self.depth):  # all sequences: [B, K], [B, K, K], …
            state = self.after(state[..., None, :], choices)
        ends = state[..., 1].reshape(len(state), choices.size, -1).max(axis=2)
        chosen = np.abs(choices - decision.chunk[:, :1, 0]).argmin(axis=1)
        return ends.max(axis=1) - ends[np.arange(len(ends)), chosen]


@dataclass
class TwoHills:
    """A point in the plane, a near low hill and a far high one that takes ``depth`` chunks to climb.

    Value: the higher of the two cones; the best that remains possible has a closed form, because a chunk
    moves each coordinate by at most ``STEP``.
    """

    name: str = "two hills"
    depth: int = 3
    spec: ActionSpec = PLANE
    STEP = 0.3

    def __post_init__(self) -> None:
        self.proposals: Proposals = KernelProposals(
            self.spec, (PolicyKernels(bandwidths=(0.2, 0.6)),), flip_probability=0.0
        )

    def question(self, rows: int, candidates: int) -> tuple[Observation, ActionSamples]:
        angles, turns, chunks = [], [], []
        for row in range(rows):
            draw = np.random.default_rng([7, row])
            angles.append(draw.uniform(0.0, 2.0 * np.pi))
            turns.append(draw.uniform(1.5, np.pi))
            chunks.append(draw.uniform(-1.0, 1.0, (candidates, 1, 2)))
        angle, turn = np.array(angles), np.array(turns)
        far = 0.8 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        near = 0.25 * np.stack([np.cos(angle + turn), np.sin(angle + turn)], axis=1)
        state = np.concatenate([np.zeros((rows, 2)), near, far], axis=1)
        return (
            Observation({}, state, ("",) * rows),
            ActionSamples(self.spec.clip(np.stack(chunks).astype(np.float32))),
        )

    def encode(self, observation: Observation) -> Latent:
        return observation.proprioception

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        after = np.array(latent)
        after[:, :2] += self.STEP * chunks[:, 0]
        zero = np.zeros(len(after))
        return Prediction(after, zero, zero)

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        value = self.best(np.asarray(latent), 0)
        return Score(value, np.zeros(len(value)))

    def best(self, state: np.ndarray, chunks: int) -> np.ndarray:
        """The highest value within so many chunks of a state, ``float64 [B]``."""
        here, values = state[:, :2], []
        for hill, height, slope in ((state[:, 2:4], 0.6, 1.0), (state[:, 4:6], 1.0, 1.0)):
            gap = np.maximum(np.abs(hill - here) - chunks * self.STEP, 0.0)
            values.append(height - slope * np.linalg.norm(gap, axis=1))
        return np.maximum(*values)

    def regret(self, observation: Observation, samples: ActionSamples, decision: Decision) -> np.ndarray:
        state = observation.proprioception
        after = self.step(state, decision.chunk).latent
        return self.best(state, self.depth) - self.best(np.asarray(after), self.depth - 1)


PROBLEMS: dict[str, type[Increments] | type[TwoHills]] = {"increments": Increments, "two hills": TwoHills}
"""Problems by name."""


def measure(
    simulations: Sequence[int], waves: Sequence[int], *, rows: int, candidates: int
) -> list[dict[str, Any]]:
    """Mean regret for every problem, budget and wave, and its ratio to that of waves of one.

    The rows are the same instances for every wave, so the difference to waves of one is paired: ``error`` is
    the standard error of its mean, as a share of the regret of waves of one.
    """
    found: list[dict[str, Any]] = []
    for name, make in PROBLEMS.items():
        problem = make()
        observation, samples = problem.question(rows, candidates)
        for number in simulations:
            sequential: np.ndarray | None = None
            for wave in sorted({1, *waves}):
                planner = TreeSearch(
                    problem,
                    problem,
                    problem.proposals,
                    problem.spec,
                    budget=Budget(simulations=number),
                    children=candidates,
                    inner_children=candidates,
                    depth=problem.depth,
                    wave=wave,
                    backup=MaximumBackup(),
                    scoring=Scoring(pessimism=0.0, discount=1.0, terminal=2.0),
                    decision=DecisionRule(margin=0.0, visit_fraction=0.0),
                )
                decision = planner.plan(observation, samples, np.arange(rows, dtype=np.int64))
                regret = problem.regret(observation, samples, decision)
                sequential = regret if sequential is None else sequential
                base = max(float(sequential.mean()), 1e-12)
                difference = regret - sequential
                found.append(
                    {
                        "problem": name,
                        "candidates": candidates,
                        "simulations": number,
                        "wave": wave,
                        "evaluated": float(decision.simulations.mean()),
                        "regret": float(regret.mean()),
                        "ratio": float(regret.mean() / base),
                        "error": float(difference.std() / np.sqrt(rows) / base),
                        "rows": rows,
                    }
                )
    return found
