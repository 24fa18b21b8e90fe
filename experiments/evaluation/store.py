"""Finished episodes on disk: one SQLite file that a killed evaluation loses nothing of.

A row is written in one transaction when its episode ends, so the file never holds half an episode. Rows are
told apart by the arm's fingerprint: evaluations with other settings share the file without mixing, and what
is already there is not run again.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ...interfaces import ForethoughtError
from .plan import Episode

SCHEMA = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS arms (
    key TEXT NOT NULL, arm TEXT NOT NULL, settings TEXT NOT NULL, facts TEXT NOT NULL, PRIMARY KEY (key, arm)
);
CREATE TABLE IF NOT EXISTS episodes (
    key TEXT NOT NULL, arm TEXT NOT NULL, task_id INTEGER NOT NULL, task TEXT NOT NULL,
    init_state INTEGER NOT NULL, seed INTEGER NOT NULL,
    success INTEGER NOT NULL, steps INTEGER NOT NULL, decisions INTEGER NOT NULL,
    overridden INTEGER NOT NULL, fallbacks INTEGER NOT NULL,
    problems TEXT NOT NULL, latency_ms TEXT NOT NULL, seconds TEXT NOT NULL, finished REAL NOT NULL,
    UNIQUE (key, arm, task_id, init_state, seed)
);
"""


@dataclass(frozen=True)
class EpisodeResult:
    """A finished episode.

    Attributes:
        success: Whether the benchmark says that the task was done within the step limit.
        steps: Control steps executed.
        decisions: Decisions taken.
        overridden: Decisions that executed something else than the policy's chunk.
        fallbacks: Decisions where something failed and the policy's chunk (or no motion) was executed for
            that reason.
        problems: The controller's counters, by kind of problem.
        latency_ms: Component to the milliseconds of every decision in which it ran.
        seconds: Wall time of the episode: ``total``, and of it ``simulator`` and ``decide``; ``loading`` is
            what went before it, when its worker had to start or to change the environment.
    """

    success: bool
    steps: int
    decisions: int
    overridden: int
    fallbacks: int
    problems: Mapping[str, int]
    latency_ms: Mapping[str, list[float]]
    seconds: Mapping[str, float]


def prepare_folder(folder: Path) -> None:
    """Makes the folder and writes to it once.

    Raises:
        ForethoughtError: The folder cannot be made or written to.
    """
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ForethoughtError(
            f"out={folder} is not a folder that can be written to ({error.strerror or error}). "
            "Give another folder with out=..., or mend its permissions."
        ) from error


class EpisodeStore:
    """The episodes in one file. Only the process that schedules episodes writes.

    Raises:
        ForethoughtError: The file is no results database, is damaged, or another version of Forethought
            wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._database = sqlite3.connect(path, timeout=60.0, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            problem = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version == 0 and tables == 0:
                self._database.executescript(
                    f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version={SCHEMA}; COMMIT;"
                )
                version = SCHEMA
        except sqlite3.Error as error:
            raise ForethoughtError(
                f"{path} is not a readable results database ({error}). Its episodes cannot be trusted: move "
                "the file (with its -wal and -shm) away and start again, or give another folder with out=..."
            ) from error
        if version != SCHEMA:
            raise ForethoughtError(
                f"{path} has layout {version}; this version of Forethought reads layout {SCHEMA}. "
                "Give another folder with out=..., or use the version that wrote it."
            )

    def __enter__(self) -> EpisodeStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def describe_arm(self, key: str, arm: str, settings: Mapping[str, Any]) -> None:
        """Writes down what a fingerprint stands for."""
        self._database.execute(
            "INSERT OR IGNORE INTO arms VALUES (?, ?, ?, '{}')",
            (key, arm, json.dumps(settings, sort_keys=True, default=str)),
        )

    def add_facts(self, key: str, arm: str, facts: Mapping[str, Any]) -> None:
        """Writes down what the arm's parts say about themselves."""
        self._database.execute(
            "UPDATE arms SET facts = ? WHERE key = ? AND arm = ?",
            (json.dumps(facts, sort_keys=True), key, arm),
        )

    def facts(self, key: str, arm: str) -> dict[str, Any]:
        """What ``add_facts`` wrote down; empty before."""
        row = self._database.execute(
            "SELECT facts FROM arms WHERE key = ? AND arm = ?", (key, arm)
        ).fetchone()
        return json.loads(row[0]) if row else {}

    def add(self, episode: Episode, result: EpisodeResult) -> None:
        """Writes a finished episode. One that is already there stays as it is."""
        self._database.execute(
            "INSERT OR IGNORE INTO episodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                episode.key,
                episode.arm,
                episode.task_id,
                episode.task,
                episode.init_state,
                episode.seed,
                int(result.success),
                result.steps,
                result.decisions,
                result.overridden,
                result.fallbacks,
                json.dumps(dict(result.problems)),
                json.dumps(
                    {name: [round(ms, 4) for ms in values] for name, values in result.latency_ms.items()}
                ),
                json.dumps({name: round(value, 4) for name, value in result.seconds.items()}),
                time.time(),
            ),
        )

    def finished(self, episodes: Iterable[Episode]) -> dict[Episode, EpisodeResult]:
        """Those of the episodes that are in the file, in the order given."""
        episodes = tuple(episodes)
        found: dict[tuple[Any, ...], EpisodeResult] = {}
        for key in {episode.key for episode in episodes}:
            rows = self._database.execute(
                "SELECT arm, task_id, init_state, seed, success, steps, decisions, overridden, fallbacks, "
                "problems, latency_ms, seconds FROM episodes WHERE key = ?",
                (key,),
            )
            for row in rows:
                arm, task, state, seed, success, steps, decisions, overridden, fallbacks, *texts = row
                problems, latency_ms, seconds = (json.loads(text) for text in texts)
                found[key, arm, task, state, seed] = EpisodeResult(
                    success=bool(success),
                    steps=steps,
                    decisions=decisions,
                    overridden=overridden,
                    fallbacks=fallbacks,
                    problems=problems,
                    latency_ms=latency_ms,
                    seconds=seconds,
                )
        identity = {e: (e.key, e.arm, e.task_id, e.init_state, e.seed) for e in episodes}
        return {episode: found[where] for episode, where in identity.items() if where in found}
