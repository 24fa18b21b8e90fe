"""Who acts while episodes are collected: the scripted expert, or a policy with noise on its chunks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ...interfaces import ActionSpec, ForethoughtError, Observation
from ..evaluation.parts import build


@dataclass(frozen=True, eq=False)
class Move:
    """What an actor does next.

    Attributes:
        executed: Actions for the environment, ``float32 [h, A]``.
        recorded: The labels that go with them, ``float32 [h, A]``.
    """

    executed: np.ndarray
    recorded: np.ndarray


class Actor(Protocol):
    """Acts in one environment."""

    @property
    def stride(self) -> int:
        """Steps between frames: an observation is rendered, and recorded, every so many steps."""
        ...

    def start(self, seed: int) -> float:
        """Begin an episode and tell its noise level."""
        ...

    def move(self, observation: Observation | None) -> Move:
        """The next actions. The observation is given where a frame is due, otherwise None."""
        ...


class Source(Protocol):
    """A description of an actor that can be sent to another process."""

    @property
    def name(self) -> str:
        """Written to every episode."""
        ...

    def actor(self, env: Any) -> Actor:
        """An actor for an environment, made in the process that uses it."""
        ...


@dataclass(frozen=True)
class ExpertSource:
    """The scripted expert. With noise, the action executed is noisy and the one recorded is clean (DART,
    arXiv 1703.09327): demonstrations then show how to come back from where the noise led.

    Attributes:
        noise: Standard deviation of the noise on position and rotation commands, units of the action.
        image_stride: Steps between frames.
        early_release: Probability, per episode, of letting go once on the way.
        grasp_offset: Standard deviation of a horizontal error of the first grasp, metres.
        recover: Whether a lost or misplaced object is grasped again.
    """

    noise: float = 0.2
    image_stride: int = 1
    early_release: float = 0.0
    grasp_offset: float = 0.0
    recover: bool = True

    def __post_init__(self) -> None:
        _check_stride(self.image_stride)
        _check_range("noise", self.noise, 0.0, 2.0)
        _check_range("early_release", self.early_release, 0.0, 1.0)
        _check_range("grasp_offset", self.grasp_offset, 0.0, 0.2)

    @property
    def name(self) -> str:
        """Written to every episode."""
        return "expert"

    def actor(self, env: Any) -> Actor:
        """The expert for one environment."""
        from ..experts import ExpertOptions, PickPlaceExpert, Scene

        options = ExpertOptions(
            early_release=self.early_release, grasp_offset=self.grasp_offset, recover=self.recover
        )
        return _ExpertActor(self, PickPlaceExpert(Scene(env), options), env.action_spec)


class _ExpertActor:
    def __init__(self, source: ExpertSource, expert: Any, spec: ActionSpec) -> None:
        self._source, self._expert, self._spec = source, expert, spec

    @property
    def stride(self) -> int:
        return self._source.image_stride

    def start(self, seed: int) -> float:
        self._generator = np.random.default_rng((seed, 1))
        self._expert.reset(seed)
        return self._source.noise

    def move(self, observation: Observation | None) -> Move:
        clean = self._expert.act()[None]
        noisy = clean.copy()
        continuous = list(self._spec.continuous)
        noisy[:, continuous] += self._generator.normal(0.0, self._source.noise, (1, len(continuous)))
        return Move(executed=self._spec.clip(noisy), recorded=clean)


@dataclass(frozen=True)
class PolicySource:
    """A learned policy, its chunks disturbed so that the data show good and bad outcomes of similar
    intentions.

    The level is drawn once an episode; calibrate the levels to the success rate first, for data without
    successes teach nothing.

    Attributes:
        policy: What to build in the worker: ``_target_`` (dotted name of a callable that returns a Policy)
            and its arguments.
        noise_levels: Standard deviations, units of the action, one of which an episode draws.
        shared: Share of the noise's variance that is common to the steps of a chunk.
        rotation_scale: Factor on the noise of rotation commands.
        random_chunk: Probability that a chunk is replaced by a random one.
        gripper_flip: Probability that a chunk's gripper command is inverted.
        image_stride: Steps between frames, a divisor of the policy's chunk length, such as half of it: more
            to learn from in an episode than what the policy acted on. None: a frame a chunk.
    """

    policy: Mapping[str, Any]
    noise_levels: tuple[float, ...] = (0.02, 0.04, 0.08, 0.16)
    shared: float = 0.8
    rotation_scale: float = 0.4
    random_chunk: float = 0.02
    gripper_flip: float = 0.01
    image_stride: int | None = None
    label: str = field(default="policy")

    def __post_init__(self) -> None:
        if "_target_" not in self.policy:
            raise ForethoughtError(
                f"the policy to collect with was given as {dict(self.policy)}; expected a mapping with "
                "'_target_', the "
                "dotted name of what builds it, and its arguments."
            )
        object.__setattr__(self, "policy", dict(self.policy))
        object.__setattr__(self, "noise_levels", tuple(float(level) for level in self.noise_levels))
        if not self.noise_levels or min(self.noise_levels) < 0:
            raise ForethoughtError(
                f"noise_levels={self.noise_levels}; expected at least one level, none negative ((0.0,) is "
                "no noise)."
            )
        for name in ("shared", "random_chunk", "gripper_flip"):
            _check_range(name, getattr(self, name), 0.0, 1.0)
        if self.image_stride is not None:
            _check_stride(self.image_stride)

    @property
    def name(self) -> str:
        """Written to every episode."""
        return self.label

    def actor(self, env: Any) -> Actor:
        """The policy, loaded here, for one environment, which it is told where it asks."""
        policy = build("policy", self.policy)
        if callable(attach := getattr(policy, "attach", None)):
            attach(env)
        return _PolicyActor(self, policy, env.action_spec)


class _PolicyActor:
    def __init__(self, source: PolicySource, policy: Any, spec: ActionSpec) -> None:
        self._source, self._policy, self._spec = source, policy, spec
        horizon = int(policy.horizon)
        self._stride = horizon if source.image_stride is None else source.image_stride
        if horizon % self._stride:
            raise ForethoughtError(
                f"image_stride={self._stride} does not divide the policy's chunks of {horizon} steps: there "
                "would be no frame where it decides. Choose a divisor, or null for a frame a chunk."
            )

    @property
    def stride(self) -> int:
        return self._stride

    def start(self, seed: int) -> float:
        self._generator = np.random.default_rng((seed, 1))
        self._level = float(self._generator.choice(self._source.noise_levels))
        self._left = np.empty((0, self._spec.size), np.float32)
        if callable(reset := getattr(self._policy, "reset", None)):
            reset()
        return self._level

    def move(self, observation: Observation | None) -> Move:
        if not len(self._left):
            self._left = self._decide(observation)
        now, self._left = self._left[: self._stride], self._left[self._stride :]
        return Move(executed=now, recorded=now)

    def _decide(self, observation: Observation | None) -> np.ndarray:
        if observation is None:
            raise ForethoughtError(
                "a policy moves only where a frame was rendered; render every stride steps."
            )
        seeds = self._generator.integers(0, 2**62, size=observation.batch)
        chunk = self._policy.propose(observation, 1, seeds).chunks[0, 0]
        executed = disturb(chunk, self._spec, self._source, self._level, self._generator)
        if callable(tell := getattr(self._policy, "executed", None)):
            tell(executed[None])
        return executed


def disturb(
    chunk: np.ndarray, spec: ActionSpec, source: PolicySource, level: float, generator: np.random.Generator
) -> np.ndarray:
    """A chunk ``[H, A]`` with the noise of ``source`` at a level;

    within the bounds, the gripper one of its values.
    """
    horizon = len(chunk)
    if generator.random() < source.random_chunk:
        drawn = generator.uniform(spec.low, spec.high)
        return spec.clip(np.repeat(drawn[None], horizon, axis=0))
    scale = np.zeros(spec.size)
    scale[list(spec.continuous)] = level
    scale[list(spec.rotation)] *= source.rotation_scale
    common = generator.normal(size=(1, spec.size)) * np.sqrt(source.shared)
    own = generator.normal(size=chunk.shape) * np.sqrt(1.0 - source.shared)
    noisy = chunk + (common + own) * scale
    if spec.gripper and generator.random() < source.gripper_flip:
        index = list(spec.gripper)
        noisy[:, index] = spec.low[index] + spec.high[index] - noisy[:, index]
    return spec.clip(noisy)


def _check_stride(stride: int) -> None:
    if stride < 1:
        raise ForethoughtError(f"image_stride={stride}; expected 1 (a frame at every step) or more.")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ForethoughtError(f"{name}={value}; expected a number from {low} to {high}.")
