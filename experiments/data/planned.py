"""A policy with its planner as one policy: episodes in which the search acts show what it gets wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...interfaces import ActionSamples, Observation, Planner, Policy
from ...reward.simulated import SimulatedValue
from ...world_models.latent import load_state_embedding
from ...world_models.simulator import SimulatorWorldModel
from ...wrappers.policies.delegate import PolicyDelegate


@dataclass(frozen=True, eq=False)
class PlannedPolicy(PolicyDelegate):
    """Executes what the planner decides.

    Attributes:
        policy: Who proposes.
        planner: Who decides.
        samples: Chunks asked of the policy.
        simulator: The planner's world model where that is the simulator, which has to know the environment.
    """

    planner: Planner
    samples: int = 8
    simulator: SimulatorWorldModel | None = None

    def attach(self, env: Any) -> None:
        """Acts in this environment from now on: where the simulator imagines, it imagines there."""
        super().attach(env)
        if self.simulator is not None:
            self.simulator.attach(env)

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
    simulator: bool = False,
    **options: Any,
) -> PlannedPolicy:
    """A policy, by default the reference policy of the models folder, planned with that folder's models and a
    preset's options.

    With ``simulator`` the simulator is the world model, its states scored by the folder's value: episodes of
    a search that imagines nothing wrongly, for models that simulator state may supervise.
    """
    from ...planner import PRESETS
    from ...wrappers.models import find_folder, load_models
    from ...wrappers.policies import reference

    folder = find_folder(folder)
    models = load_models(folder)
    policy = reference.load(folder, file) if policy is None else policy
    exact = SimulatorWorldModel(embed=load_state_embedding(folder)) if simulator else None
    planner = PRESETS[preset](
        models.world_model if exact is None else exact,
        models.reward_model if exact is None else SimulatedValue(models.reward_model),
        action_spec=policy.action_spec,
        memory=models.memory,
        **options,
    )
    return PlannedPolicy(policy, planner, simulator=exact)
