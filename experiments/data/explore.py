"""A policy that now and then executes what a planner would have proposed: data where search needs its models
to be right.

Noise around the policy's own chunks shows how they go wrong. A planner also asks what happens when the
gripper closes three centimetres beside the object, which the policy itself would never try; a model that has
not seen it is optimistic, and search finds exactly that optimism.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...interfaces import ActionSamples, Observation, Policy, WorldModel
from ...planner import Context, KernelProposals
from ...planner.mixtures import kernel_proposals
from ...planner.sources import DEFAULT_BANDWIDTHS
from ...wrappers.policies.delegate import PolicyDelegate


@dataclass(frozen=True, eq=False)
class ExploringPolicy(PolicyDelegate):
    """Executes a random candidate in place of the policy's chunk, with some probability at every decision.

    Attributes:
        policy: Who acts otherwise.
        world_model: Encodes observations for the retrieval.
        proposals: Where candidates come from.
        share: Probability of a candidate.
        candidates: How many are drawn for one to be chosen.
        samples: Chunks asked of the policy, centres of its kernels.
    """

    world_model: WorldModel
    proposals: KernelProposals
    share: float = 0.35
    candidates: int = 32
    samples: int = 8

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        """See ``Policy.propose``; sample 0 is what is executed."""
        chunks = self.policy.propose(observation, max(n, self.samples), seeds).chunks.copy()
        context = Context(
            samples=chunks,
            latent=self.world_model.encode(observation),
            instruction=observation.instruction,
            seeds=np.asarray(seeds, np.int64),
            nodes=np.zeros(observation.batch, np.int64),
        )
        drawn = self.proposals.propose(context, self.candidates, keep_policy=True).chunks
        for row, seed in enumerate(seeds):
            generator = np.random.default_rng([int(seed), 7])
            if generator.random() < self.share:
                chunks[row, 0] = drawn[row, generator.integers(1, self.candidates)]
        return ActionSamples(chunks=chunks[:, :n])


def load(
    folder: str | Path,
    file: str = "policy.safetensors",
    share: float = 0.35,
    policy: Policy | None = None,
) -> ExploringPolicy:
    """A policy, by default the reference policy of the models folder, exploring with that folder's
    encoder and memory."""
    from ...world_models import latent, retrieval
    from ...wrappers.policies import reference

    policy = reference.load(folder, file) if policy is None else policy
    # Wider than what a planner proposes: to learn where the models end, not to succeed.
    proposals = kernel_proposals(
        policy.action_spec,
        retrieval.load(folder),
        average_over=None,
        bandwidths=DEFAULT_BANDWIDTHS,
        flip_probability=0.1,
    )
    return ExploringPolicy(policy, latent.load(folder), proposals, share)
