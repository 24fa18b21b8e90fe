"""What a running evaluation shows: every task and arm so far, the pace, and the time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .plan import Episode
from .store import EpisodeResult

MAX_ROWS = 20
"""Tasks shown at once; beyond that, those that changed last."""


class LiveDisplay:
    """Redrawn in a terminal a few times a second; elsewhere one line every tenth of the way.

    Args:
        episodes: All episodes of the evaluation.
        finished: Those that were there already.
        arms: Names of the arms, in the order shown.
        workers: Processes that share what is left.
        console: Where to.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        finished: Mapping[Episode, EpisodeResult],
        arms: Sequence[str],
        workers: int,
        console: Console,
    ) -> None:
        self._arms, self._workers, self._console = arms, workers, console
        self._total = Counter((episode.task_id, episode.arm) for episode in episodes)
        self._names = {episode.task_id: episode.task for episode in episodes}
        self._done: Counter[tuple[int, str]] = Counter()
        self._successes: Counter[tuple[int, str]] = Counter()
        self._seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        self._changed: dict[int, float] = {}
        self._start = time.monotonic()
        for episode, result in finished.items():
            self._count(episode, result)
        self._already = len(finished)
        self._progress = Progress(
            TextColumn("{task.completed}/{task.total} episodes"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._bar = self._progress.add_task(
            "", total=len(episodes), completed=len(finished), left="loading …"
        )
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=2, transient=True)

    def __enter__(self) -> LiveDisplay:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def add(self, episode: Episode, result: EpisodeResult) -> None:
        """Counts a finished episode."""
        self._count(episode, result)
        self._seconds[episode.arm].append(result.seconds["total"])
        done, total = self._done.total(), self._total.total()
        self._progress.update(self._bar, completed=done, left=self._left())
        if not self._console.is_terminal and (10 * done // total > 10 * (done - 1) // total):
            rates = ", ".join(f"{arm} {self._cell(None, arm)}" for arm in self._arms)
            self._console.print(f"{done}/{total} episodes, {self._left()}: {rates}", highlight=False)

    def _count(self, episode: Episode, result: EpisodeResult) -> None:
        where = episode.task_id, episode.arm
        self._done[where] += 1
        self._successes[where] += result.success
        self._changed[episode.task_id] = time.monotonic()

    def _left(self) -> str:
        """Time left, from what episodes took in this run; an arm without one is taken for the slowest."""
        measured = {arm: sum(seconds) / len(seconds) for arm, seconds in self._seconds.items() if seconds}
        if not measured:
            return "loading …"
        slowest = max(measured.values())
        work = sum(
            (count - self._done[where]) * measured.get(where[1], slowest)
            for where, count in self._total.items()
        )
        seconds = int(work / self._workers)
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left" if work else "done"

    def _render(self) -> Group:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("task", no_wrap=True, overflow="ellipsis")
        for arm in self._arms:
            table.add_column(arm, justify="right", no_wrap=True)
        for task in self._shown():
            table.add_row(self._names[task], *(self._cell(task, arm) for arm in self._arms))
        table.add_section()
        table.add_row("all", *(self._cell(None, arm) for arm in self._arms), style="bold")
        return Group(table, self._progress)

    def _shown(self) -> Iterable[int]:
        if len(self._names) <= MAX_ROWS:
            return self._names
        return sorted(sorted(self._names, key=lambda task: -self._changed.get(task, 0.0))[:MAX_ROWS])

    def _cell(self, task: int | None, arm: str) -> str:
        tasks = self._names if task is None else (task,)
        done, successes, total = (
            sum(counter[task, arm] for task in tasks)
            for counter in (self._done, self._successes, self._total)
        )
        rate = f"{100 * successes / done:3.0f} %" if done else "    –"
        return f"{rate}  {done}/{total}"
