import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from forethought.text import text_features
from forethought.world_models.encoder import (
    ObservationEncoder,
    privileged_features,
    proprioception_features,
    random_shift,
    rotation_matrix,
)


def test_rotation_matrix_agrees_with_scipy():
    vectors = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    ours = rotation_matrix(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(ours, Rotation.from_rotvec(vectors).as_matrix(), atol=1e-5)


def test_antipodal_axis_angles_have_the_same_features():
    turn = np.pi - 1e-3
    here = torch.tensor([[0, 0, 0, turn, 0, 0, 0.04, -0.04]], dtype=torch.float32)
    there = torch.tensor([[0, 0, 0, turn - 2 * np.pi, 0, 0, 0.04, -0.04]], dtype=torch.float32)
    torch.testing.assert_close(
        proprioception_features(here), proprioception_features(there), atol=1e-4, rtol=0
    )


def test_privileged_features_are_relative_to_the_end_effector():
    body = torch.zeros(1, 8)
    body[0, :3] = torch.tensor([1.0, 2.0, 3.0])
    state = torch.arange(18.0)[None]
    features = privileged_features(body, state)
    torch.testing.assert_close(features[0, :3], torch.tensor([-1.0, -1.0, -1.0]))
    torch.testing.assert_close(features[0, 9:12], torch.tensor([8.0, 8.0, 8.0]))
    torch.testing.assert_close(features[0, 3:9], state[0, 3:9])


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return ObservationEncoder(["wrist"], image_size=32, features=6).eval()


def test_latent_depends_on_image_instruction_and_body(encoder):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 255, (1, 32, 32, 3), generator=generator, dtype=torch.uint8)
    body, words = torch.rand(1, 8, generator=generator), text_features(["pick up the soup"])
    latent = encoder({"wrist": image}, body, words)
    assert latent.shape == (1, encoder.latent_size)
    assert not torch.allclose(latent, encoder({"wrist": 255 - image}, body, words))
    assert not torch.allclose(latent, encoder({"wrist": image}, body + 0.1, words))
    assert not torch.allclose(latent, encoder({"wrist": image}, body, text_features(["open the drawer"])))


def test_images_of_another_size_are_resized(encoder):
    image = torch.full((1, 128, 128, 3), 100, dtype=torch.uint8)
    assert encoder.pixels(image).shape == (1, 3, 32, 32)
    torch.testing.assert_close(encoder.pixels(image), encoder.pixels(image[:, :32, :32]))


def test_random_shift_moves_but_keeps_the_content():
    image = torch.zeros(64, 16, 16, 3, dtype=torch.uint8)
    image[:, 8, 8] = 200
    moved = random_shift(image, torch.Generator().manual_seed(0), pixels=2)
    assert moved.shape == image.shape
    assert (moved.sum((1, 2, 3)) == 600).all()
    rows = (moved[..., 0] == 200).nonzero()[:, 1]
    assert rows.min() == 6 and rows.max() == 10
