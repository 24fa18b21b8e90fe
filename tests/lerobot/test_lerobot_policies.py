"""LeRobot's own policies, wrapped: what they are told, what they answer, and what stays as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="LeRobot has an environment of its own: make test-lerobot")

import tiny_policies as tiny
import torch
from tiny import FAMILIES, SAMPLED, build

import forethought
import forethought.wrappers.guard
from forethought.interfaces import ActionSpec, ForethoughtError

HORIZON = 4
CAMERAS = ("images.image", "images.image2")


class Made:
    """A policy, its processors, and how to run it."""

    def __init__(self, family: str, folder: Any, state: int = 8, action: int = 7, **given: Any) -> None:
        cameras = CAMERAS[:1] if family == "vqbet" else CAMERAS
        self.state, self.action, self.cameras = state, action, cameras
        shape = tiny.features(state, action, cameras)
        self.policy = build(family, folder, seed=3, shape=shape, **given)
        self.processors = tiny.processors(self.policy, tiny.statistics(state, action, cameras))

    def run(self, policy: Any, shown: list[dict], seed: int = 0) -> np.ndarray:
        """The actions ``[T, B, A]`` of an episode, as LeRobot's evaluation makes them."""
        before, after = self.processors
        torch.manual_seed(seed)
        policy.reset()
        actions = []
        for observation in shown:
            batch = before(copy.deepcopy(observation))
            with torch.inference_mode():
                actions.append(after(policy.select_action(batch)).numpy())
        return np.stack(actions)


@pytest.fixture
def make(tmp_path):
    return lambda family, **given: Made(family, tmp_path, **given)


@pytest.fixture
def wrap(wide):
    def wrapped(made: Made, planner: Any, **given: Any) -> Any:
        options = {"action_spec": wide(made.action), "horizon": HORIZON, "processors": made.processors}
        return forethought.wrap(made.policy, planner=planner, **(options | given))

    return wrapped


