"""What the speed of the search is measured on: networks of a stated size with random weights, and parts that
say how long they took."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np
import torch
from numba import njit
from torch import nn

from ...interfaces import (
    ActionSamples,
    ActionSpec,
    Latent,
    Observation,
    Prediction,
    RewardModel,
    Score,
    WorldModel,
)
from ...planner import Context, Drawn, KernelProposals, PolicySamples, Proposed, TreeSearch
from ...planner.opening import Drawing
from ...planner.parallel import split
from ...planner.proposals import Planted, planted
from ...planner.search import Evaluated, Run
from ...planner.tree import Tree

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Clocks by name, in seconds. ``cpu`` counts what the process computed, for a machine that others use."""

ARM = ActionSpec(
    low=-np.ones(7),
    high=np.ones(7),
    position=(0, 1, 2),
    rotation=(3, 4, 5),
    gripper=(6,),
    position_scale=0.05,
    rotation_scale=0.5,
)
"""The action of the measurements: translation, axis-angle rotation, binary gripper."""


@dataclass(frozen=True)
class Sizes:
    """Of the networks and of the actions.

    Attributes:
        latent: Numbers of a latent.
        hidden: Width of the two hidden layers of the dynamics, and of those of the value.
        horizon: Chunk length H; the action size A is that of ``ARM``.
        actions: Chunks that a node chooses from, at the root and below.
    """

    latent: int = 128
    hidden: int = 256
    horizon: int = 8
    actions: int = 16


class Stopwatch:
    """Seconds by part, since the last ``reset``."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def reset(self) -> None:
        """Forget all parts."""
        self.seconds.clear()

    def add(self, name: str, start: float) -> None:
        """Adds the time from ``start`` to now to the part of that name. (Two calls a part: a context manager
        would take as long as some of what it times.)"""
        self.seconds[name] += self.now() - start


def layers(inputs: int, hidden: int, outputs: int, seed: int) -> nn.Sequential:
    """A network with two hidden layers and random weights."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for a, b in pairwise((inputs, hidden, hidden, outputs)):
        parts += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*parts[:-1]).eval()


