"""From how far the members of an ensemble are apart to how wrong their mean is."""

from __future__ import annotations

import math

import numpy as np
import torch

from ...world_models.dynamics import ChunkDynamics
from .transitions import TransitionSampler

DRAWS = 20_000
"""Jumps that the calibration is fitted to, at most."""

LEAST_JUMPS = 100
"""Fewer jumps than these calibrate nothing."""


@torch.no_grad()
def calibrate_disagreement(
    dynamics: ChunkDynamics, sample: TransitionSampler, seed: int
) -> tuple[float, float]:
    """Scale a and power b such that a · s^b is the error to expect where the members' spread is s.

    Every jump is judged by the members that did not learn from its episode, so that no episode need be kept
    from training; two of them are needed. b is the slope of error against spread on logarithmic axes, and a
    makes the mean of the expected errors that of the errors. What few members predict is a little worse than
    what all do, so the expectation errs on the side of caution.

    Args:
        dynamics: The trained ensemble.
        sample: What it was trained on; says which member saw which episode.
        seed: Of the jumps drawn.

    Returns:
        (a, b) for root mean squares over the numbers that change; (1, 1) where too few jumps can be judged,
        and b = 0 (a constant) where spread and error have nothing to do with each other.
    """
    data = sample.data
    left_out = ~np.stack(sample.mine)  # [E, episodes]
    pool = np.flatnonzero((left_out.sum(0) >= 2)[data.episode[data.frame_state]])
    state = data.frame_state[pool]
    state = state[data.complete(state, sample.horizon)]
    if len(state) < LEAST_JUMPS:
        return 1.0, 1.0
    state = np.random.default_rng(seed).permutation(state)[:DRAWS]
    chunk, after, _, _ = sample.jump(state)
    target, seen = sample.target(after)
    start = sample.encoded.frames[sample.frame_of[state]]
    predicted = dynamics(start.expand(dynamics.members, -1, -1), chunk)[0]
    members = torch.from_numpy(left_out[:, data.episode[state]]).float()[..., None]  # [E, n, 1]
    count = members.sum(0)
    mean = (members * predicted).sum(0) / count
    variance = (members * (predicted - mean).square()).sum(0) / (count - 1)
    changing = len(dynamics.step_scale)
    # As the model will compute it: deviations of all E members, divided by E.
    biased = (dynamics.members - 1) / dynamics.members
    spread = (biased * variance[:, :changing]).sum(1).div(variance.shape[1]).sqrt().double().numpy()
    error = (mean - target)[:, :changing].square().sum(1).div(variance.shape[1]).sqrt().double().numpy()
    use = (seen.numpy() > 0) & (spread > 1e-9) & (error > 1e-9)
    if use.sum() < LEAST_JUMPS:
        return 1.0, 1.0
    power = max(float(np.polyfit(np.log(spread[use]), np.log(error[use]), 1)[0]), 0.0)
    scale = float(error[use].mean() / (spread[use] ** power).mean())
    return (scale, power) if math.isfinite(scale) else (1.0, 1.0)
