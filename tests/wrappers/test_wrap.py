"""wrap() gives an object of the same type that looks ahead, and leaves the given one alone."""

from __future__ import annotations

import copy
import functools
import inspect

import numpy as np
import pytest
import torch
from wrap_fakes import PLANNED, Actor, foreign

import forethought


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
