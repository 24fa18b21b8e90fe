"""wrap() gives an object of the same type that looks ahead, and leaves the given one alone."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import pickle
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch

import forethought
from forethought.interfaces import ActionSpec, ForethoughtError, Observation
from forethought.wrappers.models import Models

PLANNED = [0.1, 0.2, 0.3, 0.4]


def foreign(batch: int | None = None) -> dict:
    """An observation as other projects spell it, with a batch axis or without."""
    lead = () if batch is None else (batch,)
    return {
        "observation/image": np.zeros((*lead, 6, 6, 3), np.uint8),
        "observation/state": np.zeros((*lead, 8), np.float32),
        "prompt": "push the block",
    }


class Actor:
    """A policy of somebody else: returns a chunk, counts in a list, draws from its own generator."""

    kind = "actor"

    def __init__(self) -> None:
        self.seen: deque = deque()
        self.random = np.random.default_rng(0)
        self.noise = 0.0

    def act(self, observation: dict, gain: float = 1.0) -> np.ndarray:
        """Acts."""
        self.seen.append(observation)
        chunk = np.full((4, 7), 0.25) * gain + self.noise * self.random.normal(size=(4, 7))
        chunk[:, 6] = 1.0
        return chunk

    def predict(self, observation: dict) -> dict:
        return {"actions": self.act(observation), "note": "kept"}

    def describe(self) -> str:
        return f"{self.kind} saw {len(self.seen)}"

    def reset(self) -> str:
        self.seen.clear()
        return "reset"


@pytest.fixture
def wrap(spec, planner):
    """wrap() around a planner that overrides with a rising chunk."""

    def make(policy, *, override=True, change=lambda decision: decision, **options):
        plans = planner(change, override=override)
        options = {"action_spec": spec, "horizon": 4, **options}
        return forethought.wrap(policy, planner=plans, **options)

    return make


def test_the_wrapped_object_is_of_the_same_type_and_acts_on_the_plan(wrap):
    original = Actor()
    wrapped = wrap(original)
    assert isinstance(wrapped, Actor)
    assert type(wrapped).__name__ == "Actor"
    assert np.allclose(wrapped.act(foreign())[:, 0], PLANNED)
    assert wrapped.act(foreign()).shape == (4, 7)
    assert wrapped.act(foreign()).dtype == np.float64
    assert wrapped.describe() == "actor saw 3"
    assert wrapped.forethought.last.overridden.all()


def test_the_original_object_is_unchanged_and_keeps_working(wrap):
    original = Actor()
    before = copy.deepcopy(original.__dict__)
    wrapped = wrap(original)
    wrapped.act(foreign())
    wrapped.noise = 5.0
    wrapped.act(foreign())
    assert type(original) is Actor
    assert original.seen == before["seen"]
    assert original.noise == 0.0
    assert original.random.bit_generator.state == before["random"].bit_generator.state
    assert np.array_equal(original.act(foreign())[:, 0], np.full(4, 0.25))
    assert forethought.unwrap(wrapped) is original
    assert forethought.unwrap(original) is original


def test_a_policy_that_is_never_overridden_answers_as_if_it_were_not_wrapped(wrap):
    alone, wrapped = Actor(), wrap(Actor(), override=False)
    alone.noise = wrapped.noise = 0.1
    for _ in range(3):
        assert np.array_equal(wrapped.act(foreign()), alone.act(foreign()))


def test_signature_docstring_and_other_arguments_are_kept(wrap):
    wrapped = wrap(Actor(), override=False)
    assert inspect.signature(wrapped.act) == inspect.signature(Actor().act)
    assert wrapped.act.__doc__ == "Acts."
    assert np.allclose(wrapped.act(foreign(), gain=2.0)[:, 0], 0.5)


def test_methods_that_call_one_another_plan_once(wrap):
    wrapped = wrap(Actor())
    answer = wrapped.predict(foreign())
    assert answer["note"] == "kept"
    assert np.allclose(answer["actions"][:, 0], PLANNED)
    assert len(wrapped.forethought.controller.planner.calls) == 1
    assert len(wrapped.seen) == 1


def test_a_method_that_is_not_taken_over_uses_the_plan_through_the_one_that_is(wrap):
    class Runner(Actor):
        def first(self, observation):
            return self.act(observation)[0, 0]

    assert wrap(Runner()).first(foreign()) == pytest.approx(0.1)


def test_reset_reaches_the_policy_and_the_planner(wrap):
    wrapped = wrap(Actor())
    wrapped.act(foreign())
    assert wrapped.reset() == "reset"
    assert len(wrapped.seen) == 0
    assert wrapped.forethought.controller.planner.resets == 1


def test_a_function_comes_back_as_a_callable(wrap):
    def policy(observation):
        """Goes nowhere."""
        return np.zeros((4, 7), np.float32)

    wrapped = wrap(policy)
    assert np.allclose(wrapped(foreign())[:, 0], PLANNED)
    assert wrapped(foreign()).dtype == np.float32
    assert wrapped.__doc__ == "Goes nowhere."
    wrapped.reset()
    assert forethought.unwrap(wrapped) is policy


@pytest.mark.parametrize("kind", ["lambda", "partial", "bound method"])
def test_other_callables_come_back_as_callables(wrap, kind):
    actor = Actor()
    policy = {
        "lambda": lambda observation: np.zeros((4, 7)),
        "partial": functools.partial(Actor.act, actor),
        "bound method": actor.act,
    }[kind]
    assert np.allclose(wrap(policy)(foreign())[:, 0], PLANNED)


def test_a_torch_module_keeps_its_type_its_weights_and_its_tensors(wrap):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 28, dtype=torch.float64)

        def forward(self, observation):
            return self.layer(torch.as_tensor(observation["observation/state"]).double()).view(4, 7)

    original = Net()
    wrapped = wrap(original)
    answer = wrapped(foreign())
    assert isinstance(wrapped, Net)
    assert isinstance(answer, torch.Tensor)
    assert answer.dtype == torch.float64
    assert np.allclose(answer[:, 0].numpy(), PLANNED)
    assert wrapped.state_dict().keys() == original.state_dict().keys()
    assert wrapped.layer.weight is original.layer.weight
    assert original(foreign()).requires_grad
    wrapped.load_state_dict(original.state_dict())


def test_the_type_of_the_answer_is_kept(wrap):
    def rows(answer):
        return wrap(lambda observation: answer)(foreign())

    assert isinstance(rows(np.zeros((4, 7)).tolist()), list)
    actions, state = rows((np.zeros((4, 7)), "hidden state"))
    assert np.allclose(actions[:, 0], PLANNED)
    assert state == "hidden state"
    assert np.allclose(rows({"action": np.zeros((4, 7))})["action"][:, 0], PLANNED)


def test_batches_keep_their_axis(wrap):
    wrapped = wrap(lambda observation: np.zeros((3, 4, 7)))
    assert np.allclose(wrapped(foreign(3))[:, :, 0], [PLANNED] * 3)


class TestSingleActions:
    """Policies that return one action a call."""

    def test_a_planned_chunk_is_given_out_action_by_action(self, wrap):
        wrapped = wrap(lambda observation: np.zeros(7))
        given = [wrapped(foreign())[0] for _ in range(8)]
        assert np.allclose(given, PLANNED * 2)
        assert len(wrapped.forethought.controller.planner.calls) == 2

    def test_reset_drops_what_is_left_of_the_chunk(self, wrap):
        wrapped = wrap(lambda observation: np.zeros(7))
        wrapped(foreign())
        wrapped(foreign())
        wrapped.reset()
        assert wrapped(foreign())[0] == pytest.approx(0.1)

    def test_the_policy_sees_every_observation(self, wrap):
        class Single(Actor):
            def act(self, observation):
                return super().act(observation)[0]

        wrapped = wrap(Single())
        for _ in range(6):
            wrapped.act(foreign())
        assert len(wrapped.seen) == 6

    def test_an_action_that_is_not_overridden_is_the_policys_own_at_every_step(self, wrap):
        answers = iter(np.linspace(0, 0.7, 8))
        wrapped = wrap(lambda observation: np.full(7, next(answers)), override=False)
        given = [wrapped(foreign())[0] for _ in range(8)]
        assert np.allclose(given, np.linspace(0, 0.7, 8))

    def test_a_batch_of_single_actions_keeps_its_shape(self, wrap):
        wrapped = wrap(lambda observation: torch.zeros(3, 7))
        assert torch.allclose(wrapped(foreign(3))[:, 0], torch.tensor(0.1))
        assert torch.allclose(wrapped(foreign(3))[:, 0], torch.tensor(0.2))

    def test_rows_of_a_batch_are_overridden_by_themselves(self, wrap):
        overridden = iter([[True, False], [False, False], [False, False]])

        def only(decision):
            rows = np.array(next(overridden))
            return replace(decision, overridden=rows, chunk=decision.chunk * rows[:, None, None])

        wrapped = wrap(lambda observation: np.zeros((2, 7)), change=only)
        given = [wrapped(foreign(2))[:, 0] for _ in range(3)]
        assert np.allclose(given, [[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]])

    def test_a_queued_action_is_given_out_even_when_the_policy_raises(self, wrap):
        calls = []

        def policy(observation):
            calls.append(1)
            if len(calls) > 1:
                raise RuntimeError("lost the camera")
            return np.zeros(7)

        wrapped = wrap(policy)
        assert [wrapped(foreign())[0] for _ in range(4)] == pytest.approx(PLANNED)
        assert np.array_equal(wrapped(foreign())[:6], np.zeros(6))
        assert wrapped.forethought.counters["policy"] == 4


class TestProtocolPolicies:
    """Objects that follow our Policy protocol, as the reference policy does."""

    def test_sample_0_and_the_acted_chunk_are_planned(self, wrap, policy, observe):
        wrapped = wrap(policy)
        samples = wrapped.propose(observe(2), 3, np.array([1, 2]))
        assert isinstance(wrapped, type(policy))
        assert samples.chunks.shape == (2, 3, 4, 7)
        assert np.allclose(samples.chunks[:, 0, :, 0], [PLANNED] * 2)
        assert np.allclose(samples.chunks[:, 1:, :, 0], 0.25)
        assert np.allclose(wrapped.act(observe())[0, :, 0], PLANNED)
        assert np.allclose(policy.act(observe()), policy.propose(observe(), 1, np.zeros(1)).chunks[:, 0])

    def test_the_seeds_of_the_caller_reach_the_planner(self, wrap, policy, observe):
        wrapped = wrap(policy)
        wrapped.propose(observe(2), 1, np.array([7, 8]))
        assert wrapped.forethought.controller.planner.calls[0].tolist() == [7, 8]

    def test_models_of_another_chunk_length_are_refused(self, wrap, policy):
        with pytest.raises(ForethoughtError, match="chunk length 4.*8"):
            wrap(policy, horizon=8)

    def test_models_of_another_action_size_are_refused(self, wrap, policy):
        with pytest.raises(ForethoughtError, match="action size 7.*2"):
            wrap(policy, action_spec=ActionSpec(np.zeros(2), np.ones(2)))


class TestWithTheRealPlanner:
    """The presets, over a model of a point in which further is better."""

    @pytest.fixture
    def wrapped(self, point_models):
        return forethought.wrap(Actor(), models=point_models, simulations=16, margin=0.0)

    def test_the_planned_chunk_goes_further_than_the_policys(self, wrapped):
        assert wrapped.act(foreign())[:, 0].sum() > 4 * 0.25 + 0.05
        assert wrapped.forethought.last.overridden.all()
        assert not wrapped.forethought.counters

    def test_the_same_seed_gives_the_same_actions_and_another_seed_others(self, point_models):
        def run(seed):
            wrapped = forethought.wrap(Actor(), models=point_models, simulations=8, margin=0.0, seed=seed)
            return np.stack([wrapped.act(foreign()) for _ in range(3)])

        assert np.array_equal(run(1), run(1))
        assert not np.array_equal(run(1), run(2))

    def test_best_of_n_asks_for_as_many_samples_as_it_compares(self, point_models, policy, observe):
        wrapped = forethought.wrap(policy, models=point_models, planner="best_of_n", simulations=5)
        wrapped.propose(observe(), 1, np.array([1]))
        assert wrapped.asked == [5]

    def test_every_decision_of_every_episode_draws_anew(self, wrap):
        wrapped = wrap(Actor())
        for _ in range(2):
            wrapped.act(foreign())
            wrapped.act(foreign())
            wrapped.reset()
        seeds = [int(call[0]) for call in wrapped.forethought.controller.planner.calls]
        assert len(set(seeds)) == 4

    def test_a_margin_that_nothing_reaches_leaves_the_policy_alone(self, point_models):
        wrapped = forethought.wrap(Actor(), models=point_models, simulations=8, margin=2.0)
        assert np.array_equal(wrapped.act(foreign()), Actor().act(foreign()))

    def test_an_unknown_option_names_those_that_exist(self, point_models):
        with pytest.raises(ForethoughtError, match="simulations"):
            forethought.wrap(Actor(), models=point_models, simulation=8)

    def test_an_unknown_planner_names_those_that_exist(self, point_models):
        with pytest.raises(ForethoughtError, match="vla_reasoner"):
            forethought.wrap(Actor(), models=point_models, planner="oracle")

    def test_the_camera_is_found_under_another_projects_name(self, wrapped):
        observation = foreign()
        observation["observation/wrist"] = observation.pop("observation/image")
        with pytest.raises(ForethoughtError, match="agentview_rgb.*observation\\.wrist"):
            wrapped.act(observation)


class TestWhatGoesWrong:
    """Loud before the first action, silent and safe after it."""

    def test_the_first_call_raises_what_the_policy_raises(self, wrap):
        def policy(observation):
            raise KeyError("no such weight")

        with pytest.raises(KeyError, match="no such weight"):
            wrap(policy)(foreign())

    def test_a_call_that_fails_is_not_made_again_for_each_row(self, wrap):
        calls = []

        def policy(observation):
            calls.append(1)
            raise KeyError("no such weight")

        with pytest.raises(KeyError, match="no such weight"):
            wrap(policy)(foreign(3))
        assert len(calls) == 1

    def test_the_first_call_raises_when_the_chunk_does_not_fit(self, wrap):
        with pytest.raises(ForethoughtError, match=r"\[16, 7\].*chunk length"):
            wrap(lambda observation: np.zeros((16, 7)))(foreign())

    def test_the_first_call_raises_when_there_is_no_observation(self, wrap):
        with pytest.raises(ForethoughtError, match="observation="):
            wrap(lambda observation: np.zeros((4, 7)))(3)

    def test_the_first_call_raises_when_the_models_do_not_fit(self, wrap):
        def complain(decision):
            raise ForethoughtError("trained on another camera")

        with pytest.raises(ForethoughtError, match="another camera"):
            wrap(Actor(), change=complain).act(foreign())

    @pytest.mark.parametrize(
        "broken",
        [
            {"observation/state": np.full(8, np.nan, np.float32)},
            {"observation/state": None},
            {"prompt": None},
            {"observation/image": np.zeros((6, 6), np.uint8)},
        ],
    )
    def test_later_a_broken_observation_gives_the_policys_own_action(self, wrap, broken, caplog):
        wrapped = wrap(Actor())
        wrapped.act(foreign())
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                chunk = wrapped.act({**foreign(), **broken})
                assert np.allclose(chunk[:, 0], 0.25) or "image" in str(broken)
        if "observation/image" not in broken:
            assert wrapped.forethought.counters == {"observation": 3}
            assert len(caplog.records) == 1

    def test_later_a_policy_that_raises_holds_still_in_its_own_format(self, wrap):
        actor = Actor()
        wrapped = wrap(actor)
        wrapped.predict(foreign())
        wrapped.random = None
        wrapped.noise = 1.0
        answer = wrapped.predict(foreign())
        assert np.array_equal(answer["actions"], np.tile([0, 0, 0, 0, 0, 0, 1.0], (4, 1)))
        assert wrapped.forethought.counters == {"policy": 1}

    def test_a_plan_outside_the_bounds_is_clipped(self, wrap):
        far = wrap(Actor(), change=lambda decision: replace(decision, chunk=decision.chunk * 100))
        assert np.abs(far.act(foreign())).max() <= 1.0

    def test_wrapping_twice_is_refused(self, wrap):
        with pytest.raises(ForethoughtError, match="unwrap"):
            wrap(wrap(Actor()))

    def test_an_object_that_does_nothing_is_refused(self, wrap):
        with pytest.raises(ForethoughtError, match="no adapter"):
            wrap(object())

    def test_a_class_is_refused(self, wrap):
        with pytest.raises(ForethoughtError, match="class Actor"):
            wrap(Actor)

    def test_a_planner_by_name_needs_models(self):
        with pytest.raises(ForethoughtError, match="models"):
            forethought.wrap(Actor(), action_spec=ActionSpec(-np.ones(7), np.ones(7)), horizon=4)

    def test_what_cannot_be_known_is_asked_for(self, planner, spec):
        with pytest.raises(ForethoughtError, match="action_spec"):
            forethought.wrap(Actor(), planner=planner())
        with pytest.raises(ForethoughtError, match="horizon"):
            forethought.wrap(Actor(), planner=planner(), action_spec=spec)

    def test_a_wrapped_policy_says_why_it_cannot_be_pickled(self, wrap):
        with pytest.raises(ForethoughtError, match="unwrap"):
            pickle.dumps(wrap(Actor()))


class TestUnusualObjects:
    """wrap() does not need a class made for it."""

    def test_a_method_of_an_unusual_name(self, wrap):
        class Odd:
            def drive(self, observation):
                return np.zeros((4, 7))

        assert np.allclose(wrap(Odd(), method="drive").drive(foreign())[:, 0], PLANNED)
        with pytest.raises(ForethoughtError, match="fly.*drive"):
            wrap(Odd(), method="fly")

    def test_a_method_set_on_the_object_itself(self, wrap):
        class Bare:
            pass

        original = Bare()
        original.act = lambda observation: np.zeros((4, 7))
        assert np.allclose(wrap(original).act(foreign())[:, 0], PLANNED)
        assert np.array_equal(original.act(foreign()), np.zeros((4, 7)))

    def test_a_class_with_slots(self, wrap):
        class Slotted:
            __slots__ = ("count",)

            def __init__(self):
                self.count = 0

            def act(self, observation):
                self.count += 1
                return np.zeros((4, 7))

        original = Slotted()
        wrapped = wrap(original)
        assert np.allclose(wrapped.act(foreign())[:, 0], PLANNED)
        assert (wrapped.count, original.count) == (1, 0)

    def test_a_class_that_cannot_be_copied_by_its_own_means(self, wrap):
        class Guarded(Actor):
            def __copy__(self):
                raise RuntimeError

            def __reduce_ex__(self, protocol):
                raise RuntimeError

        assert isinstance(wrap(Guarded()), Guarded)

    def test_an_observation_function_of_the_users(self, wrap):
        def convert(pixels, words):
            return Observation({"agentview_rgb": pixels[None]}, np.zeros((1, 8), np.float32), (words,))

        wrapped = wrap(lambda pixels, words: np.zeros((4, 7)), observation=convert)
        assert np.allclose(wrapped(np.zeros((6, 6, 3), np.uint8), "push")[:, 0], PLANNED)


def test_models_may_be_a_folder_that_does_not_exist(wrap):
    with pytest.raises(ForethoughtError, match="no such folder"):
        forethought.wrap(Actor(), models="runs/never")


def test_models_of_another_type_are_refused():
    with pytest.raises(ForethoughtError, match="dict"):
        forethought.wrap(Actor(), models={"world_model": 1})


def test_the_models_tell_horizon_and_action_spec(point_models: Models):
    wrapped = forethought.wrap(Actor(), models=point_models, simulations=4)
    assert wrapped.forethought.controller.policy.horizon == 4


def test_the_reference_policy_is_wrapped_like_any_other(wrap, spec):
    from forethought.wrappers.policies.reference import FlowPolicyNetwork, ReferencePolicy

    torch.manual_seed(0)
    policy = ReferencePolicy(FlowPolicyNetwork(("agentview_rgb",), 64, 32, 4, 7, 16), spec)
    image = np.zeros((1, 64, 64, 3), np.uint8)
    observation = Observation({"agentview_rgb": image}, np.zeros((1, 8), np.float32), ("push",))
    before = policy.propose(observation, 3, np.array([5])).chunks
    wrapped = wrap(policy)
    after = wrapped.propose(observation, 3, np.array([5])).chunks
    assert isinstance(wrapped, ReferencePolicy)
    assert np.allclose(after[0, 0, :, 0], PLANNED)
    assert np.array_equal(after[:, 1:], before[:, 1:])
    assert np.allclose(wrapped.act(observation)[0, :, 0], PLANNED)
    assert np.array_equal(policy.propose(observation, 3, np.array([5])).chunks, before)
