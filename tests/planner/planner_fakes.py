"""Small exact problems for the planner: finite action sets, worlds whose future is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from forethought.interfaces import (
    ActionSamples,
    ActionSpec,
    Latent,
    Observation,
    Planner,
    Prediction,
    Score,
)
from forethought.planner import (
    PRESETS,
    Budget,
    Context,
    DecisionRule,
    MaximumBackup,
    Proposed,
    Scoring,
    TreeSearch,
)

ARM = ActionSpec(
    low=-np.ones(7),
    high=np.ones(7),
    position=(0, 1, 2),
    rotation=(3, 4, 5),
    gripper=(6,),
    position_scale=0.05,
    rotation_scale=0.5,
)
LINE = ActionSpec(low=np.array([-1.0]), high=np.array([1.0]))


def observe(start: Sequence[float] | np.ndarray) -> Observation:
    """An observation whose proprioception is the state, ``[B, P]`` or ``[B]``."""
    state = np.asarray(start, np.float32)
    state = state[:, None] if state.ndim == 1 else state
    return Observation({}, state, tuple(f"task {row}" for row in range(len(state))))


def policy_samples(spec: ActionSpec, batch: int, n: int, horizon: int, seed: int = 0) -> ActionSamples:
    """Random chunks inside the bounds; row b does not depend on ``batch``."""
    rows = [
        np.random.default_rng([seed, row]).uniform(-0.8, 0.8, (n, horizon, spec.size)) for row in range(batch)
    ]
    return ActionSamples(spec.clip(np.stack(rows).astype(np.float32)))


def context(samples: np.ndarray, seeds=None, nodes=None) -> Context:
    """Nodes with these samples, in states from 0 to 1."""
    rows = len(samples)
    seeds = np.arange(rows) if seeds is None else np.asarray(seeds)
    return Context(
        samples=samples,
        latent=np.linspace(0.0, 1.0, rows)[:, None],
        instruction=("",) * rows,
        seeds=seeds,
        nodes=np.zeros(rows, np.int64) if nodes is None else np.asarray(nodes),
    )


@dataclass
class FunctionWorld:
    """``next = transition(state [M, P], chunks [M, H, A])``, float64; counts what it is asked."""

    transition: Callable[[np.ndarray, np.ndarray], np.ndarray]
    done: Callable[[np.ndarray], np.ndarray] = lambda state: np.zeros(len(state))
    disagreement: Callable[[np.ndarray], np.ndarray] = lambda state: np.zeros(len(state))

    def __post_init__(self) -> None:
        self.calls: list[int] = []
        self.asked: list[tuple[bytes, bytes]] = []

    def encode(self, observation: Observation) -> Latent:
        return observation.proprioception.astype(np.float64)

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        latent = np.asarray(latent)
        assert chunks.dtype == np.float32
        assert chunks.ndim == 3
        assert len(chunks) == len(latent)
        self.calls.append(len(chunks))
        self.asked += [(latent[i].tobytes(), chunks[i].tobytes()) for i in range(len(chunks))]
        after = self.transition(latent, chunks)
        return Prediction(after, self.disagreement(after), self.done(after))


@dataclass
class FunctionReward:
    """``value(state [M, P])`` with ``spread``; remembers the instructions it was given."""

    value: Callable[[np.ndarray], np.ndarray]
    spread: Callable[[np.ndarray], np.ndarray] = lambda state: np.zeros(len(state))

    def __post_init__(self) -> None:
        self.instructions: list[str] = []

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        latent = np.asarray(latent)
        assert len(instruction) == len(latent)
        self.instructions += list(instruction)
        return Score(self.value(latent), self.spread(latent))


@dataclass
class EveryAction:
    """Offers every chunk of a finite set, always in the same order, equally likely."""

    chunks: np.ndarray
    prior: np.ndarray | None = None
    source_names: tuple[str, ...] = ("policy", "every")

    def propose(self, context: Context, count: int, *, keep_policy: bool) -> Proposed:
        rows = len(context.seeds)
        chunks = np.repeat(self.chunks[None, :count], rows, axis=0).astype(np.float32)
        source = np.ones(chunks.shape[:2], np.int8)
        if keep_policy:
            source[:, 0] = 0
        prior = np.ones(chunks.shape[1]) if self.prior is None else self.prior[: chunks.shape[1]]
        prior = np.repeat((prior / prior.sum())[None], rows, axis=0)
        return Proposed(chunks, source, prior, np.log(prior))


def action_set(values: Sequence[float]) -> np.ndarray:
    """Chunks of one step of one number, ``[n, 1, 1]``."""
    return np.asarray(values, np.float32)[:, None, None]


class ArmWorld:
    """The mean of a chunk moves the state ``[M, 7]``; elementwise, so rows cannot touch each other."""

    def encode(self, observation: Observation) -> Latent:
        return observation.proprioception.astype(np.float64)

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        zero = np.zeros(len(chunks))
        return Prediction(np.asarray(latent) + chunks.astype(np.float64).mean(axis=1), zero, zero)


class NearTarget:
    """Value 1 at the target, falling off with distance."""

    def __init__(self, target: float = 0.4) -> None:
        self.target = target

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        distance = ((np.asarray(latent)[:, :3] - self.target) ** 2).sum(axis=1)
        return Score(np.exp(-distance), np.zeros(len(distance)))


class FixedMemory:
    """Chunks that depend on the state alone."""

    def __init__(self, horizon: int = 8, size: int = 7) -> None:
        self.asked: list[int] = []
        self.chunks = ARM.clip(
            np.random.default_rng(5).uniform(-1, 1, (40, horizon, size)).astype(np.float32)
        )

    def nearest(self, latent: Latent, instruction: Sequence[str], k: int) -> np.ndarray:
        state = np.asarray(latent)
        self.asked.append(len(state))
        start = (np.abs(state[:, 0]) * 7).astype(int)
        return self.chunks[(start[:, None] + np.arange(k)) % len(self.chunks)]

    def all_chunks(self) -> np.ndarray:
        return self.chunks


PLAIN = Scoring(pessimism=0.0, discount=1.0)
FREE = DecisionRule(margin=0.0, visit_fraction=0.0)


def line_search(world, reward, actions, **options):
    settings_ = {
        "budget": Budget(simulations=10_000),
        "children": len(actions),
        "inner_children": len(actions),
        "scoring": PLAIN,
        "decision": FREE,
        "backup": MaximumBackup(),
    }
    return TreeSearch(world, reward, EveryAction(action_set(actions)), LINE, **(settings_ | options))


def line_samples(batch: int, value: float = 0.0) -> ActionSamples:
    return ActionSamples(np.full((batch, 1, 1, 1), value, np.float32))


def add(state, chunks):
    return state + chunks[:, 0].astype(np.float64)


def arm_planner(name: str, **options) -> Planner:
    return PRESETS[name](ArmWorld(), NearTarget(), action_spec=ARM, memory=FixedMemory(), **options)
