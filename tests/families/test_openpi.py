"""openpi's infer: chunks may be longer than planned, noise makes samples, the generator is left alone."""

from __future__ import annotations

import numpy as np
import pytest

import forethought
from forethought.interfaces import ForethoughtError


class FlowModel:
    """Turns noise into a chunk, as π0 does; its actions are padded to 32 numbers."""

    action_horizon, action_dim = 10, 32

    def sample_actions(self, rng, observation, *, num_steps=10, noise=None):
        noise = rng if noise is None else noise
        return 0.3 * np.tanh(noise)


class TokenModel(FlowModel):
    """Takes no noise, as π0-FAST."""

    def sample_actions(self, rng, observation, *, temperature=0.0):
        return 0.3 * np.tanh(rng)


class Policy:
    """A generator that every call splits, private transforms around the model, a dictionary back."""

    def __init__(self, model=None) -> None:
        self._model = model or FlowModel()
        self._rng = 7
        self.calls = 0

    def infer(self, obs, *, noise=None):
        self.calls += 1
        own = np.random.default_rng(self._rng).standard_normal((10, 32))
        self._rng += 1
        extra = {} if noise is None else {"noise": noise}
        actions = self._model.sample_actions(own, obs, **extra)[:, :7]
        return {"actions": actions, "state": obs["observation/state"], "policy_timing": {"infer_ms": 1.0}}

    def reset(self):
        self._rng = 7


def observation() -> dict:
    return {
        "observation/image": np.zeros((6, 6, 3), np.uint8),
        "observation/state": np.zeros(8),
        "prompt": "open it",
    }


def test_a_kept_chunk_is_the_originals_to_the_bit_though_samples_were_drawn(wrap):
    alone, wrapped = Policy(), wrap(Policy())
    for _ in range(4):
        ours, theirs = wrapped.infer(observation()), alone.infer(observation())
        assert ours.keys() == theirs.keys()
        assert ours["actions"].shape == (10, 7)
        # The gripper of this random policy is not binary; everything else is as it was.
        assert np.array_equal(ours["actions"][:, :6], theirs["actions"][:, :6])
    assert wrapped.calls == 4 * 6
    assert wrapped._rng == alone._rng


def test_samples_start_from_other_noise_and_the_same_seed_draws_the_same(wrap):
    def drawn(seed):
        wrapped = wrap(Policy(), seed=seed)
        wrapped.infer(observation())
        return wrapped.forethought.controller.planner.samples[0].chunks

    assert drawn(1).shape == (1, 6, 8, 7)
    assert len(np.unique(drawn(1)[0, :, 0, 0])) == 6
    assert np.array_equal(drawn(1), drawn(1)) and not np.array_equal(drawn(1), drawn(2))


def test_a_model_without_noise_is_asked_once(wrap):
    wrapped = wrap(Policy(TokenModel()))
    wrapped.infer(observation())
    assert wrapped.calls == 1
    assert wrapped.forethought.controller.planner.samples[0].chunks.shape[1] == 1


def test_a_planned_chunk_has_the_steps_that_were_planned(wrap):
    wrapped = wrap(Policy(), "rising")
    answer = wrapped.infer(observation())
    assert np.allclose(answer["actions"][:, 0], 0.1 * np.arange(1, 9))
    assert answer["policy_timing"] == {"infer_ms": 1.0}


def test_noise_of_the_callers_is_used_for_the_calls_own_chunk(wrap):
    noise = np.ones((10, 32), np.float32)
    ours = wrap(Policy()).infer(observation(), noise=noise)["actions"]
    assert np.array_equal(ours[:, :6], Policy().infer(observation(), noise=noise)["actions"][:, :6])


def test_a_client_is_found_by_its_ancestors(wrap):
    class BasePolicy:
        """As of openpi_client."""

    BasePolicy.__module__ = "openpi_client.base_policy"

    class Client(BasePolicy):
        def infer(self, obs):
            return {"actions": np.zeros((50, 7))}

    from forethought.wrappers.policies import openpi

    assert openpi.matches(Client()) and openpi.matches(Policy())
    wrapped = wrap(Client(), "rising")
    assert wrapped.infer(observation())["actions"].shape == (8, 7)
    assert isinstance(wrapped, Client)


def test_an_object_of_somebody_else_with_infer_is_not_openpis():
    from forethought.wrappers.policies import openpi

    class Other:
        def infer(self, observation):
            return np.zeros((8, 7))

    assert not openpi.matches(Other())


def test_a_chunk_shorter_than_the_models_is_refused(wrap):
    with pytest.raises(ForethoughtError, match=r"\[10, 7\]"):
        wrap(Policy(), horizon=16).infer(observation())


def test_it_is_unwrapped(wrap):
    policy = Policy()
    assert forethought.unwrap(wrap(policy)) is policy
