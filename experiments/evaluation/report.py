"""What an evaluation found, as numbers (``summary.json``) and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .arms import BASELINE
from .plan import Episode
from .statistics import paired_comparison, wilson_interval
from .store import EpisodeResult

COMPONENTS = ("policy", "encode", "search", "guard")
"""Parts of a decision whose latency is always reported; None where they never ran."""

Results = Mapping[Episode, EpisodeResult]


def compare(
    results: Results, arms: Sequence[str], contrasts: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Any]:
    """Numbers of all arms, of every arm against the policy alone, and of some against others.

    Args:
        results: Outcomes of the episodes.
        arms: Names of the arms, in order.
        contrasts: Arm to the arms that it is compared with besides.

    Returns:
        ``arms.<name>`` and ``paired.<name>`` over all episodes, and the same below ``tasks.<task>``;
        ``contrasts.<name>`` with the other arm as ``against``; where there are several, the second and
        further ones as ``contrasts.<name>, <other>``.
    """
    tasks = {
        episode.task_id: episode.task for episode in sorted(results, key=lambda episode: episode.task_id)
    }
    overall = _compare(results, arms)
    outcomes = _outcomes(results, arms)
    overall["contrasts"] = {
        f"{arm}, {other}" if place else arm: {"against": other, **_paired(outcomes[other], outcomes[arm])}
        for arm, others in (contrasts or {}).items()
        for place, other in enumerate(others)
    }
    overall["tasks"] = {
        name: _compare({e: r for e, r in results.items() if e.task_id == task}, arms)
        for task, name in tasks.items()
    }
    return overall


def _compare(results: Results, arms: Sequence[str]) -> dict[str, Any]:
    of_arm = _outcomes(results, arms)
    baseline = of_arm.get(BASELINE, {})
    paired = {arm: _paired(baseline, of_arm[arm]) for arm in arms if arm != BASELINE}
    return {"arms": {arm: _arm_numbers(of_arm[arm].values()) for arm in arms}, "paired": paired}


_Outcomes = dict[tuple[int, int, int], EpisodeResult]


def _outcomes(results: Results, arms: Sequence[str]) -> dict[str, _Outcomes]:
    """Results of each arm by task, initial state and seed."""
    return {
        arm: {(e.task_id, e.init_state, e.seed): r for e, r in results.items() if e.arm == arm}
        for arm in arms
    }


def _paired(before: _Outcomes, after: _Outcomes) -> dict[str, Any]:
    """The second against the first, over the episodes that both have finished."""
    both = [where for where in after if where in before]
    first, second = ([outcomes[where].success for where in both] for outcomes in (before, after))
    return asdict(paired_comparison(first, second))


def _arm_numbers(results: Iterable[EpisodeResult]) -> dict[str, Any]:
    results = list(results)
    successes = sum(result.success for result in results)
    components = dict.fromkeys([*COMPONENTS, *(name for result in results for name in result.latency_ms)])
    return {
        "successes": successes,
        "episodes": len(results),
        "wilson95": list(wilson_interval(successes, len(results))),
        "overridden": sum(result.overridden for result in results),
        "decisions": sum(result.decisions for result in results),
        "fallbacks": sum(result.fallbacks for result in results),
        "latency_ms": {
            name: _percentiles([ms for result in results for ms in result.latency_ms.get(name, ())])
            for name in components
        },
    }


def _percentiles(milliseconds: Sequence[float]) -> dict[str, float | None]:
    if not milliseconds:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def outcome_columns(table: Table) -> None:
    """Adds the columns that ``outcome_cells`` fills."""
    table.add_column("arm", style="bold", no_wrap=True)
    for column in ("success", "", "95 %", "gained", "lost", "difference", "p"):
        table.add_column(column, justify="right", no_wrap=True)


def outcome_cells(name: str, numbers: Mapping[str, Any]) -> list[str]:
    """An arm's success, its interval, and its comparison with the policy alone."""
    arm, paired = numbers["arms"][name], numbers["paired"].get(name)
    low, high = (100 * bound for bound in arm["wilson95"])
    cells = [
        name,
        f"{arm['successes']}/{arm['episodes']}",
        percent(arm["successes"], arm["episodes"]),
        f"{low:.0f}–{high:.0f}",
    ]
    if paired is None:
        return [*cells, "", "", "", ""]
    difference, p = f"{100 * paired['difference']:+.1f}", f"{paired['mcnemar_p']:.2g}"
    return [*cells, str(paired["gained"]), str(paired["lost"]), difference, p]