@pytest.mark.parametrize("family", FAMILIES)
class TestEveryFamily:
    def test_a_policy_that_is_never_overridden_acts_as_if_it_were_not_wrapped(
        self, family, make, wrap, plan, observations
    ):
        made, keep = make(family), plan()
        wrapped = wrap(made, keep)
        shown = observations(20, 2, made.state, made.cameras)
        alone = made.run(made.policy, shown)
        assert np.array_equal(made.run(wrapped, shown), alone)
        assert len(keep.seen) == 5  # every HORIZON steps of a chunk of twice that
        assert not wrapped.forethought.counters
        assert np.array_equal(made.run(made.policy, shown), alone)

    def test_a_dry_run_decides_and_lets_the_policy_act_as_if_it_were_not_wrapped(
        self, family, make, wrap, plan, observations
    ):
        made, better = make(family), plan(rows=None)
        dry = wrap(made, better, dry_run=True)
        shown = observations(10, 2, made.state, made.cameras)
        assert np.array_equal(made.run(dry, shown), made.run(made.policy, shown))
        assert dry.forethought.last.overridden.all()

    def test_a_guard_that_remembers_is_told_every_action(self, family, make, wrap, plan, observations, wide):
        class Noting(forethought.wrappers.guard.Guard):
            def __init__(self, spec):
                super().__init__(spec)
                self.told = []

            def notice(self, observation, executed, milliseconds):
                self.told.append(executed)

        made = make(family)
        guard = Noting(wide(made.action))
        actions = made.run(
            wrap(made, plan(rows=None), guard=guard), observations(10, 2, made.state, made.cameras)
        )
        told = np.concatenate([one for one in guard.told if one is not None], axis=1)
        np.testing.assert_allclose(told, actions[:8].transpose(1, 0, 2), atol=1e-4)

    def test_a_plan_is_what_the_environment_gets(self, family, make, wrap, plan, observations):
        made, better = make(family), plan(rows=None)
        actions = made.run(wrap(made, better), observations(10, 2, made.state, made.cameras))
        expected = better.chunk(HORIZON, made.action)
        assert len(better.seen) == 3
        for start in (0, 4, 8):
            planned = actions[start : start + HORIZON]
            assert np.allclose(planned, expected[: len(planned), None], atol=1e-5)

    def test_the_planner_sees_what_the_environment_showed(self, family, make, wrap, plan, observations):
        made, keep = make(family), plan()
        shown = observations(5, 2, made.state, made.cameras)
        made.run(wrap(made, keep), shown)
        for seen, raw in zip(keep.seen, (shown[0], shown[4]), strict=True):
            assert np.allclose(seen.proprioception, raw["observation.state"].numpy(), atol=1e-5)
            assert seen.instruction == ("push the block",) * 2
            for name in made.cameras:
                pixels = (raw[f"observation.{name}"] * 255).round().byte().permute(0, 2, 3, 1).numpy()
                assert np.array_equal(seen.images[name.split(".")[-1]], pixels)

    def test_the_first_sample_is_what_the_policy_does(self, family, make, wrap, plan, observations):
        made, keep = make(family), plan()
        actions = made.run(wrap(made, keep), observations(8, 2, made.state, made.cameras))
        own = np.concatenate([samples[:, 0] for samples in keep.samples], axis=1)
        assert np.array_equal(own.swapaxes(0, 1), actions)

    def test_the_object_stays_what_it_was(self, family, make, wrap, plan, observations):
        made = make(family)
        before = {name: value.clone() for name, value in made.policy.state_dict().items()}
        wrapped = wrap(made, plan(rows=None))
        made.run(wrapped, observations(6, 2, made.state, made.cameras))
        assert isinstance(wrapped, type(made.policy))
        assert forethought.unwrap(wrapped) is made.policy
        assert wrapped.config is made.policy.config
        after = wrapped.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert set(vars(made.policy)) == set(vars(make(family).policy))

    def test_a_chunk_is_planned_where_a_chunk_is_asked_for(self, family, make, wrap, plan, observations):
        made, better = make(family), plan(rows=[1])
        wrapped = wrap(made, better)
        before, after = made.processors
        batch = before(observations(1, 2, made.state, made.cameras)[0])
        if family in ("diffusion", "vqbet"):  # their chunk comes from what select_action collected
            wrapped.select_action(copy.copy(batch))
            stacked = torch.stack([batch[f"observation.{name}"] for name in made.cameras], dim=-4)
            batch["observation.images"] = stacked
        torch.manual_seed(0)
        own = made_chunk(made, wrapped, batch)
        torch.manual_seed(0)
        chunk = wrapped.predict_action_chunk(copy.copy(batch))
        assert chunk.shape == own.shape
        assert torch.equal(chunk[0], own[0])
        assert torch.equal(chunk[1, HORIZON:], own[1, HORIZON:])
        planned = after(chunk[1, :HORIZON]).numpy()
        assert np.allclose(planned, better.chunk(HORIZON, made.action), atol=1e-5)


def made_chunk(made: Made, wrapped: Any, batch: dict[str, Any]) -> torch.Tensor:
    """What the policy itself makes of a batch, in the state that the wrapped one is in."""
    return type(made.policy).predict_action_chunk(wrapped, copy.copy(batch))


