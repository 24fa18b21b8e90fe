"""The video world model by itself: shapes, samples, frames, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError, ImaginationCost, Observation, WorldModel

pytest.importorskip("diffusers")

from forethought.world_models import video
from forethought.world_models.flow import FrameTransformer
from forethought.world_models.frames import FrameCodec

CAMERAS = ("wrist", "front")


def make_model(frames=2, steps=2, samples=2, **changes):
    torch.manual_seed(0)
    codec = FrameCodec(CAMERAS, 16, width=8, halvings=2)
    network = FrameTransformer(codec.grid, 4, 7, frames=frames, width=16, blocks=1, heads=2)
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():  # adaLN-Zero begins as nothing at all
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    body = torch.zeros(11), torch.ones(11)
    return video.VideoWorldModel(codec, network, body, steps=steps, samples=samples, **changes)


def make_observation(batch=2, cameras=CAMERAS, size=16):
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 255, (batch, size, size, 3), dtype=np.uint8) for name in cameras}
    body = rng.normal(size=(batch, 8)).astype(np.float32)
    return Observation(images, body, ("pick up the soup",) * batch)


def chunk(level, batch=2):
    return np.full((batch, 4, 7), level, np.float32)


def test_it_speaks_the_protocol_and_declares_its_cost():
    model = make_model()
    assert isinstance(model, WorldModel)
    assert model.cost.tier == "video"


def test_a_chunk_leads_to_samples_that_differ_in_picture_and_robot_but_not_in_the_instruction():
    model = make_model()
    latent = model.encode(make_observation())
    assert latent.shape == (2, 2, 11 + 4 * 4 * 8 + 16)
    assert torch.equal(latent[:, 0], latent[:, 1])
    prediction = model.step(latent, chunk(0.5))
    assert prediction.latent.shape == latent.shape
    assert (prediction.disagreement > 0).all()
    assert not torch.equal(prediction.latent[:, 0, :11], prediction.latent[:, 1, :11])
    assert not torch.equal(prediction.latent[:, 0, 11:-16], prediction.latent[:, 1, 11:-16])
    assert torch.equal(prediction.latent[..., -16:], latent[..., -16:])


def test_one_sample_does_not_disagree():
    model = make_model(samples=1)
    assert (model.step(model.encode(make_observation()), chunk(0.5)).disagreement == 0).all()


def test_candidates_differ_by_their_chunks_alone():
    model = make_model()
    latent = model.encode(make_observation(1))[[0, 0, 0]]
    chunks = np.concatenate([chunk(0.5, 1), chunk(-0.5, 1), chunk(0.5, 1)])
    following = model.step(latent, chunks).latent
    torch.testing.assert_close(following[0], following[2])
    assert (following[0] - following[1]).abs().max() > 1e-3
    torch.testing.assert_close(model.step(latent[:1], chunks[:1]).latent[0], following[0], atol=1e-5, rtol=0)


def test_every_frame_of_a_chunk_follows_the_actions_that_lead_up_to_it():
    model = make_model(samples=1)
    for block in model.dynamics.blocks:  # without attention no frame sees another
        block.attention.to_out[0].weight.data.zero_()
        block.attention.to_out[0].bias.data.zero_()
    latent = model.encode(make_observation(1))
    early, late = chunk(0.0, 1), chunk(0.0, 1)
    early[:, :2], late[:, 2:] = 1.0, 1.0
    still = model.imagine(latent, torch.from_numpy(chunk(0.0, 1)))[0, 0]
    for changed, frame in ((early, 0), (late, 1)):
        moved = (model.imagine(latent, torch.from_numpy(changed))[0, 0] - still).abs().amax(dim=1)
        assert moved[frame] > 1e-3
        assert moved[1 - frame] < 1e-6


def test_a_network_that_knows_nothing_predicts_the_present_and_the_noise_it_was_given():
    model = make_model(steps=1, samples=1)
    for head in (model.dynamics.to_picture, model.dynamics.to_body):
        head.weight.data.zero_()
        head.bias.data.zero_()
    latent = model.encode(make_observation())
    change = (model.step(latent, chunk(1.0)).latent - latent)[0, 0]
    torch.testing.assert_close(change[:11], model.noise[1][0, -1])
    torch.testing.assert_close(change[11:-16], model.noise[0][0, -1].flatten())


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_perfect_velocity_leads_to_the_data_in_any_number_of_steps(steps):
    model = make_model(steps=steps, samples=1)
    goal = torch.randn(1, 2, *model.codec.grid), torch.randn(1, 2, 11)

    def perfect(noisy, now, context, actions, sigma):
        return tuple(
            (part - data) / sigma.view(-1, *[1] * (part.dim() - 1)) for part, data in zip(noisy, goal)
        )

    found = video.sample_change(perfect, model.noise, (None, None), None, None, steps)
    for part, data in zip(found, goal, strict=True):
        torch.testing.assert_close(part, data, atol=1e-4, rtol=0)


def test_people_see_pictures_of_every_camera_and_every_frame():
    model = make_model()
    latent = model.encode(make_observation(3, size=32))
    shown, film = model.decode(latent), model.film(latent, chunk(0.1, 3))
    assert {name: picture.shape for name, picture in shown.items()} == dict.fromkeys(CAMERAS, (3, 16, 16, 3))
    assert {name: frames.shape for name, frames in film.items()} == dict.fromkeys(CAMERAS, (3, 2, 16, 16, 3))
    assert shown["wrist"].dtype == np.uint8
    last = model.decode(model.step(latent, chunk(0.1, 3)).latent)
    assert np.array_equal(film["front"][:, -1], last["front"])


def test_saved_model_imagines_the_same(tmp_path):
    model = make_model(cost=ImaginationCost("video", 3.5, 16, "here"))
    model.save(tmp_path, {"episodes": 3})
    again = video.load(tmp_path, steps=2, samples=2)
    assert again.cost == model.cost and not again.privileged_supervision
    seen = make_observation()
    before, after = model.step(model.encode(seen), chunk(0.3)), again.step(again.encode(seen), chunk(0.3))
    torch.testing.assert_close(before.latent, after.latent, atol=2e-2, rtol=0)


def test_missing_camera_other_chunk_and_other_body_are_refused():
    model = make_model()
    with pytest.raises(ForethoughtError, match="front"):
        model.encode(make_observation(cameras=("wrist",)))
    with pytest.raises(ForethoughtError, match=r"\[M, 4, 7\]"):
        model.step(model.encode(make_observation()), np.zeros((2, 5, 7), np.float32))
    seen = make_observation()
    with pytest.raises(ForethoughtError, match=r"\[2, 5\]"):
        model.encode(Observation(seen.images, seen.proprioception[:, :5], seen.instruction))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"samples": 0}, {"steps": 100}])
def test_sizes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ForethoughtError, match="video model takes"):
        make_model(**wrong)


def test_a_transformer_that_does_not_fit_says_so():
    with pytest.raises(ForethoughtError, match="must divide"):
        FrameTransformer((4, 8, 8), 8, 7, frames=3)
    with pytest.raises(ForethoughtError, match="halved"):
        FrameCodec(CAMERAS, 20)


def test_without_diffusers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ForethoughtError, match=r"forethought\[video\]"):
        FrameCodec(CAMERAS, 16, halvings=2)


def test_a_cost_names_a_tier_that_exists():
    with pytest.raises(ForethoughtError, match="cheap"):
        ImaginationCost("cheap")
    with pytest.raises(ForethoughtError, match="wave=0"):
        ImaginationCost("video", wave=0)
