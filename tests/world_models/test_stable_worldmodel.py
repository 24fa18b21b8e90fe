"""Models of stable-worldmodel's three families, by stand-ins with the same methods and shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from forethought.interfaces import ForethoughtError, Observation, WorldModel
from forethought.world_models import stable_worldmodel
from forethought.world_models.stable_worldmodel import StableWorldModel

H, A, P = 4, 2, 3


class Predictor(nn.Module):
    num_frames = 2


class Lewm(nn.Module):
    """The vector adds up what the actions of the last ``num_frames`` frames push."""

    def __init__(self):
        super().__init__()
        self.predictor = Predictor()
        self.action_encoder = nn.Linear(A, 5, bias=False)
        self.windows = []

    def encode(self, info):
        assert info["pixels"].ndim == 5
        info["emb"] = info["pixels"].mean(dim=(2, 3, 4))[..., None].expand(-1, -1, 5)
        return info

    def predict(self, emb, moves):
        assert emb.shape == moves.shape
        self.windows.append(emb.shape[1])
        return emb + moves


class Embedder(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.in_chans, self.emb_dim = size, 2
        self.net = nn.Linear(size, 2, bias=False)

    def forward(self, x):
        return self.net(x)


class DinoWm(nn.Module):
    """Tokens of 6 numbers: 2 of the picture, 2 of proprioception, 2 of the action."""

    history_size = 2

    def __init__(self, block):
        super().__init__()
        self.extra_encoders = nn.ModuleDict({"proprio": Embedder(P), "action": Embedder(block * A)})

    def encode(self, info):
        tokens = info["pixels"].mean(dim=(2, 3, 4))[..., None, None].expand(-1, -1, 4, 2)
        parts = [tokens]
        for key in ("proprio", "action"):
            parts.append(self.extra_encoders[key](info[key])[:, :, None].expand(-1, -1, 4, -1))
        info["emb"] = torch.cat(parts, dim=-1)
        return info

    def replace_action_in_embedding(self, embedding, act):
        assert embedding.ndim == 5 and act.ndim == 4
        moved = self.extra_encoders["action"](act)[:, :, :, None].expand(-1, -1, -1, embedding.shape[3], -1)
        return torch.cat([embedding[..., :4], moved], dim=-1)

    def predict(self, embedding):
        assert embedding.shape[1] <= self.history_size
        return torch.cat([embedding[..., :2] + embedding[..., 4:], embedding[..., 2:]], dim=-1)


class Tdmpc2(nn.Module):
    def __init__(self):
        super().__init__()
        self.sim_norm = nn.Identity()
        self.body = nn.Linear(P, 5)

    def encode(self, obs):
        assert obs["pixels"].ndim == 4
        return self.body(obs["state"]) + obs["pixels"].mean(dim=(1, 2, 3))[:, None]

    def dynamics(self, both):
        return both[:, :5] + both[:, 5:6]


def adapted(model, **changes):
    torch.manual_seed(0)
    options = {"horizon": H, "action_size": A, "camera": "front", "image_size": 8} | changes
    return StableWorldModel(model, **options)


def observation(batch=2):
    rng = np.random.default_rng(0)
    images = {"front": rng.integers(0, 255, (batch, 16, 16, 3), dtype=np.uint8)}
    return Observation(images, rng.normal(size=(batch, P)).astype(np.float32), ("push",) * batch)


def chunks(batch=2):
    return np.random.default_rng(1).normal(size=(batch, H, A)).astype(np.float32)


FAMILIES = [
    (Lewm(), {}, (5,), "vector"),
    (DinoWm(2), {"block": 2, "proprioception_key": "proprio"}, (4, 6), "tokens"),
    (Tdmpc2(), {"proprioception_key": "state"}, (5,), "vector"),
]


@pytest.mark.parametrize(("model", "options", "shape", "tier"), FAMILIES)
def test_every_family_speaks_the_protocol(model, options, shape, tier):
    world = adapted(model, **options)
    assert isinstance(world, WorldModel)
    assert world.cost.tier == tier
    latent = world.encode(observation())
    assert latent.shape == (2, *shape)
    following = world.step(latent, chunks())
    assert following.latent.shape == latent.shape
    assert not torch.equal(following.latent, latent)
    assert following.disagreement.shape == following.done.shape == (2,)
    alone = world.step(latent[1:], chunks()[1:])
    torch.testing.assert_close(alone.latent, following.latent[1:])


def test_lewm_adds_every_action_and_sees_no_more_frames_than_it_was_trained_on():
    model = Lewm()
    world = adapted(model)
    latent = world.encode(observation())
    found = world.step(latent, chunks()).latent
    torch.testing.assert_close(found, latent + model.action_encoder(torch.from_numpy(chunks())).sum(1))
    assert model.windows == [1, 2, 2, 2]


def test_dino_wm_gets_blocks_of_actions_and_keeps_proprioception():
    model = DinoWm(2)
    world = adapted(model, block=2, proprioception_key="proprio")
    latent = world.encode(observation())
    found = world.step(latent, chunks()).latent
    moves = model.extra_encoders["action"](torch.from_numpy(chunks()).reshape(2, 2, 4)).sum(1)
    torch.testing.assert_close(found[..., :2], latent[..., :2] + moves[:, None])
    torch.testing.assert_close(found[..., 2:4], latent[..., 2:4])


def test_actions_and_proprioception_reach_the_model_in_its_units():
    scale = ([1.0, 2.0], [0.5, 4.0])
    plain, scaled = adapted(Tdmpc2(), proprioception_key="state"), None
    scaled = adapted(plain.model, proprioception_key="state", action=scale)
    latent = plain.encode(observation())
    same = (chunks() - np.float32(scale[0])) / np.float32(scale[1])
    torch.testing.assert_close(scaled.step(latent, chunks()).latent, plain.step(latent, same).latent)
    body = adapted(plain.model, proprioception_key="state", proprioception=([1.0] * P, [2.0] * P))
    assert not torch.allclose(body.encode(observation()), latent)


def test_pictures_are_scaled_as_in_training():
    white = Observation({"front": np.full((1, 8, 8, 3), 255, np.uint8)}, np.zeros((1, P)), ("push",))
    world = adapted(Lewm(), colour=((0.5,) * 3, (0.25,) * 3))
    assert torch.allclose(world.encode(white), torch.full((1, 5), 2.0))


def test_what_does_not_fit_is_named():
    with pytest.raises(ForethoughtError, match="Linear is no world model"):
        adapted(nn.Linear(2, 2))
    with pytest.raises(ForethoughtError, match="multiple of block"):
        adapted(Lewm(), block=3)
    with pytest.raises(ForethoughtError, match="positive deviation of 2"):
        adapted(Lewm(), action=([0.0], [1.0]))
    world = adapted(Lewm())
    with pytest.raises(ForethoughtError, match=r"\[M, 4, 2\]"):
        world.step(world.encode(observation()), np.zeros((2, 5, A), np.float32))
    with pytest.raises(ForethoughtError, match="'front'"):
        world.encode(Observation({}, np.zeros((1, P)), ("push",)))


def test_a_checkpoint_must_be_here_and_the_package_too(tmp_path, monkeypatch):
    with pytest.raises(ForethoughtError, match="nothing is downloaded"):
        stable_worldmodel.load(tmp_path, "someone/weights", horizon=H, action_size=A, camera="front")
    (tmp_path / "weights").mkdir()
    monkeypatch.setitem(__import__("sys").modules, "stable_worldmodel", None)
    with pytest.raises(ForethoughtError, match="pip install stable-worldmodel"):
        stable_worldmodel.load(tmp_path, "weights", horizon=H, action_size=A, camera="front")
