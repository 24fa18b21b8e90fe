"""Every family through whole episodes of PushT, driven by LeRobot's own rollout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="LeRobot has an environment of its own: make test-lerobot")

import pusht_models
import tiny_policies as tiny
import torch
from lerobot.envs.configs import PushtEnv
from lerobot.envs.factory import make_env, make_env_pre_post_processors
from lerobot.scripts.lerobot_eval import rollout
from tiny import FAMILIES, build

import forethought

STEPS, SEEDS = 24, (5, 6)
CAMERAS = ("image",)


@pytest.fixture(scope="module")
def environment():
    settings = PushtEnv(episode_length=STEPS)
    made = make_env(settings, n_envs=len(SEEDS))["pusht"][0]
    yield settings, made
    made.close()


@pytest.fixture(params=FAMILIES)
def checkpoint(request, tmp_path) -> tuple[Any, Any]:
    """A policy and its processors; in the middle of the table, give or take what its weights say."""
    policy = build(request.param, tmp_path, seed=1, shape=tiny.features(2, 2, CAMERAS, 96))
    if request.param == "xvla":
        policy.config.normalization_mapping |= {"STATE": tiny.MEAN_STD, "ACTION": tiny.MEAN_STD}
    table = {"mean": np.float32([250, 260]), "std": np.float32([20, 25])}
    table |= {"min": np.float32([200, 210]), "max": np.float32([300, 310])}
    stats = tiny.statistics(2, 2, CAMERAS) | {"observation.state": table, "action": table}
    return policy, tiny.processors(policy, stats)


def drive(environment, policy: Any, processors: tuple[Any, Any]) -> dict[str, np.ndarray]:
    settings, made = environment
    around = make_env_pre_post_processors(settings, None)  # knowing X-VLA, it would prepare for LIBERO
    torch.manual_seed(0)
    with torch.no_grad():
        done = rollout(made, policy, *around, *processors, seeds=list(SEEDS))
    return {name: done[name].numpy() for name in ("action", "reward")}


def test_an_episode_that_search_leaves_to_the_policy_is_the_policys(checkpoint, environment):
    policy, processors = checkpoint
    alone = drive(environment, policy, processors)
    wrapped = forethought.wrap(policy, models=pusht_models.load(), processors=processors, margin=2.0)
    kept = drive(environment, wrapped, processors)
    assert np.array_equal(kept["action"], alone["action"])
    assert np.array_equal(kept["reward"], alone["reward"])
    assert wrapped.forethought.last.simulations.min() > 1
    assert not wrapped.forethought.counters


def test_an_episode_with_search_goes_where_the_value_is(checkpoint, environment):
    policy, processors = checkpoint
    models = pusht_models.load()
    alone = drive(environment, policy, processors)
    wrapped = forethought.wrap(policy, models=models, processors=processors, simulations=32)
    planned = drive(environment, wrapped, processors)
    ends = slice(7, None, 8)  # of the chunks that the models know
    worth = [
        models.reward_model.score(episode["action"][:, ends].reshape(-1, 2), ()).value.mean()
        for episode in (alone, planned)
    ]
    assert worth[1] > worth[0] + 0.01
    assert wrapped.forethought.last.simulations.max() <= 32
    assert wrapped.forethought.last.overridden.any()
    assert not wrapped.forethought.counters
