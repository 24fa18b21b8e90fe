"""What a collection shows while it runs: episodes, successes, speed, time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .worker import EpisodeDone


class Progress:
    """Counts episodes and draws a line of progress.

    Attributes:
        played, kept, successes, steps: Totals so far.
        by_task: Task id to (successes, played).
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self.played = self.kept = self.successes = self.steps = 0
        self.by_task: dict[int, tuple[int, int]] = {}
        self._bar = Bar(
            TextColumn("collecting"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            disable=quiet,
        )
        self._line = self._bar.add_task("collecting", total=total, note="starting")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def episode(self, done: EpisodeDone) -> None:
        """Count one episode."""
        self.played += 1
        self.kept += done.kept
        self.successes += done.success
        self.steps += done.steps
        successes, played = self.by_task.get(done.task_id, (0, 0))
        self.by_task[done.task_id] = (successes + done.success, played + 1)
        note = f"{self.successes} of {self.played} succeeded ({100 * self.successes / self.played:.0f} %)"
        self._bar.update(self._line, completed=self.kept, note=note)

    def forget(self, kept: int) -> None:
        """Episodes whose unit was lost with its worker, and which will be played again."""
        self.kept -= kept
        self._bar.update(self._line, completed=self.kept)
