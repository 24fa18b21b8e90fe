"""A video world model trained on toy episodes, from the folder to a search over it."""

from __future__ import annotations

import json
from dataclasses import replace

import episodes
import numpy as np
import pytest
import torch
from torch import nn

from forethought.experiments.data.hdf5 import write_episodes
from forethought.experiments.training import loop, stages, video_report
from forethought.experiments.training import video as command
from forethought.experiments.training.dataset import load_episodes
from forethought.experiments.training.video_losses import Windows, codec_loss
from forethought.interfaces import ForethoughtError, Observation
from forethought.world_models.frames import FrameCodec
from forethought.wrappers.models import load_models

pytest.importorskip("diffusers")

OPTIONS = {
    "cameras": (episodes.CAMERA,),
    "image_size": 16,
    "horizon": episodes.HORIZON,
    "discount": 0.9,
    "codec_width": 8,
    "halvings": 1,
    "patch": 4,
    "width": 32,
    "blocks": 1,
    "heads": 2,
    "codec_steps": 120,
    "codec_batch": 32,
    "flow_steps": 250,
    "flow_batch": 48,
    "value_steps": 200,
    "batch": 64,
    "members": 2,
    "memory_entries": 100,
    "imagined": 256,
}


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    return episodes.write(tmp_path_factory.mktemp("rollouts"), 120, skill=0.5)


@pytest.fixture(scope="module")
def trained(rollouts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    return command.train(rollouts=[str(rollouts)], out=str(folder), **OPTIONS)


@pytest.mark.parametrize("instructions", [False, True])
def test_it_multiplies_in_bfloat16_only_where_the_processor_can(rollouts, monkeypatch, instructions):
    monkeypatch.setattr(loop, "multiplies_bfloat16", lambda: instructions)
    codec = FrameCodec((episodes.CAMERA,), image_size=16, width=8, halvings=1)
    multiplied = set()
    for layer in codec.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, given, result: multiplied.add(result.dtype))
    data = load_episodes([rollouts], OPTIONS["cameras"])
    codec_loss(data, 4, "cpu")(codec, torch.Generator().manual_seed(0))
    assert multiplied == {torch.bfloat16 if instructions else torch.float32}


def observation_of(gap):
    body = np.array([[0, 0, 0, 0, 0, 0, 0.04, -0.04]], np.float32)
    return Observation({episodes.CAMERA: episodes.picture(gap)[None]}, body, ("reach the square",))


def towards(gap):
    aim = np.clip(np.asarray(gap) / (0.05 * episodes.HORIZON), -1, 1)
    return np.tile(np.array([*aim, 0, 0, 0, -1], np.float32), (1, episodes.HORIZON, 1))


def test_what_it_imagines_is_nearer_to_what_came_than_standing_still(trained):
    found = json.loads((trained / video_report.REPORT).read_text())
    assert found["position_mm_imagined"] < 0.8 * found["position_mm_standing"]
    assert found["psnr_imagined"] > found["psnr_repeating"] > 0
    assert found["psnr_codec"] > found["psnr_imagined"]
    assert found["milliseconds_a_candidate"] > 0
    assert (trained / video_report.PICTURE).stat().st_size > 0


def test_the_folder_gives_models_that_prefer_the_chunk_that_reaches(trained):
    models = load_models(trained)
    assert models.metadata["privileged_supervision"] is False
    assert models.world_model.cost.milliseconds > 0
    gap = np.array([0.15, -0.1, 0.0])
    start = models.world_model.encode(observation_of(gap))
    there = models.world_model.step(start, towards(gap)).latent
    away = models.world_model.step(start, towards(-gap)).latent
    text = ["reach the square"]
    assert models.reward_model.score(there, text).value > models.reward_model.score(away, text).value
    assert models.memory.nearest(start, text, 4).shape == (1, 4, episodes.HORIZON, 7)


