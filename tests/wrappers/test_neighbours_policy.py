import numpy as np
import pytest

from forethought.experiments.benchmarks.libero import ACTION_SPEC
from forethought.interfaces import ForethoughtError, Observation, Policy
from forethought.world_models.retrieval import RetrievalMemory
from forethought.wrappers.models import Models
from forethought.wrappers.policies import neighbours
from forethought.wrappers.policies.neighbours import NeighboursPolicy


class Body:
    """An encoder that passes the first two numbers of the proprioception on."""

    def encode(self, observation):
        return observation.proprioception[:, :2]


@pytest.fixture
def memory():
    rng = np.random.default_rng(0)
    keys = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    chunks = ACTION_SPEC.clip(rng.uniform(-1, 1, (10, 4, 7)).astype(np.float32))
    return RetrievalMemory(keys, chunks, np.zeros(10, int), ["push"], np.ones(2))


def policy_over(memory, neighbours):
    return NeighboursPolicy(Models(Body(), None, memory), ACTION_SPEC, 4, neighbours)  # type: ignore[arg-type]


def at(*places):
    body = np.zeros((len(places), 8), np.float32)
    body[:, 0] = places
    return Observation({}, body, ("push",) * len(places))


def test_the_mean_of_the_nearest_chunks_is_executed(memory):
    policy = policy_over(memory, 3)
    assert isinstance(policy, Policy)
    chunks = policy.propose(at(5.0, 0.0), 1, np.zeros(2, np.int64)).chunks
    assert chunks.shape == (2, 1, 4, 7)
    np.testing.assert_allclose(chunks[0, 0, :, :3], memory.chunks[4:7, :, :3].mean(0), atol=1e-6)
    np.testing.assert_allclose(chunks[1, 0, :, :3], memory.chunks[0:3, :, :3].mean(0), atol=1e-6)
    assert set(np.unique(chunks[..., 6])) <= {-1.0, 1.0}
    np.testing.assert_array_equal(policy.act(at(5.0)), chunks[:1, 0])


def test_further_samples_are_single_neighbours(memory):
    chunks = policy_over(memory, 3).propose(at(2.0), 6, np.zeros(1, np.int64)).chunks
    assert chunks.shape == (1, 6, 4, 7)
    np.testing.assert_allclose(chunks[0, 1], memory.chunks[2])


def test_no_neighbours_are_refused(memory):
    with pytest.raises(ForethoughtError, match="at least 1"):
        policy_over(memory, 0)


def test_a_folder_without_a_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbours, "load_models", lambda folder: Models(Body(), None))  # type: ignore[arg-type]
    with pytest.raises(ForethoughtError, match="retrieval memory"):
        neighbours.load(tmp_path)
