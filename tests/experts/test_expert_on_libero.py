"""The expert does its work on the real benchmark. Initial states 30 and up are never touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.experiments.data.collect import collect
from forethought.experiments.data.hdf5 import read_episodes
from forethought.experiments.data.record import record_episode
from forethought.experiments.data.sources import ExpertSource

pytestmark = [pytest.mark.libero, pytest.mark.slow]


def environment(suite: str, task: int) -> Any:
    pytest.importorskip("robosuite")
    from forethought.experiments.benchmarks.libero import LiberoBenchmark

    return LiberoBenchmark(
        suite=suite, camera_size=16, cheap_rendering=True, stepping="fast", cameras=()
    ).make(task)


@pytest.mark.parametrize(("suite", "task"), [("libero_object", 1), ("libero_spatial", 4)])
def test_the_expert_succeeds_under_noise(suite: str, task: int) -> None:
    env = environment(suite, task)
    try:
        actor = ExpertSource(noise=0.1).actor(env)
        episodes = [record_episode(env, actor, init_state=i, seed=i, source="expert") for i in (0, 17)]
    finally:
        env.close()
    assert [episode.success for episode in episodes] == [True, True]
    for episode in episodes:
        assert np.abs(episode.actions).max() <= 1.0
        assert np.std(episode.executed_actions - episode.actions) > 0.02


def test_a_dropped_object_is_picked_up_again_only_where_recovery_is_on() -> None:
    env = environment("libero_object", 0)
    try:
        outcomes = {
            recover: record_episode(
                env,
                ExpertSource(noise=0.0, early_release=1.0, recover=recover).actor(env),
                init_state=3,
                seed=1,
                source="expert",
            )
            for recover in (True, False)
        }
    finally:
        env.close()
    assert outcomes[True].success
    assert not outcomes[False].success
    closed = outcomes[True].actions[:, 6] > 0
    assert np.sum(closed[1:] & ~closed[:-1]) >= 2


def test_a_collected_episode_replays_to_its_recorded_states(tmp_path: Path) -> None:
    pytest.importorskip("robosuite")
    from forethought.experiments.benchmarks.libero import LiberoBenchmark

    settings = {"suite": "libero_object", "camera_size": 16, "cheap_rendering": True, "stepping": "fast"}
    collect(
        {"_target_": "forethought.experiments.benchmarks.libero.LiberoBenchmark", **settings},
        ExpertSource(noise=0.2, image_stride=8),
        out=tmp_path,
        episodes_per_task=1,
        tasks=[7],
        quiet=True,
    )
    (episode,) = read_episodes(tmp_path)
    assert episode.images("agentview_rgb").shape == (len(episode.image_steps), 16, 16, 3)
    env = LiberoBenchmark(**settings).make(7)
    try:
        env.reset(options={"init_state": episode.init_state})
        env.execute(episode.executed_actions)
        np.testing.assert_allclose(env.proprioception(), episode.proprioception[-1], atol=1e-6)
        assert env.success == episode.success
    finally:
        env.close()