@pytest.mark.parametrize("family", SAMPLED)
class TestSamples:
    def test_a_policy_that_draws_gives_as_many_as_the_planner_compares(
        self, family, make, wrap, plan, observations
    ):
        made, keep = make(family), plan()
        made.run(wrap(made, keep), observations(5, 2, made.state, made.cameras))
        for samples in keep.samples:
            assert samples.shape == (2, 5, HORIZON, made.action)
            assert len(np.unique(samples[0].reshape(5, -1), axis=0)) > 1

    def test_the_same_seed_draws_the_same_and_another_does_not(self, family, make, wrap, plan, observations):
        made = make(family)
        shown = observations(1, 2, made.state, made.cameras)
        drawn = []
        for seed in (1, 1, 2):
            keep = plan()
            made.run(wrap(made, keep, seed=seed), shown)
            drawn.append(keep.samples[0])
        assert np.array_equal(drawn[0], drawn[1])
        assert np.array_equal(drawn[0][:, 0], drawn[2][:, 0])
        assert not np.array_equal(drawn[0][:, 1:], drawn[2][:, 1:])

    def test_asking_leaves_the_random_numbers_of_others_alone(self, family, make, wrap, plan, observations):
        made = make(family)
        shown = observations(1, 2, made.state, made.cameras)
        made.run(made.policy, shown)
        expected = torch.rand(3)
        made.run(wrap(made, plan()), shown)
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("family", ["smolvla", "pi0"])
class TestSharedPrefix:
    def test_images_and_words_are_encoded_once_for_all_samples(
        self, family, make, wrap, plan, observations, monkeypatch
    ):
        made = make(family)
        encoded = []
        original = type(made.policy.model).embed_prefix

        def embed(self, images, *args, **kwargs):
            encoded.append(len(images[0]))
            return original(self, images, *args, **kwargs)

        monkeypatch.setattr(type(made.policy.model), "embed_prefix", embed)
        made.run(wrap(made, plan()), observations(1, 2, made.state, made.cameras))
        assert encoded == [2, 2]  # the policy's own chunk, then all the others

    def test_the_samples_are_those_of_asking_one_by_one(self, family, make, wrap, plan, observations):
        made, keep = make(family), plan()
        shown = observations(1, 2, made.state, made.cameras)
        wrapped = wrap(made, keep)
        made.run(wrapped, shown)
        batch = made.processors[0](shown[0])
        driven = wrapped.forethought.controller.policy
        noise = driven._noise(4, keep.seeds[0]).unflatten(0, (2, 4))
        for sample in range(4):
            chunk = made.policy.predict_action_chunk(copy.copy(batch), noise=noise[:, sample])[:, :HORIZON]
            alone = driven.units.environment(chunk)
            assert np.allclose(keep.samples[0][:, sample + 1], alone, atol=1e-5)

    def test_where_sharing_fails_the_observation_is_repeated(
        self, family, make, wrap, plan, observations, monkeypatch
    ):
        made, keep, shared = make(family), plan(), plan()
        shown = observations(1, 2, made.state, made.cameras)
        made.run(wrap(made, shared), shown)
        from forethought.wrappers.policies import lerobot as adapter

        def broken(model, rows, n):
            raise RuntimeError("no such step")

        monkeypatch.setattr(adapter, "shared_prefix", broken)
        wrapped = wrap(made, keep)
        made.run(wrapped, shown)
        assert np.allclose(keep.samples[0], shared.samples[0], atol=1e-5)
        assert not wrapped.forethought.counters


def test_a_policy_that_changes_its_input_in_place_is_not_mistaken(make, wrap, plan, observations):
    made, keep = make("smolvla", state=14, action=14, adapt_to_pi_aloha=True), plan()
    shown = observations(1, 2, made.state, made.cameras)
    wrapped = wrap(made, keep)
    made.run(wrapped, shown)
    assert np.allclose(keep.seen[0].proprioception, shown[0]["observation.state"].numpy(), atol=1e-5)
    batch = made.processors[0](copy.deepcopy(shown[0]))
    driven = wrapped.forethought.controller.policy
    noise = driven._noise(4, keep.seeds[0]).unflatten(0, (2, 4))[:, 0]
    alone = made.policy.predict_action_chunk(batch, noise=noise)[:, :HORIZON]
    assert np.allclose(keep.samples[0][:, 1], driven.units.environment(alone), atol=1e-4)


