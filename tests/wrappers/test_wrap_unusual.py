"""wrap() does not need a class made for it."""

from __future__ import annotations

import numpy as np
import pytest
from wrap_fakes import PLANNED, Actor, foreign

from forethought.interfaces import ForethoughtError, Observation


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
