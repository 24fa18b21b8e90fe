"""Whether milliseconds are kept, and what the density of a node's candidates costs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...interfaces import Latent, Prediction
from ...planner import Budget, ChunkSpace, PolicySamples, TreeSearch
from ...planner.budget import Clock
from ...planner.density import log_density
from ...planner.lanes import LANES, describe
from ...planner.one_by_one import Kernels
from .problem import ARM, CLOCKS, NumpyValue, NumpyWorld, Sizes, question


@dataclass(frozen=True)
class ClockedBudget(Budget):
    """A budget whose milliseconds run on a clock of our choice."""

    clock: str = "wall"

    def start(self, now: Callable[[], float] = time.perf_counter) -> Clock:
        return super().start(CLOCKS[self.clock])


class SlowWorld(NumpyWorld):
    """Takes at least so many milliseconds a call, busy all the while."""

    def __init__(self, sizes: Sizes, milliseconds: float, clock: str) -> None:
        super().__init__(sizes)
        self._seconds, self._now = 1e-3 * milliseconds, CLOCKS[clock]

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        end = self._now() + self._seconds
        prediction = super().step(latent, chunks)
        while self._now() < end:
            pass
        return prediction


def milliseconds_kept(
    sizes: Sizes, *, decisions: int, budget: float, wave_takes: float, clock: str
) -> dict[str, float]:
    """Quantiles of the time of a decision, in milliseconds, with a model that takes ``wave_takes`` a wave."""
    now = CLOCKS[clock]
    planner = TreeSearch(
        SlowWorld(sizes, wave_takes, clock),
        NumpyValue(sizes),
        PolicySamples(ARM),
        ARM,
        budget=ClockedBudget(milliseconds=budget, clock=clock),
        children=sizes.actions,
        inner_children=sizes.actions,
        depth=4,
    )
    asked = question(sizes, 1)
    took, waves = [], []
    for number in range(-1, decisions):
        start = now()
        decision = planner.plan(asked.observation, asked.samples, asked.seeds + number)
        if number >= 0:
            took.append(1e3 * (now() - start))
            waves.append(1 + (int(decision.simulations[0]) - sizes.actions) / planner.wave)
    return {
        "budget": budget,
        "wave_takes": wave_takes,
        "decisions": decisions,
        "p50": float(np.quantile(took, 0.5)),
        "p99": float(np.quantile(took, 0.99)),
        "longest": max(took),
        "waves": statistics.mean(waves),
    }


def density_microseconds(
    sizes: Sizes, *, kernels: int = 64, queries: int = 64, repeats: int = 200, clock: str
) -> dict[str, float]:
    """Median microseconds of the log-density of one node's candidates: of the sum over kernels alone, and
    with the whitening of the candidates."""
    space, now = ChunkSpace(ARM, sizes.horizon), CLOCKS[clock]
    draw = np.random.default_rng(0)

    def chunks(n: int) -> np.ndarray:
        return ARM.clip(draw.uniform(-1.0, 1.0, (n, sizes.horizon, ARM.size)).astype(np.float32))

    centres, candidates = chunks(kernels), chunks(queries)
    known, entries = Kernels(space, centres[None]).describe(), np.zeros(queries, np.int64)
    seen = describe(candidates, space.geometry)
    under = known.white, known.words, sizes.horizon, entries, (0.08,), 0.1

    def summed() -> object:
        return log_density(seen[0], LANES, seen[1], *under)

    def whole() -> object:
        white, words = describe(candidates, space.geometry)
        return log_density(white, LANES, words, *under)

    found = {"kernels": float(kernels), "queries": float(queries)}
    for name, ask in (("density", summed), ("with_whitening", whole)):
        times = []
        for _ in range(repeats + 5):
            start = now()
            ask()
            times.append(1e6 * (now() - start))
        found[name] = statistics.median(times[5:])
    return found


def quiet(clock: str) -> str:
    """What may disturb the measurement on this machine, in a sentence; empty when nothing seems to."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if clock == "wall" and load > 0.5 * cores:
        return (
            f"{load:.1f} processes compete for {cores} cores: times are those of a busy machine. "
            "clock=cpu counts only what this process computes."
        )
    return ""