class TorchWorld:
    """Dynamics ``tanh(MLP(latent, chunk))``; the proprioception of an observation is the latent."""

    def __init__(self, sizes: Sizes, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.net = layers(sizes.latent + sizes.horizon * ARM.size, sizes.hidden, sizes.latent, 0).to(device)

    def encode(self, observation: Observation) -> Latent:
        return torch.as_tensor(observation.proprioception, device=self.device)

    @torch.inference_mode()
    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        actions = torch.from_numpy(np.ascontiguousarray(chunks)).flatten(1).to(self.device)
        after = torch.tanh(self.net(torch.cat([torch.as_tensor(latent), actions], dim=1)))
        zero = np.zeros(len(chunks), np.float32)
        return Prediction(after, zero, zero)


class TorchValue:
    """Value ``sigmoid(MLP(latent))``."""

    def __init__(self, sizes: Sizes, device: str = "cpu") -> None:
        self.net = layers(sizes.latent, sizes.hidden, 1, 1).to(device)

    @torch.inference_mode()
    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        value = torch.sigmoid(self.net(torch.as_tensor(latent))).squeeze(1).cpu().numpy()
        return Score(value, np.zeros(len(value), np.float32))


class NumpyMlp:
    """The same weights multiplied by NumPy's BLAS: torch's (MKL) does without AVX-512 on other makers'
    processors, and a call costs more. XLA, below the peer, has neither handicap.

    Threads share the rows among them, each with all layers: a product of this size is too short to share."""

    def __init__(self, net: nn.Sequential, squash: Callable[..., np.ndarray]) -> None:
        linear = [part for part in net if isinstance(part, nn.Linear)]
        self.weights = [np.ascontiguousarray(part.weight.detach().numpy().T) for part in linear]
        self.biases = [part.bias.detach().numpy() for part in linear]
        self._squash = squash
        self._scratch = [np.empty((0, bias.size), np.float32) for bias in self.biases[:-1]]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if len(self._scratch[0]) < len(x):  # fresh pages would cost as much as the sums
            self._scratch = [np.empty((len(x), bias.size), np.float32) for bias in self.biases[:-1]]
        out = np.empty((len(x), self.biases[-1].size), np.float32)

        def part(start: int, stop: int) -> None:
            rows = slice(start, stop)
            hidden = x[rows]
            for weight, bias, scratch in zip(self.weights, self.biases, self._scratch):
                hidden = np.matmul(hidden, weight, out=scratch[rows])
                _activate(hidden, bias)
            last = np.matmul(hidden, self.weights[-1], out=out[rows])
            last += self.biases[-1]
            self._squash(last, out=last)

        split(part, len(x), 64)
        return out


def sigmoid(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(−x)) into ``out``."""
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1.0
    return np.reciprocal(out, out=out)


@njit(cache=True, nogil=True)
def _activate(x: np.ndarray, bias: np.ndarray) -> None:
    """``relu(x + bias)`` in place, in one pass."""
    for i in range(len(x)):
        for j in range(bias.size):
            x[i, j] = max(x[i, j] + bias[j], np.float32(0.0))


class NumpyWorld:
    """``TorchWorld`` in NumPy, on the CPU."""

    def __init__(self, sizes: Sizes, device: str = "cpu") -> None:
        self.net = NumpyMlp(TorchWorld(sizes).net, np.tanh)

    def encode(self, observation: Observation) -> Latent:
        return observation.proprioception

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        both = np.concatenate([np.asarray(latent), chunks.reshape(len(chunks), -1)], axis=1)
        zero = np.zeros(len(chunks), np.float32)
        return Prediction(self.net(both), zero, zero)


class NumpyValue:
    """``TorchValue`` in NumPy, on the CPU."""

    def __init__(self, sizes: Sizes, device: str = "cpu") -> None:
        self.net = NumpyMlp(TorchValue(sizes).net, sigmoid)

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        value = self.net(np.asarray(latent))[:, 0]
        return Score(value, np.zeros(len(value), np.float32))


NETWORKS: dict[str, tuple[Callable[..., WorldModel], Callable[..., RewardModel]]] = {
    "numpy": (NumpyWorld, NumpyValue),
    "torch": (TorchWorld, TorchValue),
}
"""World model and value by what multiplies their matrices."""


@dataclass(eq=False)
class TimedWorld:
    """A world model whose steps count as ``network``, and what it makes of the observation as ``encode``."""

    inner: WorldModel
    watch: Stopwatch

    def encode(self, observation: Observation) -> Latent:
        start = self.watch.now()
        latent = self.inner.encode(observation)
        self.watch.add("encode", start)
        return latent

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        start = self.watch.now()
        prediction = self.inner.step(latent, chunks)
        self.watch.add("network", start)
        return prediction


@dataclass(eq=False)
class TimedReward:
    """A reward model whose scores count as ``network``."""

    inner: RewardModel
    watch: Stopwatch

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        start = self.watch.now()
        score = self.inner.score(latent, instruction)
        self.watch.add("network", start)
        return score


@dataclass(eq=False)
class TimedProposals:
    """Proposals whose draws count as ``sampling``, and with them what is done with the root's in the same
    compiled call; but those that the compiled walk makes itself are part of it."""

    inner: KernelProposals | PolicySamples
    watch: Stopwatch

    @property
    def source_names(self) -> tuple[str, ...]:
        return self.inner.source_names

    def propose(self, context: Context, count: int, *, keep_policy: bool) -> Proposed:
        start = self.watch.now()
        proposed = self.inner.propose(context, count, keep_policy=keep_policy)
        self.watch.add("sampling", start)
        return proposed

    def plant(self, context: Context, count: int, tree: Tree, latents: np.ndarray) -> Planted | None:
        start = self.watch.now()
        new = planted(self.inner, context, count, tree, latents)
        self.watch.add("sampling", start)
        return new

    def draw(self, context: Context, places: np.ndarray) -> Drawn:
        start = self.watch.now()
        drawn = self.inner.draw(context, places)
        self.watch.add("sampling", start)
        return drawn

    def compiled(self, context: Context, count: int) -> Drawing | None:
        return self.inner.compiled(context, count)


@dataclass(frozen=True, eq=False)
class TimedSearch(TreeSearch):
    """A search that notes how long evaluations took, networks included, as ``evaluate``."""

    watch: Stopwatch = field(default_factory=lambda: Stopwatch(time.perf_counter))

    def evaluate(self, run: Run, claims: np.ndarray) -> Evaluated:
        start = self.watch.now()
        evaluated = super().evaluate(run, claims)
        self.watch.add("evaluate", start)
        return evaluated


def timed(search: TreeSearch, watch: Stopwatch) -> TimedSearch:
    """The same search, noting where its time goes; its proposals must be ``OneByOne``."""
    settings = {setting.name: getattr(search, setting.name) for setting in fields(search)}
    settings["world_model"] = TimedWorld(search.world_model, watch)
    settings["reward_model"] = TimedReward(search.reward_model, watch)
    settings["proposals"] = TimedProposals(settings["proposals"], watch)
    return TimedSearch(**settings, watch=watch)


@dataclass(frozen=True, eq=False)
class Question:
    """What a planner is asked: an observation, the policy's samples, seeds."""

    observation: Observation
    samples: ActionSamples
    seeds: np.ndarray


def question(sizes: Sizes, batch: int, seed: int = 0) -> Question:
    """A random question for B rows. Row b does not depend on the number of rows."""
    draws = [np.random.default_rng([seed, row]) for row in range(batch)]
    latent = np.stack([draw.normal(size=sizes.latent) for draw in draws]).astype(np.float32)
    chunks = np.stack([draw.uniform(-0.8, 0.8, (sizes.actions, sizes.horizon, ARM.size)) for draw in draws])
    return Question(
        Observation({}, latent, ("measure",) * batch),
        ActionSamples(ARM.clip(chunks.astype(np.float32))),
        np.arange(batch, dtype=np.int64) + seed,
    )
