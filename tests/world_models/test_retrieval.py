import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError
from forethought.world_models import retrieval
from forethought.world_models.retrieval import RetrievalMemory


@pytest.fixture
def memory():
    keys = np.array([[0, 0], [1, 0], [2, 0], [0, 0]], np.float32)
    chunks = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 2, 3), np.float32)
    return RetrievalMemory(keys, chunks, np.array([0, 0, 0, 1]), ["soup", "milk"], np.ones(2))


def test_nearest_first_and_only_of_the_same_instruction(memory):
    found = memory.nearest(torch.tensor([[1.6, 0.0], [1.6, 0.0]]), ["soup", "milk"], 2)
    assert found.shape == (2, 2, 2, 3)
    assert found[0, :, 0, 0].tolist() == [2, 1]
    assert found[1, :, 0, 0].tolist() == [3, 3]


def test_particles_are_averaged(memory):
    found = memory.nearest(torch.tensor([[[0.0, 0.0], [4.0, 0.0]]]), ["soup"], 1)
    assert found[0, 0, 0, 0] == 2


def test_weights_change_what_is_near(memory):
    weighted = RetrievalMemory(
        np.array([[0, 3], [2, 0]]), memory.chunks[:2], np.zeros(2, int), ["soup"], np.array([1, 0.1])
    )
    assert weighted.nearest(torch.zeros(1, 2), ["soup"], 1)[0, 0, 0, 0] == 0


def test_unknown_instruction_searches_everything(memory):
    assert memory.nearest(torch.tensor([[2.0, 0.0]]), ["open the drawer"], 1)[0, 0, 0, 0] == 2


def test_saved_memory_finds_the_same(memory, tmp_path):
    memory.save(tmp_path)
    again = retrieval.load(tmp_path)
    query = torch.tensor([[0.7, 0.0]])
    np.testing.assert_array_equal(again.nearest(query, ["soup"], 3), memory.nearest(query, ["soup"], 3))
    assert again.instructions == memory.instructions


def test_empty_memory_is_refused():
    with pytest.raises(ForethoughtError, match="n > 0"):
        RetrievalMemory(np.zeros((0, 2)), np.zeros((0, 2, 3)), np.zeros(0), [], np.ones(2))
