"""What is learned from imagined sequences: the distribution of the next ones."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import ARM, LINE
from sampling_fakes import plan, sampler, still
from scipy.spatial.transform import Rotation

from forethought.interfaces import ForethoughtError
from forethought.planner import ColouredNoise, CrossEntropy, PathIntegral, SharedNoise
from forethought.planner.noise import coloured, normals, stream_keys
from forethought.planner.refinement import Distribution, draw, fit
from forethought.planner.rotation import weighted_mean


class TestRefinement:
    def test_rotations_are_averaged_on_the_group(self):
        rng = np.random.default_rng(0)
        vectors, weights = rng.normal(0, 0.4, (4, 9, 3)), rng.uniform(0, 1, (4, 9))
        found = weighted_mean(vectors, weights)
        for row in range(4):
            exact = Rotation.from_rotvec(vectors[row]).mean(weights[row])
            assert (exact.inv() * Rotation.from_rotvec(found[row])).magnitude() < 0.02
        half = np.array([[0.0, 0.0, 3.0], [0.0, 0.0, -3.0]])
        assert abs(weighted_mean(half, np.array([0.5, 0.5]))[2]) == pytest.approx(np.pi, abs=1e-6)

    def test_a_fit_has_the_weighted_moments_and_the_grippers_majority(self):
        rng = np.random.default_rng(1)
        sequences = ARM.clip(rng.uniform(-0.3, 0.3, (1, 6, 2, 4, 7)).astype(np.float32))
        weight = np.array([[0.3, 0.0, 0.15, 0.1, 0.45, 0.0]])
        found = fit(sequences, weight, ARM)
        mean = np.average(sequences[0, ..., :3], axis=0, weights=weight[0])
        spread = np.sqrt(np.average((sequences[0, ..., :3] - mean) ** 2, axis=0, weights=weight[0]))
        np.testing.assert_allclose(found.mean[0, ..., :3], mean, atol=1e-6)
        np.testing.assert_allclose(found.deviation[0, ..., :3], spread, atol=1e-6)
        majority = np.sign(np.average(sequences[0, ..., 6], axis=0, weights=weight[0]))
        np.testing.assert_array_equal(found.mean[0, ..., 6], majority)

    def test_draws_have_the_moments_of_the_distribution_and_the_gripper_patterns_of_the_fitted(self):
        rng = np.random.default_rng(2)
        mean = ARM.clip(rng.uniform(-0.2, 0.2, (1, 2, 4, 7)).astype(np.float32))
        patterns = rng.choice([-1.0, 1.0], (1, 3, 2, 4, 1)).astype(np.float32)
        deviation = np.full((1, 2, 4, 6), 0.05)
        distribution = Distribution(mean, deviation, patterns, np.array([[0.5, 0.0, 0.5]]))
        for noise in (SharedNoise(), ColouredNoise(2.0)):
            drawn = draw(distribution, 20_000, np.array([3]), -1, noise, 0.0, ARM)[0]
            np.testing.assert_allclose(drawn[..., :6].mean(axis=0), mean[0, ..., :6], atol=2e-3)
            np.testing.assert_allclose(drawn[..., :6].std(axis=0), 0.05, rtol=0.03)
            like = (drawn[:, None, ..., 6:] == patterns[0]).all(axis=(2, 3, 4))
            np.testing.assert_allclose(like.mean(axis=0), [0.5, 0.0, 0.5], atol=0.02)
        flipped = draw(distribution, 20_000, np.array([3]), -1, SharedNoise(), 0.2, ARM)[0]
        unlike = (flipped[:, None, ..., 6:] == -patterns[0]).all(axis=(3, 4)).any(axis=1)
        np.testing.assert_allclose(unlike.mean(axis=0), 0.2, atol=0.02)

    @pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
    def test_coloured_noise_has_unit_variance_and_the_power_that_its_exponent_says(self, exponent):
        white = normals(stream_keys(np.array([5]), 0), 4000 * 64).reshape(4000, 64, 1)
        noise = coloured(white, exponent)[..., 0]
        np.testing.assert_allclose(noise.std(axis=0), 1.0, rtol=0.1)
        power = (np.abs(np.fft.rfft(noise, axis=1)) ** 2).mean(axis=0)[1:]
        slope = np.polyfit(np.log(np.arange(1, 33)), np.log(power), 1)[0]
        assert slope == pytest.approx(-exponent, abs=0.05)

    def test_cem_fits_the_elites_alone_and_never_those_that_are_out(self):
        sequences = np.arange(8.0, dtype=np.float32).reshape(1, 8, 1, 1, 1) / 10.0
        value = np.array([[0.1, 0.9, -np.inf, 0.8, 0.2, 0.3, 0.0, 0.7]])
        found = CrossEntropy(elites=0.25).update(None, sequences, value, LINE)
        assert found.mean[0, 0, 0, 0] == pytest.approx(0.2)
        assert found.deviation[0, 0, 0, 0] == pytest.approx(0.1)
        again = CrossEntropy(elites=0.25, momentum=0.5).update(found, sequences[:, 7:], value[:, 7:], LINE)
        assert again.mean[0, 0, 0, 0] == pytest.approx(0.5 * 0.2 + 0.5 * 0.7)
        assert again.deviation[0, 0, 0, 0] == pytest.approx(0.5 * 0.1)
        lost = CrossEntropy().update(None, sequences, np.full((1, 8), -np.inf), LINE)
        assert lost.mean[0, 0, 0, 0] == 0.0

    def test_momentum_weighs_the_last_mean_and_deviation_against_the_new(self):
        sequences = np.array([0.0, 0.2, 0.6, 1.0], np.float32).reshape(1, 4, 1, 1, 1)
        cem = CrossEntropy(elites=0.5, momentum=0.25)
        first = cem.update(None, sequences, np.array([[1.0, 1.0, 0.0, 0.0]]), LINE)
        second = cem.update(first, sequences, np.array([[0.0, 0.0, 1.0, 1.0]]), LINE)
        assert second.mean[0, 0, 0, 0] == pytest.approx(0.25 * 0.1 + 0.75 * 0.8)
        assert second.deviation[0, 0, 0, 0] == pytest.approx(0.25 * 0.1 + 0.75 * 0.2)

    def test_shares_may_lie_on_their_bounds_and_not_beyond(self):
        for shares in ({"elites": 1.0}, {"keep": 0.0}, {"keep": 1.0}, {"momentum": 0.0}):
            CrossEntropy(**shares)
        for shares in (
            {"elites": 1.2},
            {"elites": 0.0},
            {"keep": 1.2},
            {"keep": -0.1},
            {"momentum": 1.0},
            {"momentum": -0.1},
        ):
            with pytest.raises(ForethoughtError, match="Shares must lie"):
                CrossEntropy(**shares)

    def test_mppi_weighs_by_the_exponential_of_the_value(self):
        sequences = np.array([0.0, 0.5, 1.0], np.float32).reshape(1, 3, 1, 1, 1)
        value = np.array([[0.1, 0.3, -np.inf]])
        found = PathIntegral(temperature=0.1, deviation=0.07).update(None, sequences, value, LINE)
        weight = np.exp([-2.0, 0.0])
        assert found.mean[0, 0, 0, 0] == pytest.approx(0.5 * weight[1] / weight.sum())
        assert found.deviation[0, 0, 0, 0] == 0.07

    def test_mppi_with_a_small_temperature_is_the_best_alone_and_nothing_overflows(self):
        sequences = np.array([0.0, 0.5, 1.0], np.float32).reshape(1, 3, 1, 1, 1)
        for value in ([[0.1, 0.9, 0.3]], [[-900.0, 900.0, -np.inf]]):
            found = PathIntegral(temperature=1e-3).update(None, sequences, np.array(value), LINE)
            assert found.mean[0, 0, 0, 0] == pytest.approx(0.5)
        lost = PathIntegral().update(None, sequences, np.full((1, 3), -np.inf), LINE)
        assert lost.mean[0, 0, 0, 0] == 0.0
        assert PathIntegral().kept(10) == 0

    def test_kept_elites_stay_without_being_imagined_again(self):
        """A population of draws that are all worse: with elites kept, the fit stays with the old ones."""
        keeping = sampler("icem", simulations=64, iterations=4, keep=1.0)
        assert plan(keeping, 1, still(1)).simulations[0] == 64
        assert CrossEntropy(keep=0.3).kept(40) == 3
        assert CrossEntropy().kept(40) == 0
