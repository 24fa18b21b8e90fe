"""Bandwidths chosen by cross-validation: the one that made the data is found."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import ARM

from forethought.interfaces import ActionSpec, ForethoughtError
from forethought.planner import ChunkSpace, choose_bandwidth


def two_episodes(width: float, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Centres far apart, and one draw from the kernel on each: left out in turn, either is likeliest under
    kernels of the width that made the draws."""
    rng = np.random.default_rng(3)
    space = ChunkSpace(ARM, 6)
    centres = ARM.clip(rng.uniform(-0.5, 0.5, (n, 6, 7)))
    drawn = centres.astype(np.float64)
    drawn[..., space.continuous] += space.deviation(width * rng.normal(size=(n, space.dimension)))
    drawn[..., 6] *= rng.choice([-1.0, 1.0], (n, 1))  # a gripper must not matter
    return np.concatenate([centres, drawn]), np.repeat([0, 1], n)


@pytest.mark.parametrize("width", [0.02, 0.05])
def test_the_width_that_made_the_data_is_found(width):
    chunks, episodes = two_episodes(width)
    widths = width * np.array([0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0])
    found = choose_bandwidth(chunks, ARM, groups=episodes, widths=widths[::-1])
    assert found.width == pytest.approx(width)
    assert not found.at_edge
    np.testing.assert_allclose(found.widths, widths)
    assert found.log_likelihood.argmax() == 3


def test_the_likelihood_is_that_of_the_kernels():
    chunks, episodes = two_episodes(0.05, n=3)
    found = choose_bandwidth(chunks, ARM, groups=episodes, widths=[0.05], shared_noise=0.5)
    space = ChunkSpace(ARM, 6, 0.5)
    first, second = np.split(space.whiten(chunks), 2)
    squared = ((first[:, None] - second) ** 2).sum(axis=-1)
    kernel = np.exp(-0.5 * squared / 0.05**2) / (2.0 * np.pi * 0.05**2) ** (0.5 * space.dimension)
    left_out = np.log(np.concatenate([kernel.mean(axis=1), kernel.mean(axis=0)])) + space.log_det
    assert found.log_likelihood[0] == pytest.approx(left_out.mean())


def test_without_groups_the_chunks_of_an_episode_vouch_for_one_another():
    chunks, _ = two_episodes(0.1, n=30)
    again = np.concatenate([chunks, chunks + 1e-3])
    episodes = np.tile(np.repeat([0, 1], 30), 2)
    assert choose_bandwidth(again, ARM).width < 0.5 * choose_bandwidth(again, ARM, groups=episodes).width


def test_a_choice_at_the_edge_says_so_and_the_same_seed_chooses_the_same():
    chunks, _ = two_episodes(0.02)
    first, again = (choose_bandwidth(chunks, ARM, widths=[1.0, 2.0], seed=4) for _ in range(2))
    assert first.at_edge
    np.testing.assert_array_equal(first.log_likelihood, again.log_likelihood)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunks": np.zeros((4, 6, 3))}, "A=7"),
        ({"chunks": np.full((4, 6, 7), np.nan)}, "finite"),
        ({"chunks": np.zeros((1, 6, 7))}, "two chunks"),
        ({"groups": [1] * 8}, "two groups"),
        ({"groups": [1, 2]}, "one group per chunk"),
        ({"folds": 1}, "folds=1"),
        ({"widths": []}, "positive"),
        ({"widths": [0.1, 0.0]}, "positive"),
        ({"chunks": np.zeros((4, 6, 1)), "action_spec": ActionSpec([0.0], [1.0], gripper=(0,))}, "binary"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(options, words):
    given = {"chunks": np.zeros((8, 6, 7)), "action_spec": ARM} | options
    with pytest.raises(ForethoughtError, match=words):
        choose_bandwidth(**given)
