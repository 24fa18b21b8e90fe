"""Disagreement in units of the error to expect."""

from __future__ import annotations

import line_world
import numpy as np
import pytest
import torch

from forethought.experiments.training.disagreement import calibrate_disagreement
from forethought.experiments.training.transitions import TransitionSampler

MEMBERS = 5


class Noisy(line_world.LineDynamics):
    """The truth and, for each member its own, an error that grows with ``spread`` of the jump."""

    def __init__(self, spread, common=0.0) -> None:
        super().__init__(MEMBERS)
        self.step_scale = torch.ones(line_world.PLACES)
        self.spread, self.common = spread, common
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, latent, chunk):
        following, done = super().forward(latent, chunk)
        size = self.spread(place=latent[0].argmax(-1))[:, None]
        own = torch.randn(following.shape, generator=self.generator)
        shared = torch.randn(following.shape[1:], generator=self.generator)
        change = size * own + self.common * size * shared
        change[..., line_world.PLACES :] = 0
        return following + change, done


@pytest.fixture(scope="module")
def sample():
    data, encoded = line_world.walks(600)
    return TransitionSampler(data, encoded, line_world.HORIZON, 64, MEMBERS)


def steep(place):
    return 0.02 + 0.05 * place


def error_by_place(dynamics, scale, power):
    """Root mean square error of the mean of all members, and what the calibration expects, by place."""
    found = []
    for place in range(line_world.GOAL - 2):
        start = line_world.latents(np.full((1, 4000), place)).expand(MEMBERS, -1, -1)
        chunk = torch.from_numpy(np.stack([line_world.RIGHT] * 2)).expand(4000, -1, -1)
        predicted, _ = dynamics(start, chunk)
        truth = line_world.latents(np.full(4000, place + 2))
        apart = predicted - predicted.mean(0)
        spread = apart.square().mean((0, 2)).sqrt()
        error = (predicted.mean(0) - truth).square().mean(1).sqrt()
        found.append((float(error.mean()), float((scale * spread**power).mean())))
    return np.array(found)


def test_error_that_members_share_is_expected_from_their_spread(sample):
    dynamics = Noisy(steep, common=2.0)
    scale, power = calibrate_disagreement(dynamics, sample, 0)
    error, expected = error_by_place(dynamics, scale, power).T
    np.testing.assert_allclose(expected, error, rtol=0.35)
    assert (expected > error).all()  # judged by fewer members than the model has
    assert 0.8 < power < 1.2
    uncalibrated = error_by_place(dynamics, 1, 1).T[1]
    assert (uncalibrated < 0.55 * error).all()


def test_spread_that_tells_nothing_becomes_a_constant(sample):
    dynamics = Noisy(lambda place: torch.rand(place.shape, generator=torch.Generator().manual_seed(1)) + 0.5)
    truth = sample.target

    def unrelated(state):
        latent, seen = truth(state)
        return latent + 3 * torch.randn(latent.shape, generator=torch.Generator().manual_seed(2)), seen

    sample.target = unrelated
    try:
        _, power = calibrate_disagreement(dynamics, sample, 0)
    finally:
        del sample.target
    assert power < 0.1


def test_too_few_jumps_calibrate_nothing():
    data, encoded = line_world.walks(4)
    few = TransitionSampler(data, encoded, line_world.HORIZON, 8, MEMBERS)
    assert calibrate_disagreement(Noisy(steep), few, 0) == (1.0, 1.0)
