"""Models side by side: each sees, imagines, remembers and judges for itself, and all count alike."""

import json
import shutil

import numpy as np
import pytest
import torch

from forethought.interfaces import (
    ActionSamples,
    ActionSpec,
    ForethoughtError,
    ImaginationCost,
    Observation,
    Prediction,
    RewardModel,
    WorldModel,
)
from forethought.planner import forethought
from forethought.reward import committee as committee_value
from forethought.reward.value import ValueEnsemble, ValueModel
from forethought.world_models import committee, committee_memory
from forethought.world_models.dynamics import ChunkDynamics
from forethought.world_models.encoder import CONTEXT_SIZE, ObservationEncoder
from forethought.world_models.latent import LatentWorldModel
from forethought.world_models.retrieval import RetrievalMemory
from forethought.wrappers.models import load_models

TEXT = ("pick up the soup", "open the drawer")


def make_model(seed, cameras, features, *, privileged=False, members=3, horizon=4):
    torch.manual_seed(seed)
    encoder = ObservationEncoder(cameras, image_size=32, features=features)
    size = encoder.latent_size + CONTEXT_SIZE
    dynamics = ChunkDynamics(size, CONTEXT_SIZE, horizon=horizon, action_size=7, members=members, hidden=32)
    return LatentWorldModel(encoder, dynamics, privileged_supervision=privileged)


def size_of(model):
    return model.dynamics.shape["latent_size"]


def make_memory(model, seed, tag):
    rng = np.random.default_rng(seed)
    chunks = np.full((12, 4, 7), tag, np.float32)
    chunks[:, 0, 0] = np.arange(12) / 100
    keys = rng.normal(size=(12, size_of(model))).astype(np.float32)
    return RetrievalMemory(
        keys, chunks, np.zeros(12, np.int64), TEXT[:1], np.ones(size_of(model), np.float32)
    )


@pytest.fixture(scope="module")
def models():
    return make_model(0, ["wrist"], 18, privileged=True), make_model(1, ["wrist", "front"], 20)


@pytest.fixture(scope="module")
def values(models):
    torch.manual_seed(2)
    return [ValueModel(ValueEnsemble(size_of(m), members=3, hidden=16), "ranking") for m in models]


@pytest.fixture(scope="module")
def folders(models, values, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for index, (model, value) in enumerate(zip(models, values, strict=True)):
        folder = root / f"m{index}"
        folder.mkdir()
        model.save(folder, {})
        (folder / "config.json").write_text('{"world_model": {"kind": "latent"}}')
        value.save(folder / "value.safetensors")
        make_memory(model, index, 0.1 + index / 10).save(folder)
    return [root / "m0", root / "m1"]


def observation(batch=2):
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 255, (batch, 32, 32, 3), dtype=np.uint8) for name in ("wrist", "front")}
    return Observation(images, rng.normal(size=(batch, 8)).astype(np.float32), TEXT[:1] * batch)


def chunks(batch=2):
    return np.random.default_rng(1).uniform(-1, 1, (batch, 4, 7)).astype(np.float32)


def test_every_member_imagines_what_it_would_alone(models):
    both = committee.Committee(models)
    assert isinstance(both, WorldModel)
    assert both.cameras == ("wrist", "front") and both.horizon == 4 and both.privileged_supervision
    assert not committee.Committee([models[1], models[1]]).privileged_supervision
    latent = both.encode(observation())
    prediction = both.step(latent, chunks())
    alone = [m.step(m.encode(observation()), chunks()) for m in models]
    assert latent.shape == (2, 3, sum(map(size_of, models)))
    np.testing.assert_array_equal(
        prediction.latent, np.concatenate([np.asarray(a.latent) for a in alone], axis=-1)
    )
    np.testing.assert_allclose(prediction.done, (alone[0].done + alone[1].done) / 2, rtol=1e-6)
    squares = (alone[0].disagreement ** 2 + alone[1].disagreement ** 2) / 2
    np.testing.assert_allclose(prediction.disagreement, np.sqrt(squares), rtol=1e-5)
    assert prediction.done.dtype == prediction.disagreement.dtype == np.float32


class Still:
    """A model of another kind: one state, which stays what it is."""

    horizon, action_size, particle_count, latent_size = 4, 7, 1, 6
    cameras, privileged_supervision = ("front",), False
    cost = ImaginationCost("video", 3.0, wave=16)

    def encode(self, observation):
        return torch.arange(6.0).expand(len(observation.proprioception), 1, 6)

    def step(self, latent, chunks):
        assert latent.shape[1:] == (1, 6)
        zero = np.zeros(len(chunks), np.float32)
        return Prediction(latent, zero, zero)


def test_a_member_may_be_of_another_kind_and_hold_one_state(models, values):
    both = committee.Committee([models[0], Still()])
    assert both.particle_count == 3 and both.cost == Still.cost
    prediction = both.step(both.encode(observation()), chunks())
    assert prediction.latent.shape == (2, 3, size_of(models[0]) + 6)
    np.testing.assert_array_equal(prediction.latent[:, :, -6:], torch.arange(6.0).expand(2, 3, 6))
    alone = models[0].step(models[0].encode(observation()), chunks())
    np.testing.assert_allclose(prediction.disagreement, alone.disagreement / np.sqrt(2), rtol=1e-5)
    torch.manual_seed(4)
    still = ValueModel(ValueEnsemble(6, members=3, hidden=16), "ranking")
    score = committee_value.CommitteeValue([values[0], still]).score(prediction.latent, TEXT[:1] * 2)
    own = [
        values[0].score(alone.latent, TEXT[:1] * 2),
        still.score(torch.arange(6.0).expand(2, 6), TEXT[:1] * 2),
    ]
    np.testing.assert_allclose(score.value, (own[0].value + own[1].value) / 2, rtol=1e-5)


