"""Policies that return one action a call: a planned chunk is given out action by action."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from wrap_fakes import PLANNED, Actor, foreign


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
