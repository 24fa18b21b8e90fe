"""How long a decision may think: simulations, milliseconds, or both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from ..interfaces import ForethoughtError


@dataclass(frozen=True)
class Budget:
    """What one decision may spend. At least one of the two must be given; with both, whichever ends first.

    Attributes:
        simulations: Distinct world-model evaluations per row, the policy's own chunk included; an integer >=
            1.
        milliseconds: Wall time of the whole batch's decision, > 0. The first wave (all root children) always
            runs; a further wave starts only when it is expected to end in time, so the overshoot is at most
            one wave.
    """

    simulations: int | None = None
    milliseconds: float | None = None

    def __post_init__(self) -> None:
        given = f"simulations={self.simulations}, milliseconds={self.milliseconds}"
        if self.simulations is None and self.milliseconds is None:
            raise ForethoughtError(
                f"A budget needs simulations or milliseconds; got {given}. Set one, e.g. simulations=32."
            )
        simulations, milliseconds = self.simulations, self.milliseconds
        if simulations is not None and (not isinstance(simulations, Integral) or simulations < 1):
            raise ForethoughtError(
                f"A budget's simulations must be an integer >= 1 (one is the policy's own chunk); "
                f"got {given}. To run the policy without search, use no planner."
            )
        if milliseconds is not None and not 0.0 < milliseconds < float("inf"):
            raise ForethoughtError(
                f"A budget's milliseconds must be positive and finite; got {given}. "
                "Leave it None for no time limit."
            )

    def start(self, now: Callable[[], float] = time.perf_counter) -> Clock:
        """Start the clock of one decision. ``now`` gives seconds."""
        return Clock(self, now)


class Clock:
    """The budget of one decision, running."""

    def __init__(self, budget: Budget, now: Callable[[], float]) -> None:
        self._budget, self._now = budget, now
        self._start = self._mark = now()
        self._wave = 0.0

    @property
    def milliseconds(self) -> float:
        """Wall time since the start."""
        return 1e3 * (self._now() - self._start)

    @property
    def simulations(self) -> int:
        """Simulations that a row may spend in all."""
        most = self._budget.simulations
        return np.iinfo(np.int32).max if most is None else int(most)

    def wave_begins(self) -> bool:
        """Whether another wave fits; if so, its time starts to count."""
        limit = self._budget.milliseconds
        if limit is None:  # then nobody asks how long it took
            return True
        self._mark = self._now()
        return 1e3 * (self._mark - self._start + self._wave) <= limit

    def wave_ends(self) -> None:
        """Note how long the wave took: the expectation for the next."""
        if self._budget.milliseconds is not None:
            self._wave = self._now() - self._mark