def test_all_heads_of_all_members_are_one_ensemble(models, values):
    both = committee_value.CommitteeValue(values)
    assert isinstance(both, RewardModel) and both.scheme == "ranking"
    latent = committee.Committee(models).encode(observation())
    latent = latent + torch.randn(latent.shape, generator=torch.Generator().manual_seed(3))
    score = both.score(latent, TEXT[:1] * 2)
    words = values[0].words(TEXT[:1] * 2)
    parts = latent.split([size_of(m) for m in models], dim=-1)
    heads = torch.cat([v.heads(p, words) for v, p in zip(values, parts, strict=True)])
    assert heads.shape == (6, 2)
    np.testing.assert_allclose(score.value, heads.mean(0), rtol=1e-6)
    np.testing.assert_allclose(score.spread, heads.std(0, unbiased=False), rtol=1e-6)
    alone = [v.score(p, TEXT[:1] * 2) for v, p in zip(values, parts, strict=True)]
    np.testing.assert_allclose(score.value, (alone[0].value + alone[1].value) / 2, rtol=1e-6)


def test_the_members_memories_take_turns(models):
    memories = [make_memory(m, i, 0.1 + i / 10) for i, m in enumerate(models)]
    both = committee_memory.CommitteeMemory(memories)
    latent = committee.Committee(models).encode(observation())
    parts = latent.split([size_of(m) for m in models], dim=-1)
    found = both.nearest(latent, TEXT[:1] * 2, 5)
    assert found.shape == (2, 5, 4, 7)
    for member, memory in enumerate(memories):
        own = memory.nearest(parts[member], TEXT[:1] * 2, 3)
        np.testing.assert_array_equal(found[:, member::2], own[:, : len(range(member, 5, 2))])
    assert both.all_chunks().shape == (24, 4, 7)


def test_a_member_without_a_memory_is_passed_over(models, folders, tmp_path):
    forgetful = tmp_path / "forgetful"
    forgetful.mkdir()
    shutil.copy(folders[0] / "value.safetensors", forgetful)
    both = committee_memory.load(members=[forgetful, folders[1]])
    latent = committee.Committee(models).encode(observation())
    own = make_memory(models[1], 1, 0.2).nearest(latent.split([size_of(m) for m in models], -1)[1], TEXT, 4)
    np.testing.assert_allclose(both.nearest(latent, TEXT, 4), own, atol=1e-3)  # stored in half precision
    assert both.all_chunks().shape == (12, 4, 7)
    with pytest.raises(ForethoughtError, match="needs the sizes"):
        committee_memory.CommitteeMemory([None, both.members[1]])


def test_folders_make_a_committee_that_plans(folders):
    world = committee.load(members=folders)
    value = committee_value.load(members=folders)
    memory = committee_memory.load(members=folders)
    spec = ActionSpec(low=-np.ones(7), high=np.ones(7), gripper=(6,))
    planner = forethought(world, value, action_spec=spec, memory=memory, simulations=16, depth=2)
    samples = ActionSamples(spec.clip(np.stack([chunks(), chunks()], axis=1)))
    decision = planner.plan(observation(), samples, np.arange(2))
    assert not decision.fallback.any()
    assert (decision.simulations == 16).all()


def test_a_models_folder_may_name_a_committee(folders, tmp_path):
    named = {"kind": "committee", "members": [str(folder) for folder in folders]}
    config = {"world_model": named, "reward": named, "memory": named | {"kind": "committee_memory"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    models = load_models(tmp_path)
    latent = models.world_model.encode(observation())
    assert models.reward_model.score(latent, TEXT[:1] * 2).value.shape == (2,)
    assert models.memory.nearest(latent, TEXT[:1] * 2, 4).shape == (2, 4, 4, 7)


def test_members_that_do_not_fit_together_are_refused(models, values, tmp_path):
    with pytest.raises(ForethoughtError, match="two world models"):
        committee.Committee(models[:1])
    with pytest.raises(ForethoughtError, match="ensembles of one size or none"):
        committee.Committee([models[0], make_model(3, ["wrist"], 18, members=2)])
    with pytest.raises(ForethoughtError, match="chunks of one shape"):
        committee.Committee([models[0], make_model(3, ["wrist"], 18, horizon=8)])
    with pytest.raises(ForethoughtError, match="kind of a world model"):
        committee.load(members=[tmp_path, tmp_path])
    with pytest.raises(ForethoughtError, match="world_model=committee"):
        committee_value.CommitteeValue(values).score(models[0].encode(observation()), TEXT[:1] * 2)
    with pytest.raises(ForethoughtError, match="got none"):
        committee_value.CommitteeValue([])
    with pytest.raises(ForethoughtError, match="got none"):
        committee_memory.CommitteeMemory([])
