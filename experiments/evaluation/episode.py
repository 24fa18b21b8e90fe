"""One episode: observe, decide, execute the chunk, until success or the step limit."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from ...interfaces import Decision, ForethoughtError, Observation
from .seeds import decision_seed
from .store import EpisodeResult


class StepResultLike(Protocol):
    """What executing a chunk led to."""

    @property
    def success(self) -> bool: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def steps(self) -> int: ...


class EnvironmentLike(Protocol):
    """What an episode needs of an environment (``benchmarks`` defines it)."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Mapping[str, Any]]: ...
    def observe(self) -> Observation: ...
    def execute(self, chunk: np.ndarray) -> StepResultLike: ...


class ControllerLike(Protocol):
    """What an episode needs of a controller (``wrappers.controller`` defines it)."""

    counters: Any

    def reset(self) -> None: ...
    def decide(self, observation: Observation, seeds: np.ndarray) -> Decision: ...


def run_episode(
    environment: EnvironmentLike,
    controller: ControllerLike,
    *,
    init_state: int,
    seed: int,
    watch: Callable[[], None] | None = None,
) -> EpisodeResult:
    """Runs an episode from a fixed initial state.

    Args:
        environment: Reset here, with the benchmark's own seed for what an initial state leaves open; any
            state left from an earlier episode is gone afterwards.
        controller: Reset here; its counters are read as differences.
        init_state: Index of the initial state.
        seed: Seed of the episode; decisions draw from it and their index.
        watch: Called at the start and after every chunk, for whoever films the episode.
    """
    start = time.perf_counter()
    controller.reset()
    before = dict(controller.counters)
    observation, _ = environment.reset(options={"init_state": init_state})
    latency: dict[str, list[float]] = defaultdict(list)
    simulator, deciding = time.perf_counter() - start, 0.0
    steps = decisions = overridden = fallbacks = 0
    while True:
        if watch is not None:
            watch()
        observing = time.perf_counter()
        if decisions:
            observation = environment.observe()
        decided = time.perf_counter()
        decision = controller.decide(observation, seeds=np.array([decision_seed(seed, decisions)], np.int64))
        executing = time.perf_counter()
        outcome = environment.execute(decision.chunk[0])
        simulator += decided - observing + time.perf_counter() - executing
        deciding += executing - decided
        decisions += 1
        steps += outcome.steps
        overridden += int(decision.overridden[0])
        fallbacks += int(decision.fallback[0])
        for component, milliseconds in decision.milliseconds.items():
            latency[component].append(float(milliseconds))
        if outcome.success or outcome.truncated:
            break
        if outcome.steps < 1:
            raise ForethoughtError(
                "The environment executed no step of a chunk, yet the episode has not ended."
            )
    if watch is not None:
        watch()
    problems = {kind: count - before.get(kind, 0) for kind, count in controller.counters.items()}
    return EpisodeResult(
        success=bool(outcome.success),
        steps=int(steps),
        decisions=decisions,
        overridden=overridden,
        fallbacks=fallbacks,
        problems={kind: int(count) for kind, count in problems.items() if count},
        latency_ms=dict(latency),
        seconds={"total": time.perf_counter() - start, "simulator": simulator, "decide": deciding},
    )
