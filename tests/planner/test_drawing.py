"""The compiled loops of drawing against the array formulas that they replace."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from planner_fakes import ARM

from forethought.interfaces import ActionSpec
from forethought.planner import ChunkSpace
from forethought.planner.chunk_space import clipped
from forethought.planner.drawing import draw_evenly
from forethought.planner.lanes import LANES, describe, describe_centres
from forethought.planner.noise import normals, stream_keys, uniforms

STEP, FIRST, SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))

UNEVEN = dataclasses.replace(
    ARM, low=-np.array([1, 2, 3, 0.5, 0.1, 1, 0.3]), high=np.array([1, 1, 3, 0.7, 0.1, 1, 1.0])
)
SPECS = {
    "arm": ARM,
    "uneven bounds": UNEVEN,
    "continuous gripper": dataclasses.replace(ARM, gripper_is_binary=False),
    "no gripper": ActionSpec(low=-np.ones(2), high=np.ones(2)),
}


def mixed(state):
    state = (state ^ (state >> np.uint64(30))) * FIRST
    state = (state ^ (state >> np.uint64(27))) * SECOND
    return state ^ (state >> np.uint64(31))


def hashed(seeds, streams, n):
    """SplitMix64 in whole arrays."""
    with np.errstate(over="ignore"):
        streams = np.broadcast_to(streams, seeds.shape).astype(np.uint64)
        keys = mixed(mixed(seeds.view(np.uint64) + STEP) + (streams + np.uint64(1)) * STEP)
        bits = mixed(keys[:, None] + np.arange(1, n + 1, dtype=np.uint64) * STEP) >> np.uint64(11)
    return keys, (bits.astype(np.float64) + 0.5) * 2.0**-53


@pytest.mark.parametrize("stream", [-1, 7, "each its own"])
def test_the_hash_is_splitmix64_to_the_bit(stream):
    draw = np.random.default_rng(0)
    seeds = draw.integers(-(2**62), 2**62, 50)
    streams = draw.integers(-5, 10**6, 50) if stream == "each its own" else stream
    keys, expected = hashed(seeds, streams, 33)
    np.testing.assert_array_equal(stream_keys(seeds, streams), keys)
    np.testing.assert_array_equal(uniforms(keys, 33), expected)


@pytest.mark.parametrize("n", [1, 2, 7, 48])
def test_normals_are_box_muller_of_the_uniforms(n):
    keys = stream_keys(np.arange(20), 3)
    pairs = (n + 1) // 2
    uniform = uniforms(keys, 2 * pairs)
    radius, angle = np.sqrt(-2.0 * np.log(uniform[:, :pairs])), 2.0 * np.pi * uniform[:, pairs:]
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :n]
    np.testing.assert_allclose(normals(keys, n), expected, rtol=0.0, atol=1e-14)


@pytest.mark.parametrize("horizon", [1, 5, 8])
@pytest.mark.parametrize("name", SPECS)
def test_perturbing_is_the_deviation_added_flipped_and_clipped_to_the_bit(name, horizon):
    spec = SPECS[name]
    space, draw = ChunkSpace(spec, horizon), np.random.default_rng(1)
    centres = draw.uniform(-1.5, 1.5, (6, 4, horizon, spec.size)).astype(np.float32)
    white = draw.normal(size=(6, 4, space.dimension))
    flip = draw.random((6, 4, space.gripper.size)) < 0.3
    expected = centres.astype(np.float64)
    expected[..., space.continuous] += space.deviation(white)
    bits = expected[..., space.gripper]
    mirrored = 2.0 * space.middle[space.gripper] - bits
    expected[..., space.gripper] = np.where(flip[..., None, :], mirrored, bits)
    np.testing.assert_array_equal(space.perturb(centres, white, flip), spec.clip(expected))


def test_a_centre_on_the_middle_or_not_finite_is_clipped_as_the_bounds_say():
    """A gripper exactly between closes as ``ActionSpec.clip`` has it; what is not a number stays none."""
    space = ChunkSpace(ARM, 2)
    centres = np.zeros((1, 2, 2, 7), np.float32)
    centres[0, 1, 0, 0], centres[0, 1, 1, 1] = np.nan, np.inf
    white, flip = np.zeros((1, 2, space.dimension)), np.zeros((1, 2, 1), bool)
    found = space.perturb(centres, white, flip)
    np.testing.assert_array_equal(found, ARM.clip(centres))
    assert np.isnan(found[0, 1, 0, 0]) and found[0, 1, 1, 1] == 1.0
    assert (found[..., 6] == -1.0).all()


@pytest.mark.parametrize("name", SPECS)
def test_whitening_undoes_the_deviation(name):
    spec = SPECS[name]
    space, draw = ChunkSpace(spec, 8), np.random.default_rng(2)
    white = 0.01 * draw.normal(size=(6, 4, space.dimension))
    middle = np.broadcast_to(space.middle, (6, 4, 8, spec.size)).copy()
    middle[..., space.continuous] += space.deviation(white)
    np.testing.assert_allclose(space.whiten(middle), white, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("number", [1, 7, 8, 9, 20])
def test_many_chunks_at_once_are_drawn_as_the_formulas_say_to_the_bit(name, number):
    """Evenly spaced ranks of (bandwidth, centre), noise and flips from streams of their own."""
    spec = SPECS[name]
    space, rows, kernels, widths = ChunkSpace(spec, 5), 3, 4, np.array([0.1, 0.3])
    centres = spec.clip(
        np.random.default_rng(3).uniform(-1, 1, (rows, kernels, 5, spec.size)).astype(np.float32)
    )
    seeds, nodes, entry = np.array([5, 5, 9]), np.array([1, 2, 1]), np.array([2, 0, 2])
    out = np.full((rows, number + 3, 5, spec.size), 7.0, np.float32)
    label = np.zeros(out.shape[:2], np.int8)
    draw_evenly(seeds, nodes, 3, (2, number), centres, entry, widths, 0.4, space.geometry, out, label)

    keys = stream_keys(seeds, nodes * 8 + 3).view(np.int64)
    uniform = uniforms(stream_keys(keys, 0), 1 + number * space.gripper.size)
    rank = ((np.arange(number) + uniform[:, :1]) * (kernels * 2 / number)).astype(int)
    white = normals(stream_keys(keys, 1), number * space.dimension).reshape(rows, number, space.dimension)
    flip = uniform[:, 1:].reshape(rows, number, space.gripper.size) < 0.4
    around = centres[entry[:, None], rank % kernels]
    expected = space.perturb(around, white * widths[rank // kernels][..., None], flip)
    np.testing.assert_array_equal(out[:, 2 : 2 + number], expected)
    assert (out[:, [0, 1, -1]] == 7.0).all()
    assert (label[:, 2 : 2 + number] == 4).all()
    assert not label[:, [0, 1, -1]].any()


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("count", [1, 8, 11])
def test_a_description_is_the_whitened_chunk_and_a_bit_for_every_step_of_a_gripper(name, count):
    spec = SPECS[name]
    space, horizon = ChunkSpace(spec, 70), 70
    chunks = np.random.default_rng(4).uniform(-1, 1, (count, horizon, spec.size)).astype(np.float32)
    value, words = describe(chunks, space.geometry)
    found = value.reshape(-1, space.dimension, LANES).swapaxes(1, 2).reshape(-1, space.dimension)[:count]
    np.testing.assert_array_equal(found, space.whiten(chunks))
    bits = (
        words[..., np.arange(horizon) // 64] >> np.arange(horizon, dtype=np.uint64) % np.uint64(64)
    ) & np.uint64(1)
    np.testing.assert_array_equal(bits.astype(float) * 2.0 - 1.0, space.signs(chunks))


@pytest.mark.parametrize("name", SPECS)
def test_centres_are_described_as_chunks_are_but_run_fastest(name):
    spec, rows, count, horizon = SPECS[name], 2, 5, 70
    space = ChunkSpace(spec, horizon)
    centres = np.random.default_rng(6).uniform(-1, 1, (rows, count, horizon, spec.size)).astype(np.float32)
    white = np.empty((rows, space.dimension, count))
    words = np.empty((rows, space.gripper.size, 2, count), np.uint64)
    describe_centres(centres, space.geometry, white, words)
    np.testing.assert_array_equal(white.swapaxes(1, 2), space.whiten(centres))
    _, expected = describe(centres.reshape(-1, horizon, spec.size), space.geometry)
    np.testing.assert_array_equal(np.moveaxis(words, -1, 1).reshape(expected.shape), expected)


@pytest.mark.parametrize("name", SPECS)
def test_clipping_in_one_pass_is_what_the_action_spec_does(name):
    spec = SPECS[name]
    chunks = np.random.default_rng(5).uniform(-4, 4, (3, 4, 6, spec.size)).astype(np.float32)
    chunks[0, 0, :, -1] = 0.5 * (spec.low + spec.high)[-1]
    chunks[1, 0, 0], chunks[1, 1, 0] = np.nan, np.inf
    np.testing.assert_array_equal(clipped(chunks, spec), spec.clip(chunks))
