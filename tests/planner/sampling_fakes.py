"""The sampling planners over the fakes' world, and a policy that barely moves."""

from __future__ import annotations

import numpy as np
from planner_fakes import ARM, ArmWorld, FixedMemory, NearTarget, observe, policy_samples

from forethought.interfaces import ActionSamples, Planner
from forethought.planner import PRESETS

SAMPLERS = ("random_shooting", "cem", "icem", "mppi")


def sampler(name: str, **options) -> Planner:
    return PRESETS[name](ArmWorld(), NearTarget(), action_spec=ARM, memory=FixedMemory(), **options)


def still(batch: int, n: int = 4) -> ActionSamples:
    """A policy that barely moves, its gripper open."""
    samples = 0.1 * policy_samples(ARM, batch, n, 8).chunks
    samples[..., 6] = -1.0
    return ActionSamples(samples.astype(np.float32))


def plan(planner: Planner, batch: int = 1, samples: ActionSamples | None = None, seed: int = 0):
    samples = samples or policy_samples(ARM, batch, 6, 8)
    return planner.plan(observe(np.zeros((batch, 7))), samples, seed + np.arange(batch))
