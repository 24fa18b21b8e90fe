"""What planners that remember something of each row have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..interfaces import ActionSamples, Decision, Observation


@dataclass(eq=False)
class RememberingRows:
    """``plan`` for a planner with ``plan_rows``: the i-th row of a batch is taken for the i-th row of the
    batch before as long as batches are of one size; when the size changes, all is forgotten."""

    _batch: int = field(default=0, init=False, repr=False)

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        """One decision per row; see ``TreeSearch.plan``."""
        if observation.batch != self._batch:
            self.reset()
            self._batch = observation.batch
        return self.plan_rows(observation, samples, seeds, np.arange(observation.batch))

    def plan_rows(
        self, observation: Observation, samples: ActionSamples, seeds: np.ndarray, rows: np.ndarray
    ) -> Decision:
        """See ``RowPlanner``."""
        raise NotImplementedError

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """See ``RowPlanner``."""
        raise NotImplementedError
