import json

import episodes
import numpy as np
import pytest
import torch
from torch import nn

from forethought.experiments.training import loop, models, origins, policy, stages
from forethought.experiments.training.dataset import load_episodes
from forethought.experiments.training.loop import fit
from forethought.interfaces import ForethoughtError, Observation
from forethought.reward import chunk_value, value
from forethought.world_models import latent, model_free, retrieval
from forethought.wrappers.policies import reference

CAMERAS = (episodes.CAMERA,)


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory):
    return episodes.write(tmp_path_factory.mktemp("rollouts"), 120, skill=0.5)


@pytest.fixture(scope="module")
def trained(rollouts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return models.train(
        rollouts=[str(rollouts)],
        out=str(folder),
        cameras=CAMERAS,
        image_size=16,
        horizon=episodes.HORIZON,
        discount=0.9,
        encoder_steps=300,
        encoder_batch=64,
        dynamics_steps=400,
        value_steps=400,
        chunk_value=True,
        batch=64,
        members=3,
        memory_entries=200,
    )


def seen_in(rollouts):
    """What models of these episodes are trained with."""
    return {
        "rollouts": [str(rollouts)],
        "cameras": CAMERAS,
        "image_size": 16,
        "horizon": episodes.HORIZON,
    }


def observation_of(gap):
    body = np.array([[0, 0, 0, 0, 0, 0, 0.04, -0.04]], np.float32)
    return Observation({episodes.CAMERA: episodes.picture(gap)[None]}, body, ("reach the square",))


def towards(gap):
    aim = np.clip(np.asarray(gap) / (0.05 * episodes.HORIZON), -1, 1)
    return np.tile(np.array([*aim, 0, 0, 0, -1], np.float32), (1, episodes.HORIZON, 1))


def test_chunks_repeat_the_last_action_past_the_end(rollouts):
    data = load_episodes([rollouts], CAMERAS)
    last = np.flatnonzero(data.step == data.length[data.episode] - 1)[:1]
    chunk = data.chunks(last, 3)[0]
    assert np.array_equal(chunk[0], chunk[1]) and np.array_equal(chunk[1], chunk[2])
    assert data.after(last, 3)[0] == last[0] + 1


def test_what_follows_is_known_to_the_end_of_successes_only(rollouts):
    data = load_episodes([rollouts], CAMERAS)
    last = np.flatnonzero(data.step == data.length[data.episode] - 1)
    assert np.array_equal(data.complete(last, 4), data.success)


def test_frames_stand_at_their_states(rollouts):
    data = load_episodes([rollouts], CAMERAS)
    assert data.privileged is not None
    gap = data.privileged[data.frame_state, :3] - data.proprioception[data.frame_state, :3]
    for row in (0, 5, len(gap) - 1):
        assert np.array_equal(data.images[episodes.CAMERA][row], episodes.picture(gap[row]))


def test_successes_only_and_per_task_are_kept(rollouts):
    data = load_episodes([rollouts], CAMERAS, successes_only=True, per_task=7)
    assert len(data.length) == 7 and data.success.all()


def test_initial_states_can_be_held_out(rollouts):
    kept = load_episodes([rollouts], CAMERAS, init_states=range(5))
    assert set(kept.init_state) == set(range(5))
    with pytest.raises(ForethoughtError, match="initial states"):
        load_episodes([rollouts], CAMERAS, init_states=[31])


def test_no_episode_left_is_an_error(tmp_path):
    folder = episodes.write(tmp_path, 2, skill=0.0, first_seed=1)
    with pytest.raises(ForethoughtError, match="No successful episodes"):
        load_episodes([folder], CAMERAS, successes_only=True)


def test_encoder_finds_the_object(trained):
    model = latent.load(trained)
    encoder = model.encoder
    for gap in ([0.2, -0.1, 0.0], [-0.25, 0.2, 0.0]):
        seen = model.encode(observation_of(np.array(gap)))[0, 0, :29] * encoder.std + encoder.mean
        np.testing.assert_allclose(seen[11:13], gap[:2], atol=0.06)


def test_model_and_value_prefer_the_chunk_that_reaches(trained):
    model, judge = latent.load(trained), value.load(trained)
    gap = np.array([0.15, -0.1, 0.0])
    start = model.encode(observation_of(gap))
    there, away = model.step(start, towards(gap)), model.step(start, towards(-gap))
    text = ["reach the square"]
    assert judge.score(there.latent, text).value > judge.score(away.latent, text).value + 0.2
    assert there.done > away.done


def test_a_value_of_chunks_prefers_the_chunk_that_reaches_without_a_model(trained):
    model, judge = model_free.load(trained), chunk_value.load(trained)
    gap = np.array([0.15, -0.1, 0.0])
    start = model.encode(observation_of(gap))
    there, away = (
        judge.score(model.step(start, towards(way)).latent, ["reach the square"]).value for way in (gap, -gap)
    )
    assert there > away + 0.1
    assert judge.scheme == "success_discounted"


def test_memory_holds_chunks_that_reach(trained):
    memory, model = retrieval.load(trained), latent.load(trained)
    gap = np.array([0.2, 0.2, 0.0])
    found = memory.nearest(model.encode(observation_of(gap)), ["reach the square"], 8)
    assert (np.median(found[0, :, 0, :2], axis=0) > 0.2).all()


def test_models_folder_tells_its_lineage(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["privileged_supervision"] is True
    assert config["lineage"]["data"]["episodes"] == 120
    assert (trained / "value_progress_successes_only.safetensors").is_file()
    assert (
        value.load(trained, "value_progress_successes_only.safetensors").scheme == "progress_successes_only"
    )


def test_second_run_trains_nothing_again(trained, rollouts, monkeypatch):
    monkeypatch.setattr(stages, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    start = torch.randn(2, 3, 45)
    before = latent.load(trained).step(start, towards([0.1, 0.1, 0.0]).repeat(2, 0)).latent
    models.train(
        rollouts=[str(rollouts)],
        out=str(trained),
        cameras=CAMERAS,
        image_size=16,
        horizon=episodes.HORIZON,
        members=3,
        memory_entries=200,
    )
    assert torch.equal(latent.load(trained).step(start, towards([0.1, 0.1, 0.0]).repeat(2, 0)).latent, before)


def test_an_encoder_can_start_from_another_models(trained, rollouts, tmp_path):
    settings = seen_in(rollouts) | {
        "dynamics_steps": 5,
        "value_steps": 5,
        "batch": 32,
        "members": 2,
        "seed": 1,
    }
    wanted = dict(latent.load(trained).encoder.named_parameters())
    for name, options in {"same": {}, "other": {"privileged_supervision": False, "features": 7}}.items():
        folder = models.train(
            out=str(tmp_path / name), encoder_from=str(trained), encoder_steps=1, **options, **settings
        )
        found = dict(latent.load(folder).encoder.named_parameters())
        for key in ("towers.0.convolutions.0.weight", "head.0.weight", "text.bias"):
            assert torch.allclose(found[key], wanted[key], atol=5e-3), key
        assert json.loads((folder / "config.json").read_text())["lineage"]["encoder_from"] == trained.name
    with pytest.raises(ForethoughtError, match="no weights of the same names and shapes"):
        origins.start_encoder(nn.Module(), str(trained))


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"bf16": True}, torch.bfloat16),
    ],
)
def test_bfloat16_is_used_where_the_processor_multiplies_it(known, kind, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    monkeypatch.setattr(loop, "multiplies_bfloat16", loop.multiplies_bfloat16.__wrapped__)  # asks every time
    with loop.mixed_precision():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


def test_values_can_be_learned_for_a_world_model_as_it_is(trained, rollouts, tmp_path):
    settings = seen_in(rollouts) | {"world_model_from": str(trained), "value_steps": 5, "batch": 32}
    folder = models.train(
        out=str(tmp_path / "values"), members=3, schemes=("ranking",), memory_entries=50, **settings
    )
    before, after = latent.load(trained), latent.load(folder)
    for part in ("encoder", "dynamics"):
        wanted, found = getattr(before, part).state_dict(), getattr(after, part).state_dict()
        assert wanted.keys() == found.keys()
        assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert after.expected_error == before.expected_error
    assert value.load(folder).scheme == "ranking"
    assert sorted(path.name for path in (folder / "stages").glob("*.pt")) == ["value_ranking.pt"]
    lineage = json.loads((folder / "config.json").read_text())["lineage"]
    assert lineage["world_model_from"] == trained.name and lineage["steps"] == {"value": 5}
    again = models.train(
        out=str(tmp_path / "again"),
        members=3,
        schemes=("ranking",),
        values_from=str(trained),
        memory_entries=50,
        **{**settings, "value_steps": 1},
    )
    wanted, found = (value.load(place).network.state_dict() for place in (trained, again))
    assert all(torch.allclose(found[name], wanted[name], atol=5e-3) for name in wanted)
    with pytest.raises(ForethoughtError, match=r"values_from=.*other shapes"):
        origins.start_value(value.ValueEnsemble(3), str(trained))
    with pytest.raises(ForethoughtError, match=r"world_model_from=.*members=3 \(asked: 2\)"):
        models.train(out=str(tmp_path / "no"), members=2, **settings)
    with pytest.raises(ForethoughtError, match=r"encoder_from=.*Give one of them"):
        models.train(out=str(tmp_path / "no"), members=3, encoder_from=str(trained), **settings)


def test_images_alone_train_a_model_too(rollouts, tmp_path):
    folder = models.train(
        rollouts=[str(rollouts)],
        out=str(tmp_path),
        cameras=CAMERAS,
        image_size=16,
        horizon=episodes.HORIZON,
        privileged_supervision=False,
        features=18,  # as many as poses have, which say nothing of these
        schemes=("success_discounted", "progress_rewind", "ranking", {"expectile": {"rate": 0.05}}),
        calibration="isotonic",
        encoder_steps=20,
        encoder_batch=32,
        dynamics_steps=20,
        value_steps=20,
        batch=32,
        members=2,
    )
    model = latent.load(folder)
    assert not model.privileged_supervision
    assert model.encode(observation_of(np.zeros(3))).shape == (1, 2, 45)
    assert not model.encoder.mean[11:].any()
    assert not (folder / chunk_value.FILE).exists()
    lineage = json.loads((folder / "config.json").read_text())["lineage"]
    for name, file in (("success_discounted", "value"), ("expectile", "value_expectile")):
        calibration = value.load(folder, f"{file}.safetensors").calibration
        assert calibration.method == "isotonic"
        assert lineage["calibration"]["error"][name] == list(calibration.error)


def test_frozen_eyes_find_the_object_too(rollouts, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=4, mlp_ratio=1
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "eyes")
    folder = models.train(
        rollouts=[str(rollouts)],
        out=str(tmp_path / "models"),
        cameras=CAMERAS,
        image_size=16,
        backbone=str(tmp_path / "eyes"),
        horizon=episodes.HORIZON,
        schemes=("success_discounted",),
        encoder_steps=300,
        encoder_batch=64,
        dynamics_steps=5,
        value_steps=5,
        batch=32,
        members=2,
        memory_entries=50,
    )
    model = latent.load(folder)
    gaps = np.array([[0.2, -0.1, 0.0], [-0.25, 0.2, 0.0]])
    encoder = model.encoder
    found = [model.encode(observation_of(gap))[0, 0, :29] * encoder.std + encoder.mean for gap in gaps]
    assert (np.abs(np.stack(found)[:, 11:13] - gaps[:, :2]).mean() < 0.1).all()


def test_unknown_label_scheme_is_named(rollouts, tmp_path):
    with pytest.raises(ForethoughtError, match="no_such_labels"):
        models.train(
            rollouts=[str(rollouts)], out=str(tmp_path), cameras=CAMERAS, schemes=("no_such_labels",)
        )


def test_policy_clones_what_succeeded(tmp_path):
    options = {
        "demonstrations": [str(episodes.write(tmp_path / "data", 120, skill=0.9))],
        "out": str(tmp_path),
        "cameras": CAMERAS,
        "image_size": 16,
        "horizon": episodes.HORIZON,
        "features": 16,
        "batch": 64,
        "shift": 0,
    }
    policy.train(**options, steps=400)
    clone = reference.load(tmp_path)
    gap = np.array([0.25, -0.25, 0.0])

    def mean_of(of):
        return of.propose(observation_of(gap), 16, np.array([0])).chunks[0].mean(axis=(0, 1))

    mean = mean_of(clone)
    assert mean[0] > 0.2 and mean[1] < -0.2

    # One that goes on from it is it, but for the steps it takes; one that starts anew is not.
    go_on = {"steps": 1, "learning_rate": 1e-6, "seed": 1}
    start = str(tmp_path / "policy.safetensors")
    policy.train(**options, **go_on, file="more.safetensors", policy_from=start)
    policy.train(**options, **go_on, file="anew.safetensors")
    more = reference.load(tmp_path, "more.safetensors")
    np.testing.assert_allclose(mean_of(more), mean, atol=2e-3)
    assert np.abs(mean_of(reference.load(tmp_path, "anew.safetensors")) - mean).max() > 0.1
    assert more.lineage["policy_from"] == clone.lineage
    with pytest.raises(ForethoughtError, match=r"features=16 \(asked: 8\)"):
        policy.train(**(options | {"features": 8}), policy_from=start)


class Stop(Exception):
    pass


def test_killed_training_goes_on_where_it_was(tmp_path, monkeypatch):
    target = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    options = {"title": "line", "steps": 40, "learning_rate": 1e-2, "seed": 0}

    def make():
        torch.manual_seed(0)
        return nn.Linear(3, 1)

    def loss(module, generator):
        pick = torch.randint(64, (8,), generator=generator)
        return (module(target[pick]) - 1).square().mean()

    whole = make()
    fit(whole, loss, checkpoint=tmp_path / "a", **options)
    calls = 0

    def killed(module, generator):
        nonlocal calls
        calls += 1
        if calls > 25:
            raise Stop
        return loss(module, generator)

    monkeypatch.setattr("forethought.experiments.training.loop.CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Stop):
        fit(make(), killed, checkpoint=tmp_path / "b", **options)
    resumed = make()
    fit(resumed, loss, checkpoint=tmp_path / "b", **options)
    assert torch.equal(resumed.weight, whole.weight)
    assert not (tmp_path / "b").exists()