class TestQueues:
    def test_only_the_rows_that_were_overridden_change(self, make, wrap, plan, observations):
        made = make("act")
        shown = observations(4, 3, made.state, made.cameras)
        alone = made.run(made.policy, shown)
        better = plan(rows=[1])
        actions = made.run(wrap(made, better), shown)
        assert np.array_equal(actions[:, [0, 2]], alone[:, [0, 2]])
        assert np.allclose(actions[:, 1], better.chunk(HORIZON, made.action), atol=1e-5)

    def test_after_a_plan_the_policy_looks_again(self, make, wrap, plan, observations):
        made = make("act")
        shown = observations(6, 1, made.state, made.cameras)
        better = plan(rows=None)
        wrapped = wrap(made, better)
        made.run(wrapped, shown)
        fresh = type(made.policy).predict_action_chunk(made.policy, made.processors[0](shown[4]))
        expected = wrapped.forethought.controller.policy.units.environment(fresh[:, :HORIZON])
        assert np.allclose(better.samples[1][:, 0], expected, atol=1e-5)

    def test_a_policy_that_looks_at_every_step_is_planned_for_at_every_step(
        self, make, wrap, plan, observations
    ):
        made, keep = make("act", n_action_steps=1), plan()
        shown = observations(3, 1, made.state, made.cameras)
        assert np.array_equal(made.run(wrap(made, keep), shown), made.run(made.policy, shown))
        assert [samples.shape[2] for samples in keep.samples] == [HORIZON] * 3
        better = plan(rows=None)
        actions = made.run(wrap(made, better), shown)
        assert np.allclose(actions, better.start, atol=1e-5)

    def test_a_chunk_that_does_not_divide_evenly(self, make, wrap, plan, observations):
        made, keep = make("act", chunk_size=10, n_action_steps=10), plan()
        shown = observations(20, 1, made.state, made.cameras)
        assert np.array_equal(made.run(wrap(made, keep), shown), made.run(made.policy, shown))
        assert len(keep.seen) == 4  # at 0, 4, 10 and 14: at 8 and 18 too little of a chunk is left

    def test_temporal_ensembling_is_kept_and_planned_around(self, make, wrap, plan, observations):
        made, keep = make("act", n_action_steps=1, temporal_ensemble_coeff=0.01), plan()
        shown = observations(5, 2, made.state, made.cameras)
        alone = made.run(made.policy, shown)
        assert np.array_equal(made.run(wrap(made, keep), shown), alone)
        own = np.stack([samples[:, 0, 0] for samples in keep.samples])
        assert np.array_equal(own, alone)

    def test_a_deterministic_policy_is_not_asked_for_what_it_said_already(
        self, make, wrap, plan, observations
    ):
        made, keep = make("act"), plan()
        made.run(wrap(made, keep), observations(12, 2, made.state, made.cameras))
        fresh, later, again = (samples.shape[1] for samples in keep.samples)
        assert (fresh, later, again) == (1, 2, 1)  # in the middle of a chunk, a new one is another opinion

    def test_the_original_keeps_its_own_queues(self, make, wrap, plan, observations):
        for family in ("act", "diffusion"):
            made = make(family)
            made.policy.reset()
            wrapped = wrap(made, plan())
            wrapped.select_action(made.processors[0](observations(1, 1, made.state, made.cameras)[0]))
            queues = [*(vars(made.policy).get("_queues") or {}).values()]
            assert not any(queues)
            assert not vars(made.policy).get("_action_queue")

    def test_the_original_keeps_its_own_ensemble(self, make, wrap, plan, observations):
        made = make("act", n_action_steps=1, temporal_ensemble_coeff=0.01)
        wrapped = wrap(made, plan())
        wrapped.select_action(made.processors[0](observations(1, 1, made.state, made.cameras)[0]))
        assert wrapped.temporal_ensembler.ensembled_actions is not None
        assert made.policy.temporal_ensembler.ensembled_actions is None

    def test_actions_beyond_the_bounds_are_brought_inside(self, make, wrap, plan, observations):
        made = make("act")
        shown = observations(HORIZON, 2, made.state, made.cameras)
        alone = made.run(made.policy, shown)
        assert abs(alone).max() > 0.1
        bounds = ActionSpec(np.full(made.action, -0.1), np.full(made.action, 0.1))
        actions = made.run(wrap(made, plan(), action_spec=bounds), shown)
        assert np.allclose(actions, alone.clip(-0.1, 0.1), atol=1e-6)


