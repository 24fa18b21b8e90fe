from dataclasses import dataclass

import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError, RewardModel
from forethought.reward import chunk_value
from forethought.reward import value as value_model
from forethought.reward.chunk_value import ChunkValue
from forethought.reward.value import ValueEnsemble


@dataclass
class State:
    embedding: np.ndarray
    chunk: np.ndarray | None


def states(count, size=4, horizon=2):
    rng = np.random.default_rng(0)
    found = np.empty(count, object)
    for row in range(count):
        embedding, chunk = rng.normal(size=size), rng.normal(size=(horizon, 3))
        found[row] = State(embedding.astype(np.float32), chunk.astype(np.float32))
    return found


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ChunkValue(ValueEnsemble(4 + 2 * 3, members=3, hidden=16), "success_discounted")


def test_a_score_is_the_ensembles_for_the_state_beside_the_chunk(model):
    assert isinstance(model, RewardModel)
    given, texts = states(5), ["soup", "milk", "soup", "milk", "soup"]
    rows = np.stack([np.concatenate([state.embedding, state.chunk.ravel()]) for state in given])
    expected = model.value.score(torch.from_numpy(rows), texts)
    score = model.score(given, texts)
    np.testing.assert_array_equal(score.value, expected.value)
    np.testing.assert_array_equal(score.spread, expected.spread)


def test_training_and_scoring_read_the_same_numbers(model):
    latent, chunk = torch.randn(2, 7, 4), torch.randn(2, 7, 2, 3)
    inputs = chunk_value.beside(latent, chunk)
    assert inputs.shape == (2, 7, 10)
    assert torch.equal(inputs[1, 3], torch.cat([latent[1, 3], chunk[1, 3].reshape(-1)]))


def test_saved_value_scores_the_same(model, tmp_path):
    model.save(tmp_path)
    again = chunk_value.load(tmp_path)
    mine, theirs = (each.score(states(3), ["a"] * 3).value for each in (model, again))
    np.testing.assert_allclose(theirs, mine, rtol=1e-2)
    assert again.scheme == "success_discounted"


def test_what_is_missing_is_named_with_the_way_to_it(model, tmp_path):
    with pytest.raises(ForethoughtError, match="chunk_value=true"):
        chunk_value.load(tmp_path)
    model.save(tmp_path)
    with pytest.raises(ForethoughtError, match="should hold a value"):
        value_model.load(tmp_path, chunk_value.FILE)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(2, 4), "world_model=model_free"),
        (np.array([State(np.zeros(4, np.float32), None)], object), "without a chunk"),
        (states(1, size=5), r"reads 10 numbers; a latent of 5 and a chunk of 6"),
        (states(1, horizon=3), r"a latent of 4 and a chunk of 9"),
    ],
    ids=["latents", "no chunk", "another latent", "another chunk"],
)
def test_other_states_are_refused(model, given, words):
    with pytest.raises(ForethoughtError, match=words):
        model.score(given, ["soup"] * len(given))


def test_a_value_of_latents_refuses_such_states(model):
    with pytest.raises(ForethoughtError, match="reward=chunk_value"):
        model.value.score(states(2), ["soup"] * 2)


def test_a_missing_value_names_those_that_are_there(model, tmp_path):
    for name in ("value.safetensors", "value_progress.safetensors"):
        model.value.save(tmp_path / name)
    with pytest.raises(ForethoughtError, match=r"value\.safetensors, value_progress\.safetensors.*schemes="):
        value_model.load(tmp_path, "value_ranking.safetensors")
