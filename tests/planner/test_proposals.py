"""Kernel proposals: the density of their mixture, noise of the right shape, accounting by source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fakes import ARM, FixedMemory, context, policy_samples
from scipy import stats
from scipy.special import softmax

from forethought.interfaces import ActionSpec, ForethoughtError
from forethought.planner import (
    AveragedKernels,
    AveragedPolicyKernels,
    ChunkSpace,
    DatasetKernels,
    KernelProposals,
    PolicyKernels,
    PrimitiveKernels,
    RetrievedKernels,
    kernel_proposals,
)
from forethought.planner.kernel_mixture import _softmax
from forethought.planner.noise import normals, stream_keys, uniforms

WIDE = ActionSpec(
    low=np.array([-2.0, -1.0, 0.0, -3.0, 0.0]),
    high=np.array([2.0, 1.0, 4.0, 3.0, 0.08]),
    position=(0, 1),
    rotation=(3,),
    gripper=(4,),
)


def reference_log_density(spec, chunks, parts, shared, rotation_scale, flip):
    """The mixture written out with scipy: parts are (share, centres [n, H, A], bandwidths)."""
    horizon = chunks.shape[1]
    continuous = list(spec.continuous)
    half = 0.5 * (spec.high - spec.low).astype(np.float64)
    factor = np.array([rotation_scale if i in spec.rotation else 1.0 for i in continuous])
    over_time = shared * np.ones((horizon, horizon)) + (1.0 - shared) * np.eye(horizon)
    covariance = np.kron(over_time, np.diag(factor**2))
    total = sum(share for share, _, _ in parts)

    def flat(x):
        return (x[..., continuous] / half[continuous]).reshape(*x.shape[:-2], -1).astype(np.float64)

    result = np.zeros(len(chunks))
    for i, chunk in enumerate(chunks):
        for share, centres, bandwidths in parts:
            for centre in centres:
                gripper = 1.0
                for g in spec.gripper:
                    same = chunk[:, g] == centre[:, g]
                    gripper *= 1.0 - flip if same.all() else flip if not same.any() else 0.0
                for width in bandwidths:
                    normal = stats.multivariate_normal(flat(centre), width**2 * covariance)
                    weight = share / total / len(centres) / len(bandwidths)
                    result[i] += weight * gripper * normal.pdf(flat(chunk))
    with np.errstate(divide="ignore"):
        return np.log(result)


@pytest.mark.parametrize("spec", [ARM, WIDE], ids=["arm", "wide"])
@pytest.mark.parametrize(
    ("shared", "rotation_scale", "flip"), [(0.85, 0.4, 0.1), (0.0, 1.0, 0.0), (0.5, 2.0, 0.3)]
)
def test_the_density_is_that_of_the_mixture_written_out_with_scipy(spec, shared, rotation_scale, flip):
    horizon, rng = 4, np.random.default_rng(1)
    samples = policy_samples(spec, 1, 3, horizon, seed=2).chunks
    data = spec.clip(rng.uniform(spec.low, spec.high, (5, horizon, spec.size)))
    proposals = KernelProposals(
        spec,
        (PolicyKernels(0.7, (0.3, 0.9)), DatasetKernels(data, 0.2, (0.5,))),
        shared=shared,
        rotation_scale=rotation_scale,
        flip_probability=flip,
    )
    drawn = proposals.propose(context(samples), 12, keep_policy=True)
    parts = [(0.7, samples[0], (0.3, 0.9)), (0.2, data, (0.5,))]
    expected = reference_log_density(spec, drawn.chunks[0], parts, shared, rotation_scale, flip)
    assert np.isfinite(expected[0])
    np.testing.assert_allclose(drawn.log_density[0], expected, rtol=1e-6)
    np.testing.assert_allclose(drawn.prior[0], softmax(expected / (horizon * len(spec.continuous))))


def test_a_gripper_that_neither_agrees_nor_opposes_has_no_density():
    samples = policy_samples(ARM, 1, 1, 4).chunks
    samples[..., 6] = 1.0
    chunks = np.repeat(samples, 3, axis=1)
    chunks[0, 1, :, 6] = -1.0
    chunks[0, 2, :2, 6] = -1.0
    found = KernelProposals(ARM).log_density(context(samples), chunks)[0]
    assert found[0] - found[1] == pytest.approx(np.log(0.9 / 0.1))
    assert np.isneginf(found[2])


def test_the_density_integrates_to_one():
    spec = ActionSpec(low=np.array([-1.0, 0.0]), high=np.array([3.0, 1.0]), gripper=(1,))
    samples = spec.clip(np.array([[[[0.5, 1.0]], [[1.5, 0.0]]]], np.float32))
    proposals = KernelProposals(spec, (PolicyKernels(1.0, (0.05, 0.1)),))
    x = np.linspace(-1.0, 3.0, 4001)
    grid = np.stack([np.stack([x, np.full_like(x, bit)], axis=-1)[:, None] for bit in (0.0, 1.0)]).reshape(
        1, -1, 1, 2
    )
    density = np.exp(proposals.log_density(context(samples), grid))
    unit = (x[1] - x[0]) / 2.0
    assert density.sum() * unit == pytest.approx(1.0, abs=1e-4)


class TestNoise:
    def test_deviations_have_the_stated_covariance(self):
        space = ChunkSpace(WIDE, horizon=4, shared=0.85, rotation_scale=0.4)
        white = 0.2 * normals(stream_keys(np.array([3]), 0), 40_000 * space.dimension)
        deviation = space.deviation(white.reshape(40_000, space.dimension))
        unit = deviation / (0.5 * (WIDE.high - WIDE.low))[:4]
        expected = 0.2**2 * (0.85 * np.ones((4, 4)) + 0.15 * np.eye(4))
        for index, factor in ((0, 1.0), (2, 1.0), (3, 0.4)):
            np.testing.assert_allclose(np.cov(unit[..., index].T), factor**2 * expected, atol=1e-3)
        assert abs(np.corrcoef(unit[:, 0, 0], unit[:, 0, 1])[0, 1]) < 0.02

    def test_whitening_undoes_the_noise(self):
        space = ChunkSpace(ARM, horizon=5)
        white = normals(stream_keys(np.array([1, 2]), 0), space.dimension) * 0.1
        centre = np.zeros((2, 5, 7))
        moved = centre.copy()
        moved[..., space.continuous] += space.deviation(white)
        np.testing.assert_allclose(space.whiten(moved) - space.whiten(centre), white, atol=1e-12)

    def test_numbers_are_uniform_and_normal_and_streams_differ(self):
        keys = stream_keys(np.arange(3), np.array([0, 0, 1]))
        uniform, normal = uniforms(keys, 50_000), normals(keys, 50_001)
        assert ((uniform > 0.0) & (uniform < 1.0)).all()
        for row in range(3):
            assert stats.kstest(uniform[row], "uniform").pvalue > 1e-3
            assert stats.kstest(normal[row], "norm").pvalue > 1e-3
        both = np.corrcoef(np.concatenate([uniforms(stream_keys(np.array([7]), s), 5000) for s in range(4)]))
        assert np.abs(both - np.eye(4)).max() < 0.06

    def test_a_gripper_is_flipped_for_a_whole_chunk_as_often_as_asked(self):
        samples = policy_samples(ARM, 300, 1, 6).chunks
        drawn = KernelProposals(ARM, flip_probability=0.1).propose(context(samples), 21, keep_policy=True)
        same = drawn.chunks[..., 6] == samples[:, :1, :, 6]
        assert (same.all(axis=2) | ~same.any(axis=2)).all()
        assert (~same[:, 1:, 0]).mean() == pytest.approx(0.1, abs=0.015)


class TestAccounting:
    def test_every_kernel_and_bandwidth_gets_its_turn(self):
        """Recover each draw's centre and width: centres are far apart, widths tiny and distinct."""
        samples = policy_samples(ARM, 1, 4, 8, seed=9).chunks
        proposals = KernelProposals(ARM, (PolicyKernels(1.0, (1e-4, 1e-2)),), flip_probability=0.0)
        chunks = proposals.propose(context(samples), 41, keep_policy=True).chunks[0, 1:]
        distance = ((chunks[:, None] - samples[0]) ** 2)[..., :6].sum(axis=(2, 3))
        centre = distance.argmin(axis=1)
        wide = np.sqrt(distance.min(axis=1)) > 5e-3
        assert [[int(((centre == i) & (wide == w)).sum()) for w in (False, True)] for i in range(4)] == [
            [5, 5]
        ] * 4

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 32, 33])
    def test_shares_are_kept_to_the_rounding(self, count):
        samples = policy_samples(ARM, 2, 3, 8).chunks
        sources = (PolicyKernels(0.5), RetrievedKernels(FixedMemory(), 16, 0.5))
        drawn = KernelProposals(ARM, sources).propose(context(samples), count, keep_policy=True)
        for row in drawn.source:
            assert (row == 0).sum() == 1
            assert row[0] == 0
            assert abs((row == 2).sum() - count / 2) <= 0.5

    def test_a_prefix_of_an_inner_nodes_candidates_is_a_sample_of_all_sources(self):
        samples = policy_samples(ARM, 200, 3, 8).chunks
        sources = (PolicyKernels(0.5), RetrievedKernels(FixedMemory(), 16, 0.5))
        drawn = KernelProposals(ARM, sources).propose(context(samples), 8, keep_policy=False)
        assert (drawn.source[:, 0] == 2).mean() == pytest.approx(0.5, abs=0.12)
        assert ((drawn.source == 2).sum(axis=1) == 4).all()

    def test_nodes_of_one_tree_and_seeds_of_one_node_draw_differently(self):
        samples = np.repeat(policy_samples(ARM, 1, 2, 8).chunks, 3, axis=0)
        drawn = KernelProposals(ARM).propose(context(samples, [5, 5, 6], [1, 2, 1]), 4, keep_policy=False)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert not np.isclose(drawn.chunks[a], drawn.chunks[b]).all(axis=(1, 2)).any()


