import numpy as np
import pytest
import torch

from forethought.interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation, WorldModel
from forethought.planner import best_of_n, forethought
from forethought.reward.chunk_value import ChunkValue
from forethought.reward.value import ValueEnsemble
from forethought.world_models import latent, model_free
from forethought.world_models.dynamics import ChunkDynamics
from forethought.world_models.encoder import CONTEXT_SIZE, ObservationEncoder
from forethought.world_models.retrieval import RetrievalMemory

HORIZON, SIZE = 4, 29 + CONTEXT_SIZE
SPEC = ActionSpec(low=-np.ones(7), high=np.ones(7), position=(0, 1, 2), rotation=(3, 4, 5), gripper=(6,))
TEXT = "pick up the soup"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    encoder = ObservationEncoder(["wrist"], image_size=32, features=18)
    dynamics = ChunkDynamics(SIZE, CONTEXT_SIZE, HORIZON, action_size=7, members=3, hidden=8)
    path = tmp_path_factory.mktemp("models")
    latent.LatentWorldModel(encoder, dynamics, privileged_supervision=True).save(path, {})
    return path


@pytest.fixture(scope="module")
def model(folder):
    return model_free.load(folder)


@pytest.fixture(scope="module")
def value():
    torch.manual_seed(1)
    return ChunkValue(ValueEnsemble(SIZE + HORIZON * 7, members=3, hidden=16), "success_discounted")


def observe(batch=2):
    rng = np.random.default_rng(0)
    return Observation(
        images={"wrist": rng.integers(0, 255, (batch, 32, 32, 3), dtype=np.uint8)},
        proprioception=rng.normal(size=(batch, 8)).astype(np.float32),
        instruction=(TEXT,) * batch,
    )


def samples(batch=2, n=8):
    chunks = np.random.default_rng(1).uniform(-1, 1, (batch, n, HORIZON, 7))
    return ActionSamples(SPEC.clip(chunks.astype(np.float32)))


def memory_at(keys):
    chunks = np.linspace(-1, 1, len(keys), dtype=np.float32)[:, None, None] * np.ones((1, HORIZON, 7))
    return RetrievalMemory(keys, SPEC.clip(chunks), np.zeros(len(keys)), [TEXT], np.ones(SIZE, np.float32))


def test_it_sees_what_the_latent_model_sees(folder, model):
    assert isinstance(model, WorldModel)
    seen = latent.load(folder).encode(observe())[:, 0].numpy()
    np.testing.assert_array_equal(np.stack([state.embedding for state in model.encode(observe())]), seen)
    assert (model.cameras, model.horizon, model.action_size) == (("wrist",), HORIZON, 7)
    assert model.privileged_supervision is True


def test_a_step_puts_the_chunk_beside_the_state_and_predicts_nothing(model):
    states, chunks = model.encode(observe()), samples().chunks[:, 0]
    prediction = model.step(states, chunks)
    for before, after, chunk in zip(states, prediction.latent, chunks):
        assert before.chunk is None
        assert after.embedding is before.embedding
        np.testing.assert_array_equal(after.chunk, chunk)
    assert prediction.disagreement.tolist() == prediction.done.tolist() == [0, 0]


def test_no_second_chunk_can_be_considered(model):
    chunks = samples().chunks[:, 0]
    following = model.step(model.encode(observe()), chunks).latent
    with pytest.raises(ForethoughtError, match="depth 1"):
        model.step(following, chunks)


def test_other_chunk_length_is_refused(model):
    with pytest.raises(ForethoughtError, match=r"\[M, 4, 7\]; got \[2, 5, 7\]"):
        model.step(model.encode(observe()), np.zeros((2, 5, 7), np.float32))


def test_a_memory_finds_by_the_state_alone(model, folder):
    memory = memory_at(latent.load(folder).encode(observe(6))[:, 0].numpy())
    found = memory.nearest(model.encode(observe(6)), [TEXT] * 6, 1)
    np.testing.assert_array_equal(found[:, 0], memory.chunks)


def test_the_search_executes_the_candidate_of_the_highest_value(model, value):
    planner = forethought(
        model, value, action_spec=SPEC, memory=memory_at(np.zeros((40, SIZE))), simulations=16, pessimism=0.5
    )
    decision = planner.plan(observe(), samples(), np.arange(2))
    assert not decision.fallback.any()
    assert decision.simulations.tolist() == [16, 16]
    names = [decision.candidates.source_names[index] for index in decision.candidates.source[0]]
    assert names.count("averaged") == 8
    for row, state in enumerate(model.encode(observe())):
        considered = np.repeat(np.array([state], object), 16)
        score = value.score(model.step(considered, decision.candidates.chunks[row]).latent, [TEXT] * 16)
        worth = score.value - 0.5 * score.spread
        np.testing.assert_allclose(decision.candidates.value[row], worth, rtol=1e-4)
        np.testing.assert_array_equal(decision.chunk[row], decision.candidates.chunks[row, worth.argmax()])


def test_best_of_n_ranks_the_policys_samples(model, value):
    decision = best_of_n(model, value, action_spec=SPEC, n=8).plan(observe(), samples(), np.arange(2))
    assert not decision.fallback.any()
    np.testing.assert_array_equal(decision.candidates.chunks, samples().chunks)
    np.testing.assert_array_equal(decision.slot, decision.candidates.value.argmax(axis=1))


def test_a_deeper_search_is_refused(model, value):
    planner = forethought(model, value, action_spec=SPEC, simulations=16, depth=2)
    with pytest.raises(ForethoughtError, match=r"planner\.depth=1"):
        planner.plan(observe(), samples(), np.arange(2))
