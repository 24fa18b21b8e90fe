"""Weights on disk: what comes back of them."""

from __future__ import annotations

import pytest
import torch

from forethought.weights import load_weights, save_weights, shrink


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    return {
        "linear": normal(128, 64) * torch.logspace(-4, 2, 128)[:, None],
        "convolution": normal(64, 32, 3, 3),
        "ensemble": normal(5, 64, 32) * torch.logspace(-3, 3, 32),
        "chunks": normal(2000, 8, 7),
        "small": normal(8, 8),
        "bias": normal(8192),
        "index": torch.arange(5000).view(50, 100),
        "nothing": torch.zeros(64, 64),
    }


def test_shrunken_weights_are_half_as_large_and_nearly_the_same(tensors, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, "test", {"answer": 42}, tensors)
    before = path.stat().st_size
    _, whole = load_weights(path, "test")
    shrink(path)
    header, found = load_weights(path, "test")
    assert header["answer"] == 42
    assert set(found) == set(tensors)
    assert path.stat().st_size < 0.75 * before
    for name, inputs in {"linear": [1], "convolution": [1, 2, 3], "ensemble": [1], "chunks": [1]}.items():
        largest = tensors[name].abs().amax(dim=inputs, keepdim=True)
        error = (found[name] - tensors[name]).abs()
        assert (error <= largest / 220).all(), name
        assert (error > largest / 2000).any(), name  # it was stored in 8 bits
    for name in ("small", "bias", "index", "nothing"):
        assert torch.equal(found[name], whole[name]), name
        assert found[name].dtype == (torch.int64 if name == "index" else torch.float32)


def test_shrinking_twice_changes_nothing_more(tensors, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, "test", {}, tensors)
    shrink(path)
    once = path.read_bytes()
    shrink(path)
    assert path.read_bytes() == once
