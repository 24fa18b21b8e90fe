"""Success against the number of imagined candidates, from results of ``forethought eval``.

A search that falls as it looks at more candidates finds the errors of its value, not better actions
(Goodhart's law); one that still rises wants more budget.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import fisher_exact

from ...interfaces import ForethoughtError
from ..evaluation.arms import BASELINE
from ..evaluation.statistics import wilson_interval


@dataclass(frozen=True)
class Point:
    """Success of arms that searched with the same number of simulations; 0 is the policy alone."""

    simulations: int
    successes: int
    episodes: int
    low: float
    high: float


@dataclass(frozen=True)
class BudgetReport:
    """Success against simulations.

    Attributes:
        points: In order of the simulations.
        rise: Success rate with most simulations − that with fewest (policy alone left out).
        fall: Best rate − rate with most simulations.
        rise_p: Two-sided exact p of the first difference.
        fall_p: Of the second.
    """

    points: tuple[Point, ...]
    rise: float
    fall: float
    rise_p: float
    fall_p: float


def read_budget(results: str | Path) -> BudgetReport | None:
    """Reads every ``summary.json`` below a folder; None where fewer than two numbers of simulations ran.

    Arms that share planner, depth and memory are compared: of several kinds the one with most numbers of
    simulations.

    Raises:
        ForethoughtError: The folder holds no summary.
    """
    folder = Path(results)
    files = sorted(folder.rglob("summary.json")) if folder.is_dir() else []
    if not files:
        raise ForethoughtError(
            f"results={results} holds no summary.json. Give the folder of a sweep, such as what "
            "`forethought eval -m planner.simulations=8,32,128` wrote, or leave results=null."
        )
    kinds: dict[str, dict[int, list[int]]] = {}
    alone: dict[str, list[int]] = {}
    for file in files:
        summary = json.loads(file.read_text(encoding="utf-8"))
        for arm, numbers in summary["arms"].items():
            settings = summary["settings"][arm]
            counts = [numbers["successes"], numbers["episodes"]]
            if arm == BASELINE:
                alone[settings["key"]] = counts
                continue
            planner = dict(settings["parts"].get("planner") or {})
            simulations = planner.pop("simulations", None)
            if not isinstance(simulations, int):
                continue
            planner = {name: value for name, value in planner.items() if name != "children"}
            memory = settings["choices"].get("memory")
            where = [summary["init_states"], summary["benchmark"].get("suite")]
            kind = json.dumps([planner, memory, settings["choices"].get("reward"), where], sort_keys=True)
            kinds.setdefault(kind, {})[simulations] = counts
    if not kinds:
        return None
    chosen = max(kinds.values(), key=len)
    if len(chosen) < 2:
        return None
    first = next(iter(alone.values()), None)
    rows = ([(0, first)] if first else []) + sorted(chosen.items())
    searched = [counts for simulations, counts in rows if simulations]
    rates = [successes / max(episodes, 1) for successes, episodes in searched]
    best = searched[max(range(len(rates)), key=rates.__getitem__)]
    return BudgetReport(
        points=tuple(
            Point(n, counts[0], counts[1], *wilson_interval(counts[0], counts[1])) for n, counts in rows
        ),
        rise=rates[-1] - rates[0],
        fall=max(rates) - rates[-1],
        rise_p=_different(searched[0], searched[-1]),
        fall_p=_different(best, searched[-1]),
    )


def _different(first: Sequence[int], second: Sequence[int]) -> float:
    table = [[counts[0], counts[1] - counts[0]] for counts in (first, second)]
    return float(fisher_exact(table)[1])  # type: ignore[arg-type]