def outcomes_table(numbers: Mapping[str, Any], title: str) -> Table:
    """One row an arm: how often it succeeds."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    outcome_columns(table)
    for name in numbers["arms"]:
        table.add_row(*outcome_cells(name, numbers))
    return table


def costs_table(numbers: Mapping[str, Any]) -> Table:
    """One row an arm: how often it overrides the policy or falls back to it, and what a decision costs."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("arm", style="bold", no_wrap=True)
    for column in ("overridden", "fallbacks", *COMPONENTS):
        table.add_column(column, justify="right", no_wrap=True)
    for name, arm in numbers["arms"].items():
        latency = [arm["latency_ms"][component] for component in COMPONENTS]
        table.add_row(
            name,
            percent(arm["overridden"], arm["decisions"]),
            str(arm["fallbacks"]),
            *(latency_cell(ms) for ms in latency),
        )
    table.caption = (
        "overridden: share of the decisions; policy … guard: milliseconds, median / 95th percentile"
    )
    table.caption_justify = "left"
    return table


def tasks_table(numbers: Mapping[str, Any]) -> Table:
    """One row a task: successes of every arm, and what each gained and lost against the policy alone."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("task", overflow="fold")
    for name in numbers["arms"]:
        table.add_column(name, justify="right")
    for task, own in numbers["tasks"].items():
        cells = []
        for name, arm in own["arms"].items():
            paired = own["paired"].get(name)
            change = f"  +{paired['gained']} −{paired['lost']}" if paired else ""
            cells.append(f"{arm['successes']}/{arm['episodes']}{change}")
        table.add_row(task, *cells)
    return table


def footnotes(summary: Mapping[str, Any]) -> Text:
    """What a reader of the table must know: the convention, and what the models were trained with."""
    benchmark = summary["benchmark"]
    shown = ("suite", "convention", "camera_size", "cheap_rendering", "stepping")
    lines = [", ".join(f"{key}={_short(benchmark[key])}" for key in shown if key in benchmark)]
    for name, arm in summary["settings"].items():
        parts = [f"{group} {choice}" for group, choice in arm["choices"].items()]
        said = [
            f"{group} {key}={_short(value)}"
            for group, facts in arm["facts"].items()
            for key, value in facts.items()
            if key in ("privileged_supervision", "scheme")
        ]
        lines.append(f"{name}: {', '.join([*parts, *said])}")
    pace = summary["pace"]
    if pace["episodes"]:
        lines.append(
            f"{pace['episodes']} episodes in {pace['seconds']:.0f} s with {pace['workers']} workers: "
            f"simulator {percent(pace['simulator'], 1)}, decisions {percent(pace['decisions'], 1)}, loading "
            f"{percent(pace['loading'], 1)}, waiting {percent(pace['waiting'], 1)}, evaluation itself "
            f"{percent(pace['overhead'], 1)}"
        )
    if summary["missing"]:
        lines.append(
            f"{summary['missing']} of the episodes are missing; pairs count where both arms finished."
        )
    return Text("\n".join(lines), style="dim")


def contrasts_table(numbers: Mapping[str, Any]) -> Table:
    """One row for each arm that is compared with another arm than the policy alone."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("arm", "against"):
        table.add_column(column, style="bold", no_wrap=True)
    for column in ("gained", "lost", "difference", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for arm, found in numbers["contrasts"].items():
        difference, p = f"{100 * found['difference']:+.1f}", f"{found['mcnemar_p']:.2g}"
        table.add_row(
            arm.partition(",")[0], found["against"], str(found["gained"]), str(found["lost"]), difference, p
        )
    return table


def final_report(summary: Mapping[str, Any]) -> Group:
    """The tables that an evaluation ends with."""
    title = f"{summary['name']}: init states {summary['init_states']}, seed {summary['seed']}"
    if summary.get("repeats", 1) > 1:
        title += f", {summary['repeats']} episodes each"
    tables = [tasks_table(summary), outcomes_table(summary, title), costs_table(summary)]
    if summary.get("contrasts"):
        tables.append(contrasts_table(summary))
    return Group(*tables, footnotes(summary))


def latency_cell(milliseconds: Mapping[str, float | None]) -> str:
    """Median and 95th percentile for a table."""
    p50, p95 = milliseconds["p50"], milliseconds["p95"]
    return "–" if p50 is None or p95 is None else f"{_three_digits(p50)} / {_three_digits(p95)}"


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}"


def report_console() -> Console:
    """The console for tables: a terminal's own width, and wide enough for them elsewhere."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def percent(part: float, whole: float) -> str:
    """``part`` of ``whole`` for a table."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _short(value: Any) -> str:
    return str(value.get("name", value)) if isinstance(value, Mapping) else str(value)
