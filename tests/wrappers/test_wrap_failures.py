"""What goes wrong with a wrapped policy: loud before the first action, silent and safe after it."""

from __future__ import annotations

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
from wrap_fakes import Actor, foreign

import forethought
from forethought.interfaces import ActionSpec, ForethoughtError


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
