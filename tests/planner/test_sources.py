"""Where kernels stand: on the policy's samples and their means, on what a memory retrieves, on primitives."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import ARM, FixedMemory, context, policy_samples
from scipy.spatial.transform import Rotation

from forethought.interfaces import ActionSpec
from forethought.planner import (
    AveragedKernels,
    AveragedPolicyKernels,
    Context,
    KernelProposals,
    PrimitiveKernels,
    RetrievedKernels,
    kernel_proposals,
    running_averages,
)


def test_retrieved_kernels_stand_on_what_the_memory_returns_for_the_row():
    memory = FixedMemory()
    source = RetrievedKernels(memory, 3, 1.0, (1e-4,))
    samples = policy_samples(ARM, 2, 1, 8).chunks
    drawn = KernelProposals(ARM, (source,), flip_probability=0.0).propose(
        context(samples), 10, keep_policy=True
    )
    near = memory.nearest(np.array([[0.0], [1.0]]), ("", ""), 3)
    for row in range(2):
        distance = np.abs(drawn.chunks[row, 1:, None] - near[row]).max(axis=(2, 3)).min(axis=1)
        assert (distance < 1e-3).all()


def test_averaged_kernels_stand_on_the_means_of_the_nearest():
    memory = FixedMemory()
    source = AveragedKernels(ARM, memory, over=(1, 5))
    centres = source.centres(context(policy_samples(ARM, 2, 1, 8).chunks))
    near = memory.nearest(np.array([[0.0], [1.0]]), ("", ""), 5)
    assert centres.shape == (2, 2, 8, 7)
    np.testing.assert_allclose(centres[:, 0], near[:, 0], atol=1e-6)
    np.testing.assert_allclose(centres[:, 1, :, :3], near[..., :3].mean(axis=1), atol=1e-6)
    np.testing.assert_array_equal(centres[:, 1, :, 6], np.sign(near[..., 6].sum(axis=1)))


def test_averaged_policy_kernels_stand_on_the_means_of_the_first_samples():
    samples = policy_samples(ARM, 2, 6, 8).chunks
    centres = AveragedPolicyKernels(ARM, over=(1, 5, 6, 100)).centres(context(samples))
    assert centres.shape == (2, 3, 8, 7)  # 100 there are not: that is 6, which is there
    for place, count in enumerate((1, 5, 6)):
        np.testing.assert_allclose(
            centres[:, place, :, :3], samples[:, :count, :, :3].mean(axis=1), atol=1e-6
        )
        votes = np.where(samples[:, :count, :, 6].sum(axis=1) > 0, 1.0, -1.0)
        np.testing.assert_array_equal(centres[:, place, :, 6], votes)
    np.testing.assert_array_equal(centres, running_averages(samples, ARM)[:, [0, 4, 5]])


def test_a_sample_that_is_likelier_weighs_more_in_the_average():
    samples = policy_samples(ARM, 1, 4, 8).chunks
    likely = np.array([[0.0, 0.5, 0.5, 0.0]])
    given = Context(samples, np.zeros((1, 1)), ("",), np.zeros(1, int), np.zeros(1, int), weights=likely)
    mean = AveragedPolicyKernels(ARM, over=(4,)).centres(given)[0, 0, :, :3]
    np.testing.assert_allclose(mean, samples[0, 1:3, :, :3].mean(axis=0), atol=1e-6)


def test_averages_take_the_place_of_the_single_samples():
    samples, memory = policy_samples(ARM, 2, 8, 8).chunks, FixedMemory()
    given = kernel_proposals(ARM, memory, policy_average_over=[2, 8])
    names = "policy", "policy_averaged", "averaged"
    assert given.source_names == names
    here = context(samples)
    drawn = given.propose(here, 33, keep_policy=True)
    np.testing.assert_array_equal(drawn.chunks[:, 0], samples[:, 0])
    mean = given.sources[0].centres(here)
    ours = drawn.chunks[0][drawn.source[0] == 1]
    apart = np.abs(ours[:, None, :, :6] - mean[0, None, :, :, :6]).max(axis=(2, 3)).min(axis=1)
    assert len(ours) == 16
    assert (apart < 0.15).all()
    alone = kernel_proposals(ARM, policy_average_over=[4])
    assert alone.source_names == ("policy", "policy_averaged")


class TestPrimitives:
    def test_they_are_the_elementary_motions_and_leave_the_rest_to_the_policy(self):
        spec = ActionSpec(
            low=np.array([-2.0, -1.0, -1.0, -1.0, 0.0]),
            high=np.array([2.0, 1.0, 1.0, 1.0, 0.08]),
            position=(0, 1),
            rotation=(3,),
            gripper=(4,),
        )
        own = np.tile(np.array([0.3, 0.3, 0.7, 0.3, 0.08], np.float32), (1, 2, 3, 1))
        centres = PrimitiveKernels(spec, reach=0.5).centres(context(own))
        rest, closed, opened = [0.7, 0.0, 0.08], [0.7, 0.0, 0.0], [0.7, 0.0, 0.08]
        expected = [
            [1.0, 0.0, *rest], [-1.0, 0.0, *rest], [0.0, 0.5, *rest], [0.0, -0.5, *rest],
            [0.0, 0.0, *rest], [0.0, 0.0, *closed], [0.0, 0.0, *opened],
        ]  # fmt: skip
        assert centres.shape == (1, 7, 3, 5)
        for step in range(3):
            np.testing.assert_allclose(centres[0, :, step], expected, atol=1e-7)

    def test_an_action_without_named_indices_can_only_be_kept(self):
        own = policy_samples(ActionSpec(low=-np.ones(2), high=np.ones(2)), 2, 3, 4).chunks
        centres = PrimitiveKernels(ActionSpec(low=-np.ones(2), high=np.ones(2))).centres(context(own))
        np.testing.assert_array_equal(centres, own[:, :1])

    def test_they_take_their_share_and_are_accounted_for(self):
        samples = policy_samples(ARM, 2, 4, 8).chunks
        proposals = kernel_proposals(ARM, FixedMemory(), primitive_share=0.25, bandwidths=(1e-4,))
        assert proposals.source_names == ("policy", "policy_kernels", "averaged", "primitives")
        drawn = proposals.propose(context(samples), 36, keep_policy=True)
        for row in range(2):
            assert np.bincount(drawn.source[row]).tolist() == [1, 13, 13, 9]
            centres = PrimitiveKernels(ARM).centres(context(samples))[row]
            distance = np.abs(drawn.chunks[row, drawn.source[row] == 3][:, None] - centres).max(axis=(2, 3))
            assert sorted(set(distance.argmin(axis=1))) in ([*range(8)], [0, 1, 2, 3, 4, 5, 6, 7, 8])
            assert distance.min(axis=1).max() < 1e-3

    def test_without_a_share_nothing_changes(self):
        samples = policy_samples(ARM, 2, 4, 8).chunks
        plain = kernel_proposals(ARM, FixedMemory()).propose(context(samples), 20, keep_policy=True)
        off = kernel_proposals(ARM, FixedMemory(), primitive_share=0.0, primitive_reach=0.9)
        np.testing.assert_array_equal(
            off.propose(context(samples), 20, keep_policy=True).chunks, plain.chunks
        )


def test_rotations_are_averaged_on_the_group():
    spec = ActionSpec(low=-np.ones(3), high=np.ones(3), rotation=(0, 1, 2), rotation_scale=3.0)
    turns = Rotation.from_rotvec(np.random.default_rng(0).normal(0, 0.4, (6, 3)))
    chunks = (turns.as_rotvec() / 3.0).astype(np.float32)[None, :, None]
    means = running_averages(chunks, spec)
    for count in range(1, 7):
        exact = turns[:count].mean()
        found = Rotation.from_rotvec(3.0 * means[0, count - 1, 0])
        assert (found.inv() * exact).magnitude() < 0.02
    half = Rotation.from_rotvec([[0.0, 0.0, 2.9], [0.0, 0.0, -2.9]])
    chunks = (half.as_rotvec() / 3.0).astype(np.float32)[None, :, None]
    assert abs(3.0 * running_averages(chunks, spec)[0, 1, 0, 2]) == pytest.approx(np.pi, abs=0.15)
