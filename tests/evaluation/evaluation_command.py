"""Runs ``forethought eval`` on the fake world in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The command, started in ``folder``; results go to ``folder/runs/eval/fake``."""
    command = [sys.executable, "-m", "forethought.experiments.cli", "eval"]
    command += ["--config-dir", str(HERE / "fake_configs"), "--config-name", "eval_fake", *arguments]
    path = os.pathsep.join([str(HERE), *(entry for entry in sys.path if entry)])
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_here(folder: Path, *arguments: str) -> int:
    """The exit code of a run whose workers alone are other processes."""
    from forethought.experiments.cli import main

    flags = ["--config-dir", str(HERE / "fake_configs"), "--config-name", "eval_fake"]
    with contextlib.chdir(folder):
        return main(["eval", *flags, *arguments])


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a whole run."""
    process = start(folder, *arguments, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def message(err: str) -> str:
    """The words of an error panel, as they were before they were wrapped into it."""
    return " ".join(err.replace("│", " ").split())


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "runs/eval/fake/summary.json").read_text())


def table(folder: Path) -> dict[str, Any]:
    """A summary without what the clock decides."""
    found = {name: summary(folder)[name] for name in ("arms", "paired", "tasks", "missing", "settings")}
    for numbers in (found, *found["tasks"].values()):
        for arm in numbers["arms"].values():
            del arm["latency_ms"]
    return found


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """What was written of every episode, without what the clock decides."""
    path = folder / "runs/eval/fake/episodes.sqlite"
    if not path.exists():
        return []
    with sqlite3.connect(path) as database:
        if not database.execute("SELECT * FROM sqlite_master").fetchone():
            return []
        return sorted(
            database.execute(
                "SELECT key, arm, task_id, init_state, seed, success, steps, decisions, overridden "
                "FROM episodes"
            )
        )
