import numpy as np
import pytest
import torch

from forethought.interfaces import ForethoughtError, Observation, WorldModel
from forethought.world_models.dynamics import ChunkDynamics
from forethought.world_models.encoder import CONTEXT_SIZE, ObservationEncoder
from forethought.world_models.latent import LatentWorldModel
from forethought.world_models.told import ToldWorldModel, load


class Environment:
    """Tells a state that no picture shows."""

    def __init__(self, seed):
        random = np.random.default_rng(seed)
        self.body = random.normal(size=8).astype(np.float32)
        self.objects = random.normal(size=18).astype(np.float32)

    def proprioception(self):
        return self.body

    def privileged_state(self):
        return self.objects


def make_model(privileged=True):
    torch.manual_seed(0)
    encoder = ObservationEncoder(["wrist"], image_size=32, features=18)
    sizes = encoder.latent_size + CONTEXT_SIZE, CONTEXT_SIZE
    dynamics = ChunkDynamics(*sizes, horizon=4, action_size=7, members=3, hidden=32)
    return LatentWorldModel(encoder, dynamics, privileged_supervision=privileged)


def observe(seed=0, batch=1):
    """What the cameras and the joints say has nothing to do with what the environment tells."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 255, (batch, 32, 32, 3), dtype=np.uint8)
    body = random.normal(size=(batch, 8)).astype(np.float32)
    return Observation({"wrist": images}, body, ("pick up the soup",) * batch)


@pytest.fixture
def told():
    model = ToldWorldModel(make_model())
    model.attach(Environment(1))
    return model


def test_the_latent_is_the_state_whatever_is_seen(told):
    latent, environment = told.encode(observe(0)), Environment(1)
    assert torch.equal(latent, told.encode(observe(5)))
    body, objects = environment.body[None], environment.objects[None]
    exact = told.inner.embed_state(body, objects, ["pick up the soup"])
    assert latent.shape == (1, 3, told.inner.encoder.latent_size + CONTEXT_SIZE)
    np.testing.assert_array_equal(latent, np.repeat(exact[:, None], 3, axis=1))
    told.attach(Environment(2))
    assert not torch.equal(latent, told.encode(observe(0)))


def test_it_imagines_what_the_learned_model_does(told):
    assert isinstance(told, WorldModel)
    latent, chunks = told.encode(observe()), np.full((1, 4, 7), 0.3, np.float32)
    ours, learned = told.step(latent, chunks), told.inner.step(latent, chunks)
    assert torch.equal(ours.latent, learned.latent)
    np.testing.assert_array_equal(ours.disagreement, learned.disagreement)


def test_without_an_environment_or_with_many_it_says_what_is_missing(told):
    with pytest.raises(ForethoughtError, match="attach"):
        ToldWorldModel(make_model()).encode(observe())
    with pytest.raises(ForethoughtError, match="B = 1"):
        told.encode(observe(batch=2))


def test_a_latent_of_more_than_poses_cannot_be_told(tmp_path):
    with pytest.raises(ForethoughtError, match="privileged_supervision"):
        ToldWorldModel(make_model(privileged=False))
    make_model().save(tmp_path, {})
    assert load(tmp_path).privileged_supervision
