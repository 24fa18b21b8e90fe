"""Pretrained eyes, built tiny and with random weights: every family gives patch tokens that a tower reads."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError, Observation

pytest.importorskip("transformers")

import transformers

from forethought.world_models import latent as latent_model
from forethought.world_models.backbone import FrozenBackbone, FrozenTower, load_backbone
from forethought.world_models.dynamics import ChunkDynamics
from forethought.world_models.encoder import CONTEXT_SIZE, ObservationEncoder
from forethought.world_models.latent import LatentWorldModel

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
IMAGE = {**SMALL, "image_size": 32, "patch_size": 8}


def family(name):
    torch.manual_seed(0)
    if name == "dinov2":
        return transformers.Dinov2Model(transformers.Dinov2Config(**IMAGE, mlp_ratio=1))
    if name == "dinov2_registers":
        config = transformers.Dinov2WithRegistersConfig(**IMAGE, mlp_ratio=1, num_register_tokens=3)
        return transformers.Dinov2WithRegistersModel(config)
    if name == "dinov3":
        return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**IMAGE, num_register_tokens=4))
    if name == "siglip":
        return transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**IMAGE))
    if name == "siglip2":
        config = transformers.Siglip2VisionConfig(**SMALL, patch_size=8, num_patches=16)
        return transformers.Siglip2VisionModel(config)
    config = transformers.VJEPA2Config(
        **SMALL,
        crop_size=32,
        patch_size=8,
        frames_per_clip=2,
        tubelet_size=2,
        mlp_ratio=1,
        pred_hidden_size=16,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    return transformers.VJEPA2Model(config)


FAMILIES = ["dinov2", "dinov2_registers", "dinov3", "siglip", "siglip2", "vjepa2"]


def pixels(batch=2, size=32):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_one_token_a_patch(name):
    eyes = FrozenBackbone(family(name), 32)
    found = eyes.tokens(pixels())
    assert found.shape == (2, 16, 16)
    assert not found.requires_grad
    torch.testing.assert_close(eyes.tokens(pixels()[1:]), found[1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_stand_in_the_order_of_the_patches(name):
    """Where the model is cut down to its patch embedding, only the patch that changed has another token."""
    model = family(name)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == 1:
            module[0] = Nothing(name == "vjepa2")
    eyes, before = FrozenBackbone(model, 32), pixels(1)
    after = before.clone()
    after[:, :, 8:16, 16:24] += 0.5  # second row, third column
    apart = (eyes.tokens(after) - eyes.tokens(before)).abs().amax(dim=2)[0]
    assert apart.argmax() == 6 and (apart > 1e-6).sum() == 1


class Nothing(torch.nn.Module):
    """A layer that does nothing, and returns it alone or as the first of two."""

    def __init__(self, two):
        super().__init__()
        self.two = two

    def forward(self, hidden, *args, **kwargs):
        return (hidden, None) if self.two else hidden


def test_a_tower_reads_pictures_and_their_tokens_alike():
    eyes = FrozenBackbone(family("dinov2"), 32)
    tower = FrozenTower(eyes, 8)
    text = torch.randn(3, 8)
    image = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    seen = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 127.5 - 1
    tokens = torch.from_numpy(eyes.precompute(image, batch=2))
    assert tokens.dtype == torch.float16
    torch.testing.assert_close(tower(tokens, text), tower(seen, text), atol=2e-2, rtol=0)
    assert not torch.allclose(tower(seen, text), tower(seen, -text))


def test_the_backbone_is_in_no_checkpoint_and_in_no_copy():
    eyes = FrozenBackbone(family("dinov2"), 32)
    tower = FrozenTower(eyes, 8)
    assert not any(name.startswith("backbone") for name in tower.state_dict())
    assert copy.deepcopy(tower).backbone is eyes
    assert all(parameter.requires_grad for parameter in tower.parameters())


@pytest.fixture
def folder(tmp_path):
    family("dinov2").save_pretrained(tmp_path / "eyes")
    return tmp_path / "eyes"


def test_a_world_model_with_frozen_eyes_is_saved_without_them_and_finds_them_again(folder, tmp_path):
    encoder = ObservationEncoder(["wrist"], image_size=32, features=4, backbone=str(folder))
    size = encoder.latent_size + CONTEXT_SIZE
    model = LatentWorldModel(
        encoder, ChunkDynamics(size, CONTEXT_SIZE, 4, 7, members=2, hidden=16), privileged_supervision=False
    )
    image = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    seen = Observation({"wrist": image}, np.zeros((2, 8), np.float32), ("pick",) * 2)
    found = model.encode(seen)
    model.save(tmp_path, {})
    again = latent_model.load(tmp_path)
    torch.testing.assert_close(again.encode(seen), found, atol=1e-2, rtol=0)


def test_the_folder_says_how_colours_are_scaled(folder):
    plain = load_backbone(str(folder), 32).tokens(pixels())
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1] * 3, "image_std": [0.9] * 3})
    )
    assert not torch.allclose(load_backbone(str(folder), 32).tokens(pixels()), plain)


def test_a_missing_model_and_an_odd_size_say_what_to_do(folder):
    with pytest.raises(ForethoughtError, match="download it first"):
        load_backbone(str(folder / "nowhere"), 32)
    with pytest.raises(ForethoughtError, match="Take 32"):
        load_backbone(str(folder), 30)