class TestTrouble:
    def test_a_policy_that_raises_is_held_still_and_counted(
        self, make, wrap, plan, observations, monkeypatch
    ):
        made = make("act", n_action_steps=4)
        wrapped = wrap(made, plan())
        shown = observations(6, 2, made.state, made.cameras)
        del shown[4]["observation.images.image2"]
        actions = made.run(wrapped, shown)
        assert np.allclose(actions[4], actions[3], atol=1e-6)  # nothing is known to be a motion
        assert wrapped.forethought.counters["policy"] == 2

    def test_the_first_call_raises_what_the_policy_raises(self, make, wrap, plan, observations):
        made = make("act")
        shown = observations(1, 2, made.state, made.cameras)
        del shown[0]["observation.images.image2"]
        with pytest.raises(KeyError):
            made.run(wrap(made, plan()), shown)

    def test_an_observation_without_what_the_models_need_names_it(self, make, wrap, plan, observations):
        made = make("act")

        def observe(entries):
            raise ForethoughtError(f"no wrist camera among {sorted(entries)}")

        with pytest.raises(ForethoughtError, match="no wrist camera"):
            made.run(wrap(made, plan(), observation=observe), observations(1, 1, made.state, made.cameras))

    def test_samples_that_fail_leave_the_policys_own(self, make, wrap, plan, observations, monkeypatch):
        made, keep = make("diffusion"), plan()
        wrapped = wrap(made, keep)
        driven = wrapped.forethought.controller.policy
        monkeypatch.setattr(driven, "_ask", lambda n, seeds: 1 / 0)
        shown = observations(4, 2, made.state, made.cameras)
        assert np.array_equal(made.run(wrapped, shown), made.run(made.policy, shown))
        assert keep.samples[0].shape[1] == 1
        assert wrapped.forethought.counters["samples"] == 1

    def test_without_processors_it_says_where_they_come_from(self, make, wide, plan):
        made = make("act")
        with pytest.raises(ForethoughtError, match="make_pre_post_processors"):
            forethought.wrap(made.policy, planner=plan(), action_spec=wide(7), horizon=4)

    def test_processors_are_found_beside_the_weights(self, make, wide, plan, observations, tmp_path):
        made = make("act")
        for part in (made.policy, *made.processors):
            part.save_pretrained(tmp_path / "saved")
        made.policy.config.pretrained_path = tmp_path / "saved"
        wrapped = forethought.wrap(made.policy, planner=plan(), action_spec=wide(7), horizon=4)
        shown = observations(3, 1, made.state, made.cameras)
        assert np.array_equal(made.run(wrapped, shown), made.run(made.policy, shown))

    def test_models_for_longer_chunks_are_refused(self, make, wrap, plan, observations):
        made = make("act")
        with pytest.raises(ForethoughtError, match="chunks of 8 actions.*trained for 16"):
            made.run(wrap(made, plan(), horizon=16), observations(1, 1, made.state, made.cameras))

    def test_a_postprocessor_that_cannot_be_turned_back_is_refused(self, make, wrap, plan):
        made = make("act")
        _, after = made.processors

        class Absolute:
            def __call__(self, transition):
                action = transition["action"]
                return {**transition, "action": action.abs()}

        after.steps = [*after.steps, Absolute()]
        with pytest.raises(ForethoughtError, match="Absolute"):
            wrap(made, plan())

    def test_models_for_other_actions_are_refused(self, make, wrap, wide, plan):
        with pytest.raises(ForethoughtError, match="answers 7 numbers.*trained for 6"):
            wrap(make("act"), plan(), action_spec=wide(6))

    def test_images_that_cannot_be_turned_back_are_not_taken_for_images(self, make, wrap, plan, observations):
        made = make("smolvla")
        shown = observations(1, 1, made.state, made.cameras)
        for name in made.cameras:
            shown[0][f"observation.{name}"] = 2.0 * shown[0][f"observation.{name}"] - 1.0
        keep = plan()
        made.run(wrap(made, keep), shown)
        assert not keep.seen[0].images
