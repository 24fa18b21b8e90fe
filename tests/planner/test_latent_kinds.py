"""Latents of every kind: tensors, arrays, snapshots."""

from __future__ import annotations

import numpy as np
import torch
from planner_fakes import (
    ARM,
    ArmWorld,
    NearTarget,
    observe,
    policy_samples,
)

from forethought.interfaces import Prediction
from forethought.planner import (
    forethought,
)


class TestLatentsOfEveryKind:
    def test_torch_tensors_stay_tensors_and_give_the_same_decision(self):
        class Torch(ArmWorld):
            def encode(self, observation):
                return torch.from_numpy(observation.proprioception.astype(np.float64)).requires_grad_()

            def step(self, latent, chunks):
                assert isinstance(latent, torch.Tensor)
                zero = np.zeros(len(chunks), np.float32)
                return Prediction(latent + torch.from_numpy(chunks).double().mean(dim=1), zero, zero)

        class Reward(NearTarget):
            def score(self, latent, instruction):
                assert isinstance(latent, torch.Tensor)
                return super().score(latent.detach().numpy(), instruction)

        samples, start = policy_samples(ARM, 2, 4, 8), observe(np.zeros((2, 7)))
        options = {"action_spec": ARM, "simulations": 50, "depth": 2}
        tensor = forethought(Torch(), Reward(), **options).plan(start, samples, np.arange(2))
        array = forethought(ArmWorld(), NearTarget(), **options).plan(start, samples, np.arange(2))
        np.testing.assert_allclose(tensor.candidates.value, array.candidates.value, rtol=1e-6)
        np.testing.assert_array_equal(tensor.slot, array.slot)

    def test_object_arrays_of_snapshots_work(self):
        class Snapshots(ArmWorld):
            def encode(self, observation):
                return self.pack(observation.proprioception.astype(np.float64))

            def step(self, latent, chunks):
                assert latent.dtype == object
                after = np.stack([state["x"] for state in latent]) + chunks.astype(np.float64).mean(axis=1)
                return Prediction(self.pack(after), np.zeros(len(chunks)), np.zeros(len(chunks)))

            def pack(self, states):
                packed = np.empty(len(states), object)
                packed[:] = [{"x": state} for state in states]
                return packed

        class Reward(NearTarget):
            def score(self, latent, instruction):
                return super().score(np.stack([state["x"] for state in latent]), instruction)

        samples, start = policy_samples(ARM, 2, 4, 8), observe(np.zeros((2, 7)))
        options = {"action_spec": ARM, "simulations": 50, "depth": 2}
        boxed = forethought(Snapshots(), Reward(), **options).plan(start, samples, np.arange(2))
        array = forethought(ArmWorld(), NearTarget(), **options).plan(start, samples, np.arange(2))
        np.testing.assert_array_equal(boxed.candidates.value, array.candidates.value)
