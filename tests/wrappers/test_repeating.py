"""Rows are repeated next to one another, and nothing that was given changes."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import torch

from forethought.wrappers.repeating import repeated_queues, repeated_rows, shared_prefix


class Cache:
    """Keys of an attention, as transformers' caches repeat them: in place."""

    def __init__(self) -> None:
        self.keys = torch.tensor([1.0, 2.0])

    def batch_repeat_interleave(self, n: int) -> None:
        self.keys = self.keys.repeat_interleave(n)


def test_everything_that_has_rows_has_each_of_them_n_times():
    cache = Cache()
    given = {"state": torch.tensor([[1.0], [2.0]]), "task": ["a", "b"], "layers": [torch.tensor([3.0, 4.0])]}
    given |= {"cache": cache, "weights": torch.zeros(5), "note": "kept"}
    repeated = repeated_rows(given, rows=2, n=3)
    assert repeated["state"][:, 0].tolist() == [1, 1, 1, 2, 2, 2]
    assert repeated["task"] == ["a", "a", "a", "b", "b", "b"]
    assert repeated["layers"][0].tolist() == [3, 3, 3, 4, 4, 4]
    assert repeated["cache"].keys.tolist() == [1, 1, 1, 2, 2, 2]
    assert repeated["weights"].shape == (5,)
    assert repeated["note"] == "kept"
    assert cache.keys.tolist() == [1, 2]


def test_queues_come_back_as_they_were():
    queue = deque([torch.tensor([1.0, 2.0])], maxlen=2)
    policy = SimpleNamespace(_queues={"state": queue})
    with repeated_queues(policy, rows=2, n=2) as repeat:
        repeat()
        assert policy._queues["state"][0].tolist() == [1, 1, 2, 2]
        assert policy._queues["state"].maxlen == 2
        policy._queues["state"].append(torch.zeros(4))
    assert policy._queues["state"] is queue
    assert len(queue) == 1


def test_a_denoising_step_gets_what_belongs_to_each_noise_and_the_model_its_method_back():
    class Model:
        def denoise_step(self, x_t, state):
            return x_t + state

    model = Model()
    with shared_prefix(model, rows=2, n=2):
        moved = model.denoise_step(x_t=torch.zeros(4), state=torch.tensor([1.0, 2.0]))
    assert moved.tolist() == [1, 1, 2, 2]
    assert "denoise_step" not in vars(model)