def test_a_second_run_trains_nothing_again(trained, rollouts, monkeypatch):
    monkeypatch.setattr(stages, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    command.train(rollouts=[str(rollouts)], out=str(trained), **OPTIONS)


def test_it_goes_on_from_another_and_keeps_its_codec(trained, rollouts, tmp_path):
    options = OPTIONS | {"flow_steps": 0, "value_steps": 20, "eight_bits": True, "scheme": "ranking"}
    command.train(rollouts=[str(rollouts)], out=str(tmp_path), model_from=str(trained), **options)
    old, new = (load_models(folder).world_model for folder in (trained, tmp_path))
    start = old.encode(observation_of(np.array([0.1, 0.1, 0.0])))
    chunk = towards([0.1, 0.1, 0.0])
    following = old.step(start, chunk).latent
    assert torch.allclose(new.encode(observation_of(np.array([0.1, 0.1, 0.0]))), start, atol=0.1)  # 8 bits
    assert (new.step(start, chunk).latent - following).abs().mean() < 0.2 * (following - start).abs().mean()
    assert load_models(tmp_path).reward_model.scheme == "ranking"
    lineage = json.loads((tmp_path / "config.json").read_text())["lineage"]
    assert lineage["model_from"] == trained.name and "codec" not in lineage["steps"]
    assert (tmp_path / "memory.safetensors").stat().st_size < (trained / "memory.safetensors").stat().st_size


def test_a_memory_is_made_only_where_it_is_asked_for(trained, rollouts, tmp_path):
    options = OPTIONS | {"flow_steps": 0, "value_steps": 1, "memory_entries": 0}
    command.train(rollouts=[str(rollouts)], out=str(tmp_path), model_from=str(trained), **options)
    assert not (tmp_path / "memory.safetensors").exists()
    assert load_models(tmp_path).memory is None


def test_it_does_not_go_on_from_one_of_another_size(trained, rollouts, tmp_path):
    options = OPTIONS | {"rollouts": [str(rollouts)], "out": str(tmp_path), "blocks": 2}
    with pytest.raises(ForethoughtError, match=r"model_from=.*trained with blocks=1 \(asked: 2\)"):
        command.train(model_from=str(trained), **options)


def test_no_flow_is_learned_only_where_there_is_one_already(rollouts, tmp_path):
    with pytest.raises(ForethoughtError, match="name its folder in model_from"):
        command.train(rollouts=[str(rollouts)], out=str(tmp_path), **OPTIONS | {"flow_steps": 0})


def test_windows_hold_the_frames_of_a_chunk_and_keep_episodes_apart(rollouts):
    data = load_episodes([rollouts], OPTIONS["cameras"])
    windows = Windows(data, 2 * episodes.HORIZON, 2)
    state = data.frame_state
    first, second = windows.following.T
    ahead = data.step[state[first]] - data.step[state[windows.start]]
    assert set(ahead[~data.success[windows.episode[first]]]) == {episodes.HORIZON}
    assert (windows.episode[first] == windows.episode[windows.start]).all()
    assert (data.step[state[second]] >= data.step[state[first]]).all()
    learned = set(windows.episode[windows.start[windows.learn]])
    assert not learned & set(windows.episode[windows.start[windows.judge]])


def test_pictures_that_are_too_far_apart_are_named(rollouts):
    data = load_episodes([rollouts], OPTIONS["cameras"])
    with pytest.raises(ForethoughtError, match="image_stride"):
        Windows(data, episodes.HORIZON, 4)


def test_failures_alone_teach_no_value(tmp_path):
    failed = [replace(episodes.reach(seed, skill=0.0), success=False) for seed in range(30)]
    rollouts = tmp_path / "episodes.hdf5"
    write_episodes(rollouts, failed, {"problem_info": {"language_instruction": "reach the square"}})
    short = OPTIONS | {"codec_steps": 2, "flow_steps": 2, "value_steps": 2}
    with pytest.raises(ForethoughtError, match="succeeded"):
        command.train(rollouts=[str(rollouts)], out=str(tmp_path), **short)


def test_psnr_knows_equal_pictures_and_the_worst_ones():
    black, white = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 255, np.uint8)
    assert video_report.psnr(black, black) == 99.0
    assert video_report.psnr(black, white) == 0.0
