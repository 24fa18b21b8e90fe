"""Where the wall time of an evaluation went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .store import EpisodeResult


@dataclass(frozen=True)
class Pace:
    """The episodes run by one invocation, and shares of (wall time × workers), fractions that add up to 1.

    Attributes:
        episodes: How many.
        workers: Processes.
        seconds: Wall time from the first process to the last episode.
        simulator: Resetting, rendering, physics.
        decisions: Policy, models, search, guard.
        loading: Starting processes, making environments, loading weights.
        waiting: Processes without an episode left while others finish theirs, and the hand-over between
            episodes.
        overhead: The rest of the episodes' own time.
    """

    episodes: int
    workers: int
    seconds: float
    simulator: float
    decisions: float
    loading: float
    waiting: float
    overhead: float


def measure_pace(results: Sequence[EpisodeResult], workers: int, seconds: float) -> Pace:
    """Shares of the wall time in ``results``, which ``workers`` processes brought in ``seconds``."""
    spent = {
        kind: sum(result.seconds.get(kind, 0.0) for result in results)
        for kind in ("total", "simulator", "decide", "loading")
    }
    whole = max(workers * seconds, 1e-9)
    return Pace(
        episodes=len(results),
        workers=workers,
        seconds=round(seconds, 2),
        simulator=round(spent["simulator"] / whole, 4),
        decisions=round(spent["decide"] / whole, 4),
        loading=round(spent["loading"] / whole, 4),
        waiting=round((whole - spent["total"] - spent["loading"]) / whole, 4),
        overhead=round((spent["total"] - spent["simulator"] - spent["decide"]) / whole, 4),
    )
