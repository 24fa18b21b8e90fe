import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError
from forethought.reward import value as value_model
from forethought.reward.calibration import METHODS, Calibration, calibration_error, fit_calibration
from forethought.reward.value import ValueEnsemble, ValueModel


def overconfident(count=20_000, slope=3.0, offset=2.0, seed=0):
    """Logits that exaggerate and flatter, and what truly happened."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1, 1.5, count)
    outcome = rng.random(count) < 1 / (1 + np.exp(-truth))
    return (slope * truth + offset).astype(np.float32), outcome.astype(np.float32)


def applied(calibration, logit):
    return calibration(torch.from_numpy(logit)).numpy()


def test_the_error_of_values_by_hand():
    value = np.array([0.1, 0.1, 0.8, 0.8])
    assert calibration_error(value, np.array([0, 0, 1, 1]), bins=2) == pytest.approx(0.15)
    assert calibration_error(value, np.array([0.1, 0.1, 0.8, 0.8]), bins=2) == pytest.approx(0)
    assert calibration_error(value, np.array([1, 1, 0, 0]), bins=2) == pytest.approx(0.85)


@pytest.mark.parametrize("method", METHODS)
def test_a_calibrated_value_means_what_it_says(method):
    logit, outcome = overconfident(offset=0.0)
    unseen, truth = overconfident(offset=0.0, seed=1)
    before = calibration_error(torch.from_numpy(unseen).sigmoid().numpy(), truth)
    after = calibration_error(applied(fit_calibration(method, logit, outcome), unseen), truth)
    assert before > 0.06 and after < 0.015


def test_an_offset_takes_back_what_oversampling_added():
    logit, outcome = overconfident(slope=1.0)
    errors = {
        method: calibration_error(applied(fit_calibration(method, logit, outcome), logit), outcome)
        for method in ("temperature", "platt")
    }
    assert errors["platt"] < 0.015 < errors["temperature"]
    assert fit_calibration("platt", logit, outcome).offset == pytest.approx(-2, abs=0.15)


def test_labels_between_0_and_1_count_as_shares():
    logit = np.repeat(np.array([-1.0, 1.0], np.float32), 100)
    calibration = fit_calibration("platt", logit, np.repeat([0.2, 0.6], 100))
    np.testing.assert_allclose(applied(calibration, logit[[0, -1]]), [0.2, 0.6], atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_no_two_values_change_places_or_become_equal(method):
    logit, outcome = overconfident(500)
    grid = np.linspace(-6, 6, 200, dtype=np.float32)
    assert (np.diff(applied(fit_calibration(method, logit, outcome), grid).astype(np.float64)) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_is_kept_with_the_weights(method, tmp_path):
    torch.manual_seed(0)
    network = ValueEnsemble(4, members=3, hidden=16)
    calibration = fit_calibration(method, *overconfident(2000))
    latent, words = torch.randn(6, 4), ["soup"] * 6
    raw = ValueModel(network, "ranking").score(latent, words)
    model = ValueModel(network, "ranking", calibration)
    assert np.abs(model.score(latent, words).value - raw.value).max() > 0.005
    model.save(tmp_path / "value.safetensors")
    again = value_model.load(tmp_path)
    assert again.calibration == calibration
    np.testing.assert_allclose(again.score(latent, words).value, model.score(latent, words).value, rtol=1e-2)


def test_a_value_without_calibration_stays_as_it_was(tmp_path):
    model = ValueModel(ValueEnsemble(4, members=3, hidden=16), "success_discounted")
    model.save(tmp_path / "value.safetensors")
    assert value_model.load(tmp_path).calibration is None
    latent, words = torch.randn(5, 4), ["soup"] * 5
    logits = model.network(latent, model.words(words))
    np.testing.assert_array_equal(model.score(latent, words).value, logits.sigmoid().mean(0).numpy())


def test_particles_are_calibrated_head_by_head():
    torch.manual_seed(0)
    calibration = Calibration("platt", slope=0.5, offset=-1.0)
    model = ValueModel(ValueEnsemble(4, members=3, hidden=16), "ranking", calibration)
    latent = torch.randn(5, 4)
    point = model.score(latent, ["soup"] * 5)
    heads = (0.5 * model.network(latent, model.words(["soup"] * 5)) - 1).sigmoid()
    np.testing.assert_allclose(point.value, heads.mean(0), rtol=1e-5)
    np.testing.assert_allclose(point.spread, heads.std(0, unbiased=False), rtol=1e-4)
    for particles in (2, 3):
        many = model.score(latent[:, None].expand(-1, particles, -1), ["soup"] * 5)
        np.testing.assert_allclose(many.value, point.value, rtol=1e-5)


def test_what_cannot_be_calibrated_is_said():
    logit, outcome = overconfident(200)
    with pytest.raises(ForethoughtError, match="Unknown calibration"):
        fit_calibration("magic", logit, outcome)
    with pytest.raises(ForethoughtError, match="labels"):
        fit_calibration("platt", logit, np.zeros(200))
    with pytest.raises(ForethoughtError, match="wrong way round"):
        fit_calibration("platt", logit, 1 - outcome)
