"""A policy with its planner as one policy: episodes in which the search acts show what it gets wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...interfaces import ActionSamples, Observation, Planner, Policy
from .delegate import PolicyDelegate


@dataclass(frozen=True, eq=False)
class PlannedPolicy(PolicyDelegate):
    """Executes what the planner decides.

    Attributes:
        policy: Who proposes.
        planner: Who decides.
        samples: Chunks asked of the policy.
    """

    planner: Planner
    samples: int = 8

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        """See ``Policy.propose``; sample 0 is the planner's decision."""
        samples = self.policy.propose(observation, max(n, self.samples), seeds)
        chunks = samples.chunks.copy()
        chunks[:, 0] = self.planner.plan(observation, samples, np.asarray(seeds, np.int64)).chunk
        return ActionSamples(chunks=chunks[:, :n])

    def reset(self) -> None:
        """An episode begins: a planner that remembers forgets."""
        super().reset()
        if callable(reset := getattr(self.planner, "reset", None)):
            reset()

    def executed(self, actions: np.ndarray) -> None:
        """What was executed of the latest decision, ``[B, T, A]``, for a planner that asks: noise may have
        changed it."""
        if callable(tell := getattr(self.planner, "executed", None)):
            tell(actions, range(len(actions)))


def load(
    folder: str | Path,
    file: str = "policy.safetensors",
    preset: str = "forethought",
    policy: Policy | None = None,
    **options: Any,
) -> PlannedPolicy:
    """A policy, by default the reference policy of the models folder, planned with that folder's models and a
    preset's options."""
    from ...planner import PRESETS
    from ...wrappers.models import load_models
    from ...wrappers.policies import reference

    models = load_models(folder)
    policy = reference.load(folder, file) if policy is None else policy
    planner = PRESETS[preset](
        models.world_model,
        models.reward_model,
        action_spec=policy.action_spec,
        memory=models.memory,
        **options,
    )
    return PlannedPolicy(policy, planner)
