"""Best of N: imagine the policy's own samples, execute the one that ends best."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..interfaces import (
    ActionSamples,
    ActionSpec,
    Decision,
    ForethoughtError,
    Observation,
    RewardModel,
    WorldModel,
)
from .budget import Budget
from .decision import DecisionRule
from .proposals import PolicySamples
from .scoring import Scoring
from .search import TreeSearch


@dataclass(frozen=True, eq=False)
class BestOfN:
    """A planner without proposals of its own: the policy's N samples, scored after one chunk.

    Attributes:
        world_model: Predicts the state after a chunk.
        reward_model: Scores states.
        action_spec: Meaning and bounds of the action.
        n: Samples to compare, the policy's own included; fewer when the policy offers fewer.
        scoring: How a state becomes a score.
        decision: Which chunk is executed in the end.
    """

    world_model: WorldModel
    reward_model: RewardModel
    action_spec: ActionSpec
    n: int = 32
    scoring: Scoring = field(default_factory=Scoring)
    decision: DecisionRule = field(default_factory=DecisionRule)
    _search: TreeSearch = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.n != int(self.n) or self.n < 1:
            raise ForethoughtError(f"Best-of-N compares n samples, an integer >= 1; got n={self.n}.")
        search = TreeSearch(
            self.world_model,
            self.reward_model,
            PolicySamples(self.action_spec),
            self.action_spec,
            budget=Budget(simulations=self.n),
            children=self.n,
            scoring=self.scoring,
            decision=self.decision,
        )
        object.__setattr__(self, "_search", search)

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        """One decision per row; see ``TreeSearch.plan``."""
        return self._search.plan(observation, samples, seeds)
