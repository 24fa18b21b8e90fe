import numpy as np
import pytest
import torch

from forethought.experiments.benchmarks.libero import ACTION_SPEC
from forethought.interfaces import ForethoughtError, Observation, Policy
from forethought.wrappers.policies import reference
from forethought.wrappers.policies.reference import FlowPolicyNetwork, ReferencePolicy


@pytest.fixture
def policy():
    torch.manual_seed(0)
    network = FlowPolicyNetwork(("wrist",), 32, features=16, horizon=4, action_size=7, hidden=32)
    return ReferencePolicy(network, ACTION_SPEC, steps=4)


def make_observation(batch=3):
    rng = np.random.default_rng(0)
    images = {"wrist": rng.integers(0, 255, (batch, 32, 32, 3), dtype=np.uint8)}
    return Observation(images, rng.normal(size=(batch, 8)).astype(np.float32), ("pick up the soup",) * batch)


def test_policy_proposes_chunks_inside_the_bounds(policy):
    chunks = policy.propose(make_observation(), 5, np.arange(3)).chunks
    assert isinstance(policy, Policy)
    assert chunks.shape == (3, 5, 4, 7) and chunks.dtype == np.float32
    assert np.abs(chunks).max() <= 1
    assert set(np.unique(chunks[..., 6])) <= {-1.0, 1.0}


def test_sample_zero_is_the_same_bits_however_many_are_drawn(policy):
    observation = make_observation()
    alone = policy.propose(observation, 1, np.arange(3)).chunks[:, 0]
    for n in (2, 8, 33):
        assert np.array_equal(policy.propose(observation, n, np.arange(3)).chunks[:, 0], alone)


def test_rows_do_not_depend_on_their_neighbours(policy):
    observation = make_observation()
    whole = policy.propose(observation, 4, np.arange(3)).chunks
    assert np.array_equal(policy.propose(observation.rows([2]), 4, np.array([2])).chunks[0], whole[2])


def test_seeds_decide_the_draw(policy):
    observation = make_observation(1)
    first = policy.propose(observation, 2, np.array([1])).chunks
    assert np.array_equal(first, policy.propose(observation, 2, np.array([1])).chunks)
    assert not np.array_equal(first, policy.propose(observation, 2, np.array([2])).chunks)


def test_act_repeats_after_reset(policy):
    observation = make_observation(1)
    policy.reset(3)
    first, second = policy.act(observation), policy.act(observation)
    policy.reset(3)
    assert np.array_equal(policy.act(observation), first)
    assert not np.array_equal(first, second)


def test_saved_policy_acts_the_same(policy, tmp_path):
    policy.save(tmp_path / "policy.safetensors")
    again = reference.load(tmp_path, steps=4)
    observation = make_observation()
    before, after = (each.propose(observation, 3, np.arange(3)).chunks for each in (policy, again))
    np.testing.assert_allclose(after[..., :6], before[..., :6], atol=1e-2)
    assert again.action_spec.rotation == (3, 4, 5)


def test_missing_camera_is_named(policy):
    observation = make_observation()
    other = Observation(
        {"front": observation.images["wrist"]}, observation.proprioception, observation.instruction
    )
    with pytest.raises(ForethoughtError, match="wrist"):
        policy.propose(other, 1, np.arange(3))
