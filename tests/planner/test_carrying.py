"""What a decision leaves to the next: the rest of its best sequences, where the world went as imagined."""

from __future__ import annotations

import numpy as np
import pytest
from planner_fakes import ARM, ArmWorld, NearTarget, observe
from sampling_fakes import sampler, still

from forethought.interfaces import ForethoughtError, Observation, Score
from forethought.planner import icem


class TestCarrying:
    """iCEM at depth 2 along an exact world: the rest of the elites is the next decision's start."""

    def decide(self, planner, state, seed=0, samples=None):
        samples = samples or still(len(state))
        return planner.plan(observe(state), samples, seed + np.arange(len(state)))

    def carried(self, decision) -> np.ndarray:
        name = decision.candidates.source_names.index("carried")
        return (decision.candidates.source == name).sum(axis=1)

    def after(self, state, decision):
        return (state + decision.chunk.astype(np.float64).mean(axis=1)).astype(np.float32)

    def test_the_rest_of_the_best_sequences_joins_the_next_decision(self):
        planner = sampler("icem", depth=2, simulations=60)
        start = np.zeros((2, 7), np.float32)
        first = self.decide(planner, start)
        assert (self.carried(first) == 0).all()
        rest = [planner._carried.rows[row].rest.copy() for row in range(2)]
        second = self.decide(planner, self.after(start, first), 9)
        assert (self.carried(second) == 3).all()
        label = second.candidates.source_names.index("carried")
        for row in range(2):
            found = second.candidates.chunks[row, second.candidates.source[row] == label]
            np.testing.assert_array_equal(found, rest[row][:, 0])

    def test_only_rows_whose_world_went_as_imagined_continue(self):
        planner = sampler("icem", depth=2, simulations=60)
        start = np.zeros((2, 7), np.float32)
        after = self.after(start, self.decide(planner, start))
        after[1] += 0.5
        second = self.decide(planner, after, 9)
        assert self.carried(second).tolist() == [3, 0]
        fresh = self.decide(sampler("icem", depth=2, simulations=60), after, 9)
        np.testing.assert_array_equal(second.candidates.chunks[1], fresh.candidates.chunks[1])

    @pytest.mark.parametrize("what", ["reset", "instruction", "batch", "depth"])
    def test_episodes_do_not_mix(self, what):
        depth = 1 if what == "depth" else 2
        planner = sampler("icem", depth=depth, simulations=60)
        start = np.zeros((2, 7), np.float32)
        after, samples = self.after(start, self.decide(planner, start)), still(2)
        observation = observe(after)
        if what == "reset":
            planner.reset()
        elif what == "instruction":
            observation = Observation({}, after, ("another", "task"))
        elif what == "batch":
            observation, samples = observe(after[:1]), still(1)
        seeds = 9 + np.arange(observation.batch)
        second = planner.plan(observation, samples, seeds)
        fresh = sampler("icem", depth=depth, simulations=60).plan(observation, samples, seeds)
        assert (self.carried(second) == 0).all()
        np.testing.assert_array_equal(second.candidates.chunks, fresh.candidates.chunks)

    def test_rows_with_names_are_found_again_in_any_company(self):
        planner, start = sampler("icem", depth=2, simulations=60), np.zeros((2, 7), np.float32)
        samples = still(2)
        first = planner.plan_rows(observe(start), samples, np.array([4, 7]), np.array([4, 7]))
        after = self.after(start, first)
        instruction = ("task 1",)
        seen = Observation({}, after[1:], instruction)
        later = planner.plan_rows(seen, still(1), np.array([9]), np.array([7]))
        assert self.carried(later).tolist() == [3]
        assert sorted(planner._carried.rows) == [4, 7]
        other = planner.plan_rows(seen, still(1), np.array([9]), np.array([5]))
        assert self.carried(other).tolist() == [0]
        planner.reset([4])
        assert sorted(planner._carried.rows) == [5, 7]
        with pytest.raises(ForethoughtError, match="distinct"):
            planner.plan_rows(observe(start), samples, np.arange(2), np.array([3, 3]))

    def test_states_that_are_objects_are_never_compared(self):
        class Boxes(ArmWorld):
            def encode(self, observation):
                return _boxed(super().encode(observation))

            def step(self, latent, chunks):
                prediction = super().step(np.stack(latent), chunks)
                return type(prediction)(_boxed(prediction.latent), prediction.disagreement, prediction.done)

        class Reward(NearTarget):
            def score(self, latent, instruction) -> Score:
                return super().score(np.stack(latent), instruction)

        planner = icem(Boxes(), Reward(), action_spec=ARM, depth=2)
        start = np.zeros((1, 7), np.float32)
        first = self.decide(planner, start)
        assert self.carried(self.decide(planner, self.after(start, first))).tolist() == [0]


def _boxed(states: np.ndarray) -> np.ndarray:
    boxes = np.empty(len(states), object)
    for index, state in enumerate(states):
        boxes[index] = state
    return boxes
