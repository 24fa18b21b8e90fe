"""The simulator as its own world model: an exact upper bound for everything learned.

Every imagined chunk is carried out in the very environment that the episode runs in, which is then put back
bit for bit. It sees what no robot sees (the true state of the world), so its results bound what planning can
reach and say nothing about deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..interfaces import ForethoughtError, ImaginationCost, Latent, Observation, Prediction

Embed: TypeAlias = Callable[[np.ndarray, np.ndarray, Sequence[str]], np.ndarray]
"""From proprioception ``float32 [M, P]`` and privileged state ``float32 [M, S]`` to features ``float32 [M,
D]``."""

See: TypeAlias = Callable[[Observation], np.ndarray]
"""From observations, B = M, to features ``float32 [M, D]``."""


class Outcome(Protocol):
    """What carrying out a chunk tells."""

    @property
    def success(self) -> bool: ...

    @property
    def steps(self) -> int: ...


class Simulator(Protocol):
    """The part of an environment that this model uses."""

    def save(self) -> Any:
        """Everything that decides what happens next."""
        ...

    def restore(self, snapshot: Any) -> None:
        """Go back to a snapshot, bit for bit."""
        ...

    def execute(self, chunk: np.ndarray) -> Outcome:
        """Carry out ``[H, A]`` actions, stopping where the episode ends."""
        ...

    def proprioception(self) -> np.ndarray:
        """``float32 [P]``."""
        ...

    def privileged_state(self) -> np.ndarray:
        """``float32 [S]``."""
        ...

    def observe(self) -> Observation:
        """What the robot sees now, B = 1."""
        ...


@dataclass(frozen=True, eq=False)
class SimulatorState:
    """One latent.

    Attributes:
        snapshot: What the environment saved.
        proprioception: ``float32 [P]``.
        privileged: ``float32 [S]``, true poses of the objects of interest.
        instruction: The task in words.
        embedding: ``float32 [D]`` for a learned value, or None without an `Embed` or a `See`.
        success: Whether the task is solved; such a state stays as it is under every chunk.
    """

    snapshot: Any
    proprioception: np.ndarray
    privileged: np.ndarray
    instruction: str
    embedding: np.ndarray | None
    success: bool


_Looked: TypeAlias = tuple[SimulatorState, Observation | None]
"""A state, and what the cameras showed there where it has yet to be embedded."""


@dataclass(frozen=True)
class SimulatorStatistics:
    """What the imagination has cost so far.

    Attributes:
        chunks: Chunks carried out; those from solved states cost nothing and are not counted.
        steps: Control steps carried out.
    """

    chunks: int = 0
    steps: int = 0


class Attached:
    """A world model of the one environment that the running episode is in."""

    _environment: Simulator | None = None

    def attach(self, env: Simulator) -> None:
        """Use this environment from now on. Whoever runs the episode calls it once per environment."""
        self._environment = env

    def _attached(self) -> Simulator:
        if self._environment is None:
            raise ForethoughtError(
                "This world model knows no environment yet; call attach(env) with the environment of the "
                "running episode before planning."
            )
        return self._environment

    def _require_one(self, observation: Observation) -> None:
        if observation.batch != 1:
            raise ForethoughtError(
                f"The simulator is one environment and got an observation of {observation.batch}. Plan one "
                "environment at a time (B = 1), or use a learned world model for batches."
            )


class SimulatorWorldModel(Attached):
    """Steps the attached environment and puts it back. Latents are object arrays ``[M]`` of `SimulatorState`.

    Rolling past the episode's step limit is not possible: such a chunk stops there, as the episode would.

    Args:
        embed: Fills `SimulatorState.embedding`, so that a value learned on such features can score a state.
        see: Fills it from what the cameras would show there, in place of ``embed``: dynamics without error,
            seen by a learned encoder. Draws every imagined state.

    Raises:
        ForethoughtError: Both ``embed`` and ``see`` are given.
    """

    cost = ImaginationCost("simulator", wave=1)

    def __init__(self, embed: Embed | None = None, see: See | None = None) -> None:
        if embed is not None and see is not None:
            raise ForethoughtError(
                "A simulator state has one embedding, and both embed and see were given. Set embed=null to "
                "have states seen by cameras, or see=null to have them exact."
            )
        self._embed, self._see = embed, see
        self.statistics = SimulatorStatistics()

    def reset_statistics(self) -> None:
        """Count from zero."""
        self.statistics = SimulatorStatistics()

    def encode(self, observation: Observation) -> np.ndarray:
        """The state of the attached environment, an object array ``[1]``; the observation only says how
        many."""
        self._require_one(observation)
        simulator = self._attached()
        snapshot = simulator.save()
        # An environment without a success flag in its snapshots is asked to plan in running episodes only.
        success = bool(getattr(snapshot, "success", False))
        return self._states([self._look(simulator, snapshot, observation.instruction[0], success)])

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """What truly happens after each chunk.

        Args:
            latent: Object array ``[M]`` of `SimulatorState`.
            chunks: ``float32 [M, H, A]``, environment units.

        Returns:
            The states, disagreement zero, and done 1 where the task is solved.
        """
        states = _as_states(latent)
        chunks = np.asarray(chunks)
        if chunks.ndim != 3 or len(chunks) != len(states):
            raise ForethoughtError(
                f"step() got {len(states)} states and chunks of shape {chunks.shape}; it expects one chunk "
                f"per state, [{len(states)}, H, A]."
            )
        simulator = self._attached()
        home = simulator.save()
        try:
            after = [
                self._advance(simulator, state, chunk) for state, chunk in zip(states, chunks, strict=True)
            ]
        finally:
            simulator.restore(home)
        return Prediction(
            latent=self._states(after),
            disagreement=np.zeros(len(after), np.float32),
            done=np.array([state.success for state, _ in after], np.float32),
        )

    def decode(self, latent: Latent) -> dict[str, np.ndarray]:
        """What states ``[M]`` look like: ``uint8 [M, h, w, 3]`` by camera of the attached environment."""
        simulator = self._attached()
        home = simulator.save()
        seen = []
        try:
            for state in _as_states(latent):
                simulator.restore(state.snapshot)
                seen.append(simulator.observe())
        finally:
            simulator.restore(home)
        return dict(Observation.stack(seen).images)

    def _advance(self, simulator: Simulator, state: SimulatorState, chunk: np.ndarray) -> _Looked:
        if state.success:
            return state, None
        simulator.restore(state.snapshot)
        outcome = simulator.execute(chunk)
        self.statistics = SimulatorStatistics(
            self.statistics.chunks + 1, self.statistics.steps + outcome.steps
        )
        return self._look(simulator, simulator.save(), state.instruction, outcome.success)

    def _look(self, simulator: Simulator, snapshot: Any, instruction: str, success: bool) -> _Looked:
        state = SimulatorState(
            snapshot=snapshot,
            proprioception=simulator.proprioception(),
            privileged=simulator.privileged_state(),
            instruction=instruction,
            embedding=None,
            success=bool(success),
        )
        return state, None if self._see is None else simulator.observe()

    def _states(self, looked: list[_Looked]) -> np.ndarray:
        """An object array ``[M]``, embedded in one call."""
        states = [state for state, _ in looked]
        new = [(row, seen) for row, (_, seen) in enumerate(looked) if seen is not None]
        if self._see is not None and new:
            features = self._see(Observation.stack([seen for _, seen in new]))
            for (row, _), embedding in zip(new, np.asarray(features), strict=True):
                states[row] = replace(states[row], embedding=embedding)
        if self._embed is not None and states:
            features = self._embed(
                np.stack([state.proprioception for state in states]),
                np.stack([state.privileged for state in states]),
                [state.instruction for state in states],
            )
            states = [
                replace(state, embedding=row) for state, row in zip(states, np.asarray(features), strict=True)
            ]
        latent = np.empty(len(states), dtype=object)
        latent[:] = states
        return latent


def _as_states(latent: Latent) -> list[SimulatorState]:
    states = list(latent) if isinstance(latent, np.ndarray) and latent.ndim == 1 else []
    if (
        not isinstance(latent, np.ndarray)
        or latent.ndim != 1
        or any(not isinstance(state, SimulatorState) for state in states)
    ):
        raise ForethoughtError(
            f"Got a latent of type {type(latent).__name__}; it expects the object array [M] that "
            "encode() or step() of this world model returned."
        )
    return states
