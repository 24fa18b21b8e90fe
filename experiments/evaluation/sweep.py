"""One table for a whole sweep (``forethought eval -m ...``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich import box
from rich.table import Table

from .arms import BASELINE
from .report import latency_cell, outcome_cells, outcome_columns, report_console

SUMMARY = "summary.json"
ERROR = "error.txt"
JOINED = "joined.json"


class JoinSweep(Callback):
    """Joins the summaries that the jobs of a sweep left in their output folders, in the process that started
    it."""

    failed: tuple[str, ...] = ()
    """Jobs of the last sweep that ended with an error, for the exit code."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the joined table and writes ``joined.json`` into the sweep's folder."""
        folder = Path(config.hydra.sweep.dir)
        jobs = sorted(
            (path for path in folder.iterdir() if path.is_dir()),
            key=lambda path: (len(path.name), path.name),
        )
        runs, errors = read_jobs(jobs)
        JoinSweep.failed = tuple(errors)
        text = json.dumps({"runs": runs, "errors": errors}, indent=2, ensure_ascii=False) + "\n"
        (folder / JOINED).write_text(text, encoding="utf-8")
        console = report_console()
        console.print(joined_table(runs))
        for job, message in errors.items():
            console.print(f"{job}: {message}", style="red", markup=False)
        console.print(f"Joined: {folder / JOINED}", markup=False)


def read_jobs(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Summaries and errors that jobs left in their folders. A job that left neither counts as failed."""
    runs, errors = [], {}
    for folder in folders:
        summary, error = folder / SUMMARY, folder / ERROR
        if summary.is_file():
            runs.append(json.loads(summary.read_text()))
        else:
            errors[f"job {folder.name}"] = error.read_text() if error.is_file() else "ended without a result"
    return runs, errors


def joined_table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each job and arm. Rows that repeat an earlier one, such as the policy alone, are left
    out."""
    table = Table(title="sweep", box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("overrides", style="cyan", overflow="fold")
    outcome_columns(table)
    table.add_column("search ms", justify="right", no_wrap=True)
    common = set.intersection(*(set(run["overrides"]) for run in runs)) if runs else set()
    seen: set[tuple[str, str, str]] = set()
    for run in runs:
        swept = " ".join(override for override in run["overrides"] if override not in common)
        for arm, numbers in run["arms"].items():
            identity = arm, run["settings"][arm]["key"], f"{run['init_states']} x {run.get('repeats', 1)}"
            if identity in seen:
                continue
            seen.add(identity)
            latency = latency_cell(numbers["latency_ms"]["search"])
            table.add_row("" if arm == BASELINE else swept, *outcome_cells(arm, run), latency)
    return table
