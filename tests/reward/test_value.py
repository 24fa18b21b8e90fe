import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError, RewardModel
from forethought.reward import value as value_model
from forethought.reward.labels import SCHEMES
from forethought.reward.simulated import SimulatedValue
from forethought.reward.value import ValueEnsemble, ValueModel

STEP, LENGTH, SUCCESS = (
    np.array([0, 5, 10, 5]),
    np.array([10, 10, 10, 10]),
    np.array([1, 1, 1, 0], np.float32),
)


@pytest.mark.parametrize(
    ("name", "expected", "uses_failures"),
    [
        ("success_discounted", [0.9**10, 0.9**5, 1, 0], True),
        ("success_discounted_successes_only", [0.9**10, 0.9**5, 1, 0], False),
        ("progress", [0, 0.5, 1, 0], True),
        ("progress_successes_only", [0, 0.5, 1, 0], False),
    ],
)
def test_label_schemes_by_hand(name, expected, uses_failures):
    scheme = SCHEMES[name]
    np.testing.assert_allclose(scheme.label(STEP, LENGTH, SUCCESS, 0.9), expected, rtol=1e-6)
    assert scheme.uses_failures is uses_failures


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ValueModel(ValueEnsemble(4, members=3, hidden=16), "success_discounted")


def test_score_is_the_mean_of_the_networks(model):
    latent = torch.randn(5, 4)
    score = model.score(latent, ["soup"] * 5)
    assert isinstance(model, RewardModel)
    assert score.value.shape == score.spread.shape == (5,)
    assert ((score.value > 0) & (score.value < 1)).all() and (score.spread > 0).all()


def test_equal_particles_score_like_the_point(model):
    latent = torch.randn(5, 4)
    for particles in (3, 2):
        many = model.score(latent[:, None].expand(-1, particles, -1), ["soup"] * 5)
        np.testing.assert_allclose(many.value, model.score(latent, ["soup"] * 5).value, rtol=1e-5)


def test_instruction_changes_the_value(model):
    latent = torch.randn(1, 4).expand(2, -1)
    first, second = model.score(latent, ["pick up the soup", "close the drawer"]).value
    assert first != second


def test_rows_do_not_mix(model):
    latent = torch.randn(4, 3, 4)
    texts = ["soup", "milk", "soup", "ketchup"]
    whole = model.score(latent, texts).value
    alone = [model.score(latent[i : i + 1], texts[i : i + 1]).value[0] for i in range(4)]
    np.testing.assert_allclose(whole, alone, rtol=1e-5)


def test_saved_value_scores_the_same(model, tmp_path):
    model.save(tmp_path / "value.safetensors")
    again = value_model.load(tmp_path)
    latent = torch.randn(3, 4)
    mine, theirs = (each.score(latent, ["a"] * 3).value for each in (model, again))
    np.testing.assert_allclose(theirs, mine, rtol=1e-2)
    assert again.scheme == "success_discounted"


def test_weights_of_another_kind_are_refused(tmp_path, model):
    from forethought.weights import save_weights

    save_weights(tmp_path / "value.safetensors", "latent", {}, {"x": torch.zeros(1)})
    with pytest.raises(ForethoughtError, match="should hold a value"):
        value_model.load(tmp_path)


class State:
    def __init__(self, success, embedding):
        self.success, self.embedding = success, embedding


def test_simulated_success_is_worth_one(model):
    states = np.empty(2, object)
    states[:] = [State(True, np.zeros(4, np.float32)), State(False, np.zeros(4, np.float32))]
    score = SimulatedValue(model).score(states, ["soup"] * 2)
    assert score.value[0] == 1 and score.spread[0] == 0
    assert score.value[1] == model.score(torch.zeros(1, 4), ["soup"]).value[0]


def test_simulator_states_without_embedding_are_refused(model):
    states = np.empty(1, object)
    states[:] = [State(False, None)]
    with pytest.raises(ForethoughtError, match="embed"):
        SimulatedValue(model).score(states, ["soup"])
