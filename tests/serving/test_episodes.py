"""Where episodes begin, in a protocol that does not say."""

from __future__ import annotations

import numpy as np
import pytest

from forethought.interfaces import Observation
from forethought.wrappers.serving.episodes import RESET_KEY, EpisodeWatch


def seen(body=(0.0,) * 8, task: str = "push") -> Observation:
    return Observation({}, np.asarray(body, np.float32)[None], (task,))


class Client:
    """A robot whose hand moves a centimetre a step, and its clock."""

    def __init__(self, **options) -> None:
        self.watch, self.now = EpisodeWatch(**options), 100.0
        self.body = np.array([0.4, 0.0, 0.3, 3.1, 0.0, 0.0, 0.04, -0.04])

    def step(self, task: str = "push", wait: float = 0.1, move=None, **told) -> str:
        self.now += wait
        moved = np.full(8, 0.01) * (-1) ** int(10 * self.now) if move is None else np.asarray(move)
        self.body = self.body + moved
        why = self.watch.begins(told, seen(self.body, task), self.now)
        self.watch.answered(self.now)
        return why


@pytest.fixture
def client() -> Client:
    client = Client()
    assert client.step() == "first observation"
    for _ in range(8):
        assert client.step() == ""
    return client


def test_an_episode_that_goes_on_is_left_alone(client):
    luck = np.random.default_rng(0)
    for _ in range(300):
        assert client.step(move=luck.normal(0, 0.01, 8)) == ""


def test_another_task_begins_one(client):
    assert client.step(task="pull") == "another task"
    assert client.step(task="pull") == ""


def test_a_long_silence_begins_one_but_not_a_slow_answer(client):
    assert client.step(wait=19.0) == ""
    assert client.step(wait=21.0) == "silent for 21 s"
    client.now += 60.0  # while it is our turn
    client.watch.answered(client.now)
    assert client.step() == ""


def test_a_robot_that_is_suddenly_elsewhere_begins_one(client):
    assert client.step(move=np.full(8, 0.3)) == "the robot is elsewhere"
    assert client.step() == ""


def test_an_angle_that_wraps_around_does_not(client):
    assert client.step(move=[0.01, 0, 0, -6.2, 0.2, 0.2, 0, 0]) == ""


def test_a_gripper_that_closes_does_not(client):
    assert client.step(move=[0.01, 0, 0, 0, 0, 0, -0.3, 0.3]) == ""


def test_fast_robots_are_measured_by_their_own_steps():
    client = Client()
    client.step()
    for _ in range(8):
        assert client.step(move=np.random.default_rng(1).normal(0, 0.2, 8)) == ""
    assert client.step(move=np.full(8, 0.3)) == ""


def test_the_first_steps_of_an_episode_are_no_measure():
    client = Client()
    client.step()
    for _ in range(3):
        assert client.step(move=np.zeros(8)) == ""
    assert client.step(move=np.full(8, 0.3)) == ""


@pytest.mark.parametrize(
    "told",
    [
        {RESET_KEY: True},
        {"reset": True},
        {"observation/is_first": np.array([True])},
        {"observation.episode_start": 1},
    ],
)
def test_a_flag_begins_one_and_its_absence_does_not(client, told):
    assert client.step(**told) == "told"
    assert client.step(**dict.fromkeys(told, False)) == ""


def test_who_counts_steps_is_believed_before_what_looks_like_a_beginning(client):
    assert client.step(step=0) == ""
    for index in range(1, 6):
        assert client.step(step=index) == ""
    assert client.step(step=6, wait=60.0, move=np.full(8, 0.5)) == ""
    assert client.step(step=0) == "told: the steps start again"


def test_who_names_episodes_is_believed(client):
    assert client.step(episode_index=np.int64(3)) == ""
    assert client.step(episode_index=np.int64(3), move=np.full(8, 0.5)) == ""
    assert client.step(episode_index=np.int64(4)) == "told: another episode"


def test_numbers_that_are_none_do_not_hurt(client):
    assert client.step(move=np.full(8, np.nan)) == ""
    assert client.step() == ""
    assert client.watch.begins({"step": "x", "reset": [1], "episode": None}, seen(), client.now) == ""
    assert client.watch.begins({}, seen(np.zeros(3)), client.now) == ""
