"""Families over episodes of the real LIBERO, with the shipped models and the real planner."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import forethought

pytestmark = pytest.mark.libero
DECISIONS = 6


@pytest.fixture(scope="module")
def environment():
    pytest.importorskip("libero", reason="LIBERO is not installed")
    from forethought.experiments.benchmarks.libero import LiberoBenchmark

    benchmark = LiberoBenchmark(suite="libero_object", camera_size=64, stepping="fast", mesh_faces=2000)
    made = benchmark.make(0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def network():
    from forethought.wrappers.policies import reference

    return reference.load("libero_object")


class Pi:
    """The reference policy as openpi would serve it: noise in, a chunk of ten steps out."""

    class Model:
        action_horizon, action_dim = 8, 7

        def sample_actions(self, rng, observation, *, noise=None): ...

    def __init__(self, network: Any) -> None:
        self._network, self._model, self._rng = network, Pi.Model(), 0

    def infer(self, obs, *, noise=None):
        observation = forethought.Observation(
            {"eye_in_hand_rgb": obs["observation/wrist_image"][None]},
            obs["observation/state"][None],
            (obs["prompt"],),
        )
        seed = self._rng if noise is None else int(1e6 * abs(noise[0, 0]))
        self._rng += noise is None
        chunk = self._network.propose(observation, 1, np.array([seed])).chunks[0, 0]
        return {
            "actions": np.concatenate([chunk, chunk[-1:], chunk[-1:]]),
            "policy_timing": {"infer_ms": 1.0},
        }


class Simpler:
    """The same as SimplerEnv drives policies: one action a step."""

    def __init__(self, network: Any) -> None:
        self._pi, self.task_description, self.state = Pi(network), None, np.zeros(8, np.float32)
        self._chunk: list[np.ndarray] = []

    def reset(self, task_description: str) -> None:
        self.task_description, self._chunk = task_description, []

    def step(self, image, task_description=None):
        if not self._chunk:
            seen = {"observation/wrist_image": image, "observation/state": self.state}
            self._chunk = list(self._pi.infer({**seen, "prompt": self.task_description})["actions"][:8])
        action = self._chunk.pop(0)
        parts = {"world_vector": action[:3], "rot_axangle": action[3:6], "gripper": action[6:]}
        return dict(parts), {**parts, "terminate_episode": np.array([0.0])}


def drive_pi(policy: Any, environment: Any) -> np.ndarray:
    environment.start(seed=0, init_state=22)
    executed = []
    for _ in range(DECISIONS):
        seen = environment.observe()
        element = {
            "observation/image": seen.images["agentview_rgb"][0],
            "observation/wrist_image": seen.images["eye_in_hand_rgb"][0],
            "observation/state": seen.proprioception[0],
            "prompt": seen.instruction[0],
        }
        chunk = policy.infer(element)["actions"][:8]
        environment.execute(np.float32(chunk))
        executed.append(chunk)
    return np.stack(executed)


def drive_simpler(policy: Any, environment: Any, steps: int = 16) -> np.ndarray:
    environment.start(seed=0, init_state=22)
    policy.reset(environment.observe().instruction[0])
    executed = []
    for _ in range(steps):
        seen = environment.observe()
        policy.state = seen.proprioception[0]
        with forethought.seeing(seen):
            action = policy.step(seen.images["eye_in_hand_rgb"][0], seen.instruction[0])[1]
        executed.append(np.concatenate([action[name] for name in ("world_vector", "rot_axangle", "gripper")]))
        environment.step(executed[-1])
    return np.stack(executed)


KINDS = {"openpi": (Pi, drive_pi), "SimplerEnv": (Simpler, drive_simpler)}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request, network):
    policy, drive = request.param
    return lambda: policy(network), drive


def test_a_search_that_keeps_the_policy_changes_no_action_of_an_episode(kind, environment):
    make, drive = kind
    wrapped = forethought.wrap(make(), models="libero_object", simulations=8, margin=2.0)
    assert np.array_equal(drive(wrapped, environment), drive(make(), environment))
    assert not wrapped.forethought.counters


def test_a_search_overrides_within_its_budget_and_the_bounds(kind, environment):
    make, drive = kind
    wrapped = forethought.wrap(make(), models="libero_object", simulations=8)
    executed = drive(wrapped, environment)
    decision = wrapped.forethought.last
    assert not np.array_equal(executed, drive(make(), environment))
    assert decision.simulations.max() <= 8
    assert np.abs(executed).max() <= 1.0
    assert not wrapped.forethought.counters
    assert set(np.unique(executed[..., 6])) <= {-1.0, 1.0}


def test_a_guard_keeps_the_robot_in_its_box(network, environment):
    environment.start(seed=0, init_state=22)
    start = environment.observe().proprioception[0, :3].astype(float)
    limits = forethought.Limits(
        20, workspace_low=tuple(start - 0.02), workspace_high=tuple(start + 0.02), speed=0.4, frozen=3
    )
    wrapped = forethought.wrap(Pi(network), models="libero_object", simulations=8, guard=limits)
    drive_pi(wrapped, environment)
    end = environment.observe().proprioception[0, :3]
    assert np.abs(end - start).max() < 0.03  # the controller may overshoot by a few millimetres
    assert any("workspace" in text for text in wrapped.forethought.last.guard)
