"""The Cosmos pipeline as a world model: a stand-in that takes exactly what diffusers' pipeline takes."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest

from forethought.interfaces import ForethoughtError, Observation, WorldModel

pytest.importorskip("diffusers")

from forethought.world_models.cosmos import CosmosWorldModel

H = 4


class Pipeline:
    """Brightens the picture with every action, by its first number."""

    def __init__(self):
        from diffusers.pipelines.cosmos.pipeline_cosmos3_omni import Cosmos3OmniPipeline

        self.signature = inspect.signature(Cosmos3OmniPipeline.__call__)
        self.asked = []

    def __call__(self, **arguments):
        self.signature.bind(self, **arguments)
        condition = arguments["action"]
        assert condition.mode == "forward_dynamics"
        self.asked.append(arguments)
        first = np.asarray(condition.image, np.float32) / 255
        light = np.concatenate([[0], np.cumsum(condition.raw_actions[:, 0].numpy())])
        return SimpleNamespace(video=np.clip(first + light[:, None, None, None], 0, 1))


def make(**changes):
    options = {"horizon": H, "camera": "front", "domain": "pusht"} | changes
    return CosmosWorldModel(Pipeline(), **options)


def observation(batch=2):
    images = {"front": np.full((batch, 8, 8, 3), 100, np.uint8)}
    return Observation(images, np.zeros((batch, 8), np.float32), tuple(f"task {i}" for i in range(batch)))


def test_it_imagines_every_candidate_from_its_own_picture_and_instruction():
    model = make()
    assert isinstance(model, WorldModel) and model.cost.tier == "foundation"
    latent = model.encode(observation())
    chunks = np.zeros((2, H, 2), np.float32)
    chunks[1, :, 0] = 0.1
    found = model.step(latent, chunks)
    shown = model.decode(found.latent)["front"]
    assert (shown[0] == 100).all() and (shown[1] == 100 + 102).all()
    assert [asked["prompt"] for asked in model.pipeline.asked] == ["task 0", "task 1"]
    again = model.step(found.latent, chunks)
    assert (model.decode(again.latent)["front"][1] == 255).all()
    assert model.film(latent[1], chunks[1]).shape == (H, 8, 8, 3)


def test_equal_candidates_start_from_equal_noise():
    model = make()
    model.step(model.encode(observation()), np.zeros((2, H, 2), np.float32))
    seeds = [asked["generator"].initial_seed() for asked in model.pipeline.asked]
    assert seeds[0] == seeds[1]


def test_chunks_are_turned_into_the_actions_of_the_domain():
    seen = []

    def raw(chunk, proprioception):
        seen.append(proprioception.shape)
        return np.concatenate([chunk, np.zeros((H, 3))], axis=1)

    model = make(domain="bridge_orig_lerobot", actions=raw)
    model.step(model.encode(observation(1)), np.zeros((1, H, 7), np.float32))
    assert model.pipeline.asked[0]["action"].raw_actions.shape == (H, 10)
    assert seen == [(8,)]


def test_actions_that_the_domain_does_not_know_are_refused_with_the_remedy():
    model = make(domain="bridge_orig_lerobot")
    with pytest.raises(ForethoughtError, match=r"width \(7\).*`actions` function"):
        model.step(model.encode(observation(1)), np.zeros((1, H, 7), np.float32))
    with pytest.raises(ForethoughtError, match=r"\[M, 4, A\]"):
        model.step(model.encode(observation(1)), np.zeros((1, 5, 2), np.float32))
    with pytest.raises(ForethoughtError, match="'front'"):
        model.encode(Observation({}, np.zeros((1, 8), np.float32), ("task",)))
