"""What the policy means: its samples, averaged. No foresight; what a search over a policy that samples has to
beat."""

from __future__ import annotations

from dataclasses import dataclass

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
from .inputs import checked
from .likelihood import resampled
from .sources import ChunkMemory, running_averages


@dataclass(frozen=True, eq=False)
class PolicyMean:
    """Executes the mean of the policy's first n samples: positions linearly, rotations on SO(3), a binary
    gripper by majority, step by step. With a policy that has likelihoods, each different sample counts as it
    is likely. Imagines nothing: the values of its decisions are zero.

    Attributes:
        action_spec: Meaning and bounds of the action.
        n: Samples to average, the policy's own included; fewer when the policy offers fewer.
    """

    action_spec: ActionSpec
    n: int = 8

    def __post_init__(self) -> None:
        if self.n != int(self.n) or self.n < 1:
            raise ForethoughtError(f"The policy's mean is over n samples, an integer >= 1; got n={self.n}.")

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        """One decision per row. A row whose own chunk is not finite returns it as a fallback; further samples
        that are not finite count as the policy's own chunk."""
        clock = Budget(simulations=1).start()
        inputs = checked(samples, observation, seeds, self.action_spec)
        chunks = inputs.chunks
        if inputs.weights is not None:
            chunks = np.take_along_axis(chunks, resampled(inputs.weights)[:, :, None, None], axis=1)
        chunks = chunks[:, : self.n]
        mean = running_averages(chunks, self.action_spec)[:, -1]
        mean[~inputs.whole] = inputs.own[~inputs.whole]
        rows = len(mean)
        averaged = inputs.whole & (chunks.shape[1] > 1)
        nothing = np.where(inputs.whole, np.float32(0.0), np.float32(np.nan))
        meant = f"policy: the mean of {chunks.shape[1]} samples"
        failed = "fallback: the policy's chunk is not finite"
        return Decision(
            chunk=mean,
            slot=np.zeros(rows, np.int32),
            value=nothing,
            policy_value=nothing.copy(),
            overridden=averaged,
            fallback=~inputs.whole,
            reason=tuple(meant if whole else failed for whole in inputs.whole.tolist()),
            simulations=np.zeros(rows, np.int32),
            milliseconds={"search": clock.milliseconds},
        )


def policy_mean(
    world_model: WorldModel,
    reward_model: RewardModel,
    *,
    action_spec: ActionSpec,
    memory: ChunkMemory | None = None,
    n: int = 8,
) -> PolicyMean:
    """The mean of the policy's samples, with the arguments that all presets take.

    Args:
        world_model, reward_model, memory: Not used.
        action_spec: Meaning and bounds of the action.
        n: Samples to average. Ask the policy for as many.
    """
    return PolicyMean(action_spec, n)
