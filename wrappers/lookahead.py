"""What one wrapped policy keeps while it drives: the controller, the seeds, the latest decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from ..interfaces import Decision, ForethoughtError, Planner, Policy
from .controller import Controller


class Lookahead:
    """The part of a wrapped policy that looks ahead, reached as ``wrapped.forethought``.

    The first decision raises what the user can mend (a camera is missing, a chunk has the wrong length);
    after one that went well nothing raises any more, see ``Controller``.

    Attributes:
        controller: Decides, and counts what goes wrong.
        last: The latest decision, or None.
        begin: Begins an episode as the wrapped object's ``reset`` does, also where it has none.
        dry_run: Whether the policy acts as if it were not wrapped, whatever is decided.
    """

    def __init__(
        self,
        controller: Controller,
        seed: int = 0,
        another: Callable[[Policy], Controller] | None = None,
        *,
        dry_run: bool = False,
    ) -> None:
        self.controller = controller
        self.dry_run = dry_run
        self.last: Decision | None = None
        self.begin: Callable[..., Any] = self.reset
        self._seed, self._episode, self._index = seed, 0, 0
        self._started = False
        self._another = another

    def beside(self, policy: Policy) -> Lookahead:
        """One for another episode that runs at the same time: the same settings and models, and nothing
        remembered in common.

        Args:
            policy: What proposes in that episode.

        Raises:
            ForethoughtError: This one was not made by ``wrap``, or its planner cannot be had a second time.
        """
        if self._another is None:
            raise ForethoughtError(
                "Only what forethought.wrap made can look ahead in several episodes at once."
            )
        return Lookahead(self._another(policy), self._seed, self._another, dry_run=self.dry_run)

    @property
    def counters(self) -> Counter[str]:
        """Rows by kind of problem, see ``Controller.counters``."""
        return self.controller.counters

    @property
    def started(self) -> bool:
        """Whether a decision went well already."""
        return self._started

    def reset(self) -> None:
        """An episode starts."""
        self.controller.forget()
        self._episode, self._index = self._episode + 1, 0

    def decide(self, observation: Any, *, batch: int = 1, seeds: np.ndarray | None = None) -> Decision:
        """What to execute now.

        Args:
            observation: An Observation, or the exception that came in its stead.
            batch: Number of rows B where the observation cannot tell.
            seeds: ``int64 [B]``; None draws them from the wrapped policy's seed, the episode and the
                decision.

        Raises:
            ForethoughtError: On the first decision only, a problem that the user can mend.
            Exception: On the first decision only, what the policy raised.
        """
        if seeds is None:
            rows = len(getattr(observation, "instruction", ())) or batch
            sequence = np.random.SeedSequence([self._seed, self._episode, self._index])
            seeds = sequence.generate_state(rows, np.uint32).astype(np.int64)
        self._index += 1
        self.last = decision = self.controller.decide(observation, seeds)
        if not self._started:
            for kind, what in self.controller.first.items():
                if isinstance(what, ForethoughtError) or (kind == "policy" and isinstance(what, Exception)):
                    self.controller.first.clear()
                    self.controller.counters.clear()
                    raise what
            self._started = True
        return decision


def fresh(planner: Planner) -> Planner:
    """A planner of the same settings that remembers nothing. One without ``reset`` never does.

    Raises:
        ForethoughtError: It remembers, and how to make another one is not known.
    """
    if is_dataclass(planner) and not isinstance(planner, type):
        parts = {each.name: getattr(planner, each.name) for each in fields(planner) if each.init}
        again = {name: fresh(part) for name, part in parts.items() if hasattr(part, "plan")}
        return replace(planner, **again)  # type: ignore[return-value]
    if not hasattr(planner, "reset"):
        return planner
    raise ForethoughtError(
        f"Several episodes at once need a {type(planner).__name__} each, and this one cannot be made anew. "
        "Name the planner (planner='forethought', with its options), or make it a dataclass."
    )