class TestWhateverTheState:
    def test_its_kernels_stand_on_chunks_of_the_memory_evenly_chosen(self):
        memory, samples = FixedMemory(), policy_samples(ARM, 2, 4, 8).chunks
        proposals = kernel_proposals(ARM, memory, offline_share=1.0, offline_kernels=5, bandwidths=(1e-4,))
        assert proposals.source_names == ("policy", "dataset")
        drawn = proposals.propose(context(samples), 11, keep_policy=True)
        np.testing.assert_array_equal(drawn.chunks[:, 0], samples[:, 0])
        centres = memory.all_chunks()[[0, 9, 19, 29, 39]]
        for row in range(2):
            distance = np.abs(drawn.chunks[row, 1:, None] - centres).max(axis=(2, 3))
            assert np.bincount(distance.argmin(axis=1)).tolist() == [2, 2, 2, 2, 2]
            assert distance.min(axis=1).max() < 1e-3
        assert memory.asked == []

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"offline_share": 0.25}, {"policy_kernels": 14, "averaged": 15, "dataset": 10}),
            ({"offline_share": 0.25, "memory_share": 0.0}, {"policy_kernels": 29, "dataset": 10}),
            ({"offline_share": 0.5, "primitive_share": 0.25, "memory_share": 0.5},
             {"policy_kernels": 4, "averaged": 5, "dataset": 20, "primitives": 10}),
            ({"offline_share": 0.3, "primitive_share": 0.7}, {"dataset": 11, "primitives": 28}),
            ({"offline_share": 1.0}, {"dataset": 39}),
        ],
    )  # fmt: skip
    def test_the_other_sources_share_what_it_leaves(self, options, expected):
        proposals = kernel_proposals(ARM, FixedMemory(), **options)
        drawn = proposals.propose(context(policy_samples(ARM, 1, 4, 8).chunks), 40, keep_policy=True)
        used = np.bincount(drawn.source[0], minlength=len(proposals.source_names)).tolist()
        assert dict(zip(proposals.source_names, used)) == {"policy": 1, **expected}
        assert sum(source.share for source in proposals.sources) == pytest.approx(1.0)

    def test_the_density_is_that_of_the_whole_mixture(self):
        samples, memory = policy_samples(ARM, 1, 2, 3).chunks, FixedMemory(horizon=3)
        widths = (0.1, 0.4)
        proposals = kernel_proposals(
            ARM, memory, memory_share=0.5, neighbours=4, average_over=None, bandwidths=widths,
            flip_probability=0.2, offline_share=0.4, offline_kernels=6,
        )  # fmt: skip
        here = context(samples)
        drawn = proposals.propose(here, 20, keep_policy=True)
        chosen = memory.all_chunks()[np.linspace(0, 39, 6).astype(int)]
        nearest = memory.nearest(here.latent, here.instruction, 4)[0]
        parts = [(0.3, samples[0], widths), (0.3, nearest, widths), (0.4, chosen, widths)]
        expected = reference_log_density(ARM, drawn.chunks[0], parts, 0.85, 0.4, 0.2)
        np.testing.assert_allclose(drawn.log_density[0], expected, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("memory_share", [0.0, 0.5])
    def test_without_a_share_nothing_changes(self, memory_share):
        samples, memory = policy_samples(ARM, 2, 4, 8).chunks, FixedMemory()
        given = kernel_proposals(ARM, memory, memory_share=memory_share, offline_share=0.0, offline_kernels=3)
        sources = (PolicyKernels(1.0 - memory_share, (0.02,)),)
        if memory_share:
            sources += (AveragedKernels(ARM, memory, (4, 8, 16, 32), memory_share, (0.02,)),)
        plain = KernelProposals(ARM, sources, flip_probability=0.0)
        ours, theirs = (each.propose(context(samples), 20, keep_policy=True) for each in (given, plain))
        for name in ("chunks", "source", "prior", "log_density"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@settings(max_examples=15, deadline=None)
@given(
    shares=st.lists(st.floats(0.05, 1.0), min_size=5, max_size=5),
    count=st.integers(1, 40),
    flip=st.sampled_from([0.0, 0.2]),
    keep=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_candidate_of_every_source_is_accounted_for_and_has_the_mixtures_density(
    shares, count, flip, keep, seed
):
    samples, memory = policy_samples(ARM, 1, 2, 3, seed=seed).chunks, FixedMemory(horizon=3)
    sources = (
        PolicyKernels(shares[0], (0.1, 0.4)),
        RetrievedKernels(memory, 4, shares[1], (0.2,)),
        AveragedKernels(ARM, memory, (1, 3), shares[2], (0.3,)),
        DatasetKernels(memory.all_chunks()[:6], shares[3], (0.5,)),
        PrimitiveKernels(ARM, 0.5, shares[4], (0.1, 0.2)),
    )
    proposals = KernelProposals(ARM, sources, flip_probability=flip)
    here = context(samples, [seed])
    drawn = proposals.propose(here, count, keep_policy=keep)
    used = np.bincount(drawn.source[0], minlength=6)
    assert used[0] == int(keep)
    assert used.sum() == count
    each = used[1:] + int(keep) * np.eye(5)  # the policy's own slot is one of some source's
    apart = np.abs(each - count * np.array(shares) / sum(shares))
    assert (apart < 1.0 + 1e-9).all(axis=1).any()
    assert drawn.prior.sum() == pytest.approx(1.0)
    parts = [(s.share, np.broadcast_to(s.centres(here), (1, *s.centres(here).shape[1:]))[0], s.bandwidths)
             for s in sources]  # fmt: skip
    expected = reference_log_density(ARM, drawn.chunks[0], parts, 0.85, 0.4, flip)
    np.testing.assert_allclose(drawn.log_density[0], expected, rtol=1e-6, atol=1e-6)


def test_chunks_are_inside_the_bounds_and_slot_zero_is_the_policys():
    samples = policy_samples(WIDE, 3, 2, 5).chunks
    samples[:, 1] = WIDE.high
    drawn = KernelProposals(WIDE, (PolicyKernels(1.0, (0.5,)),)).propose(
        context(samples), 40, keep_policy=True
    )
    assert (drawn.chunks >= WIDE.low).all()
    assert (drawn.chunks <= WIDE.high).all()
    assert set(np.unique(drawn.chunks[..., 4])) == {np.float32(0.0), np.float32(0.08)}
    np.testing.assert_array_equal(drawn.chunks[:, 0], samples[:, 0])


def test_the_prior_is_uniform_where_no_candidate_has_density():
    prior = _softmax(np.array([[-np.inf, -np.inf], [0.0, -np.inf]]), 1.0)
    np.testing.assert_array_equal(prior, [[0.5, 0.5], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: DatasetKernels(np.zeros((0, 8, 7))), r"n >= 1"),
        (lambda: DatasetKernels(np.full((2, 8, 7), np.nan)), "finite"),
        (lambda: AveragedKernels(ARM, FixedMemory(), over=()), "numbers of neighbours"),
        (lambda: AveragedKernels(ARM, FixedMemory(), over=(4, 0)), "numbers of neighbours"),
        (lambda: AveragedPolicyKernels(ARM, over=()), "numbers of samples"),
        (lambda: kernel_proposals(ARM, policy_average_over=[0]), "numbers of samples"),
        (lambda: PrimitiveKernels(ARM, reach=0.0), "reach"),
        (lambda: kernel_proposals(ARM, primitive_share=1.0), "primitive_share"),
        (lambda: kernel_proposals(ARM, FixedMemory(), offline_share=1.1), r"\[0, 1\]"),
        (lambda: kernel_proposals(ARM, FixedMemory(), offline_share=-0.1), "offline_share=-0.1"),
        (
            lambda: kernel_proposals(ARM, FixedMemory(), offline_share=0.6, primitive_share=0.5),
            "offline_share=0.6 and primitive_share=0.5",
        ),
        (lambda: kernel_proposals(ARM, offline_share=0.5), "memory=None"),
        (
            lambda: kernel_proposals(ARM, FixedMemory(), offline_share=0.5, offline_kernels=0),
            "offline_kernels",
        ),
        (lambda: KernelProposals(ARM, (PolicyKernels(),) * 8), "at most 7"),
        (lambda: KernelProposals(ARM, ()), "positive share"),
        (lambda: KernelProposals(ARM, (PolicyKernels(-1.0),)), "policy_kernels"),
        (lambda: KernelProposals(ARM, (PolicyKernels(1.0, (0.1, 0.0)),)), "Bandwidths"),
        (lambda: KernelProposals(ARM, flip_probability=1.0), "flip_probability"),
        (lambda: KernelProposals(ARM, temperature=0.0), "temperature"),
        (lambda: ChunkSpace(ARM, 8, shared=1.0), "shared"),
        (lambda: ChunkSpace(ARM, 8, rotation_scale=0.0), "rotation_scale"),
    ],
)
def test_bad_settings_are_refused(build, words):
    with pytest.raises(ForethoughtError, match=words):
        build()
