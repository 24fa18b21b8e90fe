import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError, Observation, WorldModel
from forethought.text import text_features
from forethought.world_models import latent as latent_model
from forethought.world_models.dynamics import ChunkDynamics
from forethought.world_models.encoder import CONTEXT_SIZE, ObservationEncoder, instruction_context
from forethought.world_models.latent import LatentWorldModel


def make_model(members=3, privileged=True):
    torch.manual_seed(0)
    encoder = ObservationEncoder(["wrist"], image_size=32, features=18)
    dynamics = ChunkDynamics(
        encoder.latent_size + CONTEXT_SIZE, CONTEXT_SIZE, horizon=4, action_size=7, members=members, hidden=32
    )
    return LatentWorldModel(encoder, dynamics, privileged_supervision=privileged)


def make_observation(batch=2, camera="wrist"):
    rng = np.random.default_rng(0)
    return Observation(
        images={camera: rng.integers(0, 255, (batch, 32, 32, 3), dtype=np.uint8)},
        proprioception=rng.normal(size=(batch, 8)).astype(np.float32),
        instruction=("pick up the soup",) * batch,
    )


def test_latent_world_model_speaks_the_protocol():
    assert isinstance(make_model(), WorldModel)


def test_encoded_particles_agree_and_jumps_spread_them():
    model = make_model()
    latent = model.encode(make_observation())
    assert latent.shape == (2, 3, 29 + CONTEXT_SIZE)
    assert torch.equal(latent[:, 0], latent[:, 1])
    prediction = model.step(latent, np.ones((2, 4, 7), np.float32))
    assert prediction.latent.shape == latent.shape
    assert (prediction.disagreement > 0).all()
    assert ((prediction.done >= 0) & (prediction.done <= 1)).all()


def test_the_instruction_stays_in_the_latent():
    model = make_model()
    latent = model.encode(make_observation())
    context = instruction_context(text_features(["pick up the soup"] * 2))
    following = model.step(latent, np.ones((2, 4, 7), np.float32)).latent
    for particles in (latent, following):
        assert torch.equal(particles[..., -CONTEXT_SIZE:], context[:, None].expand(-1, 3, -1))


def test_disagreement_is_the_root_mean_square_deviation_of_the_members():
    model = make_model()
    prediction = model.step(model.encode(make_observation()), np.ones((2, 4, 7), np.float32))
    spread = np.asarray(prediction.latent, np.float64).std(axis=1)
    np.testing.assert_allclose(prediction.disagreement, np.sqrt((spread**2).mean(axis=1)), rtol=1e-4)


def test_equal_members_do_not_disagree():
    model = make_model()
    for parameter in model.dynamics.parameters():
        parameter.data[:] = parameter.data[:1]
    prediction = model.step(model.encode(make_observation()), np.ones((2, 4, 7), np.float32))
    np.testing.assert_allclose(prediction.disagreement, 0, atol=1e-6)


def test_each_particle_goes_its_own_way():
    model = make_model()
    chunk = np.ones((2, 4, 7), np.float32)
    once = model.step(model.encode(make_observation()), chunk).latent
    twice = model.step(once, chunk).latent
    shuffled = model.step(once.flip(1), chunk).latent
    assert not torch.allclose(twice, shuffled.flip(1))


def test_saved_model_predicts_the_same(tmp_path):
    model = make_model()
    model.save(tmp_path, {"episodes": 3})
    again = latent_model.load(tmp_path)
    assert again.privileged_supervision and again.cameras == ("wrist",)
    observation, chunk = make_observation(), np.full((2, 4, 7), 0.3, np.float32)
    before, after = model.step(model.encode(observation), chunk), again.step(again.encode(observation), chunk)
    torch.testing.assert_close(before.latent, after.latent, atol=1e-2, rtol=0)
    again.save(tmp_path / "copy", {})
    copy = latent_model.load(tmp_path / "copy")
    assert torch.equal(copy.step(copy.encode(observation), chunk).latent, after.latent)


def test_missing_camera_is_named():
    with pytest.raises(ForethoughtError, match="wrist"):
        make_model().encode(make_observation(camera="front"))


def test_other_proprioception_is_refused():
    observation = make_observation()
    wrong = Observation(observation.images, observation.proprioception[:, :5], observation.instruction)
    with pytest.raises(ForethoughtError, match=r"\[2, 5\]"):
        make_model().encode(wrong)


def test_other_chunk_length_is_refused():
    model = make_model()
    with pytest.raises(ForethoughtError, match=r"\[M, 4, 7\]"):
        model.step(model.encode(make_observation()), np.zeros((2, 5, 7), np.float32))


def test_simulator_states_need_a_pose_supervised_encoder():
    with pytest.raises(ForethoughtError, match="privileged_supervision"):
        make_model(privileged=False).embed_state(np.zeros((1, 8)), np.zeros((1, 18)), ["soup"])


def test_what_hindsight_told_no_simulator_state_says():
    model = make_model()
    assert model.reads_states
    model.encoder.places = True
    assert not model.reads_states
    with pytest.raises(ForethoughtError, match="in_hindsight=false"):
        model.embed_state(np.zeros((1, 8)), np.zeros((1, 18)), ["soup"])


def test_the_eyes_of_a_folder_see_what_its_model_encodes(tmp_path):
    model = make_model()
    model.save(tmp_path, {})
    seen = latent_model.load_eyes(tmp_path)(make_observation())
    assert seen.shape == model.encode(make_observation())[:, 0].shape
    np.testing.assert_array_equal(seen, latent_model.load(tmp_path).encode(make_observation())[:, 0])


def test_embedded_state_is_standardised_physics():
    model = make_model()
    model.encoder.mean[11:14], model.encoder.std[11:14] = 0.1, 0.5
    body, state = np.zeros((1, 8), np.float32), np.zeros((1, 18), np.float32)
    state[0, :3] = [0.6, 0.1, -0.4]
    np.testing.assert_allclose(model.embed_state(body, state, ["soup"])[0, 11:14], [1, 0, -1], atol=1e-6)


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(ForethoughtError, match="forethought train"):
        latent_model.load(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    (tmp_path / latent_model.FILE).write_bytes(b"not safetensors at all")
    with pytest.raises(ForethoughtError, match="not a readable safetensors"):
        latent_model.load(tmp_path)


def test_disagreement_is_the_error_to_expect_and_survives_saving(tmp_path):
    plain = make_model()
    told = LatentWorldModel(
        plain.encoder, plain.dynamics, privileged_supervision=True, expected_error=(3.0, 0.5)
    )
    told.save(tmp_path, {})
    start = torch.randn(4, plain.dynamics.members, plain.dynamics.shape["latent_size"])
    chunks = np.random.default_rng(0).uniform(-1, 1, (4, plain.horizon, plain.action_size))
    spread = plain.step(start, chunks).disagreement
    np.testing.assert_allclose(told.step(start, chunks).disagreement, 3 * spread**0.5, rtol=1e-5)
    np.testing.assert_allclose(
        latent_model.load(tmp_path).step(start, chunks).disagreement, 3 * spread**0.5, rtol=0.02
    )
