"""What a policy means: the mean of several samples in place of one.

A policy that samples its chunks (diffusion, flow matching, tokens at a temperature) executes one draw, noise
included. Where it has one mind, the mean of n draws says the same with a n-th of the noise's variance; where
it hesitates between two, the mean may be neither. Which of the two holds an evaluation tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...interfaces import ActionSamples, ForethoughtError, Observation
from ...planner import running_averages
from . import reference
from .delegate import PolicyDelegate


@dataclass(frozen=True, eq=False)
class AveragedPolicy(PolicyDelegate):
    """Executes the mean of a policy's first samples; further samples are the policy's own.

    Positions are averaged linearly, rotations on SO(3), a binary gripper by majority, step by step.

    Attributes:
        policy: Who is averaged.
        average: How many samples.
    """

    average: int = 16

    def __post_init__(self) -> None:
        if self.average != int(self.average) or self.average < 1:
            raise ForethoughtError(f"average must be an integer of at least 1 sample; got {self.average}.")

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras that an observation must have; empty where the policy does not say."""
        return tuple(getattr(self.policy, "cameras", ()))

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        """N chunks per row, ``[B, N, H, A]``; see ``Policy.propose``. Likelihoods are not passed on: the mean
        has none."""
        drawn = self.policy.propose(observation, max(n, self.average), seeds).chunks
        chunks = drawn[:, :n].copy()
        chunks[:, 0] = running_averages(drawn[:, : self.average], self.action_spec)[:, -1]
        return ActionSamples(chunks=chunks)


def load(
    folder: str | Path, file: str = "policy.safetensors", steps: int = 8, average: int = 16
) -> AveragedPolicy:
    """The mean of a reference policy in a models folder.

    Args:
        folder, file, steps: See ``reference.load``.
        average: Samples that are averaged.
    """
    return AveragedPolicy(reference.load(folder, file, steps), average)
