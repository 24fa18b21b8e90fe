"""Finds where an episode begins in a protocol that does not say.

openpi's client has a ``reset`` that never reaches the server, so that a server which remembers (a tree to
grow on, the seeds of an episode) has to see for itself. Beginning anew once too often costs a tree; not
beginning costs more: the tree of another scene. The signs, from the surest to the weakest:

    told       the observation says so: a flag, the number of the episode, a step that counts from zero again
    task       the instruction changed
    pause      the client was silent for long, counted from our answer to its next observation
    jump       the robot is elsewhere: most numbers of the proprioception that ever move made a step many
               times longer than any of this episode
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...interfaces import Observation

RESET_KEY = "forethought/reset"
"""Ours: true in the first observation of an episode. An observation with nothing else is only a reset."""

FLAGS = (RESET_KEY, "reset", "is_first", "episode_start", "new_episode")
EPISODES = ("episode_id", "episode_index", "episode", "session_id")
STEPS = ("step", "timestep", "step_index", "frame_index")
"""Keys in use for what is told; a prefix such as ``observation/`` does not matter."""


@dataclass(eq=False)
class EpisodeWatch:
    """Watches one client.

    Attributes:
        pause: Seconds of silence that end an episode.
        jump: How many times longer than its longest step so far a number must move.
        settled: Steps of an episode before a jump is believed.
    """

    pause: float = 20.0
    jump: float = 8.0
    settled: int = 4
    _task: tuple[str, ...] | None = field(default=None, init=False)
    _told: dict[str, Any] = field(default_factory=dict, init=False)
    _answered: float = field(default=0.0, init=False)
    _body: np.ndarray | None = field(default=None, init=False)
    _longest: np.ndarray | None = field(default=None, init=False)
    _steps: int = field(default=0, init=False)

    def begins(self, request: Mapping[str, Any], observation: Observation, now: float) -> str:
        """Why an episode begins with this observation, or nothing when it goes on.

        Args:
            request: The observation as the client sent it.
            observation: The same, understood.
            now: Seconds of any steady clock.
        """
        reason = self._why(request, observation, now)
        if reason:
            self._longest, self._steps = None, 0
        self._remember(request, observation, now)
        return reason

    def answered(self, now: float) -> None:
        """The client has its answer: from here on it is silent."""
        self._answered = now

    def _why(self, request: Mapping[str, Any], observation: Observation, now: float) -> str:
        if self._task is None:
            return "first observation"
        told = _told(request)
        if any(told.get(key) is True for key in FLAGS):
            return "told"
        both = told.keys() & self._told.keys()
        if any(told[key] != self._told[key] for key in both if key in EPISODES):
            return "told: another episode"
        if any(told[key] < self._told[key] for key in both if key in STEPS):
            return "told: the steps start again"
        if observation.instruction != self._task:
            return "another task"
        if both:  # who counts would have said
            return ""
        if now - self._answered > self.pause:
            return f"silent for {now - self._answered:.0f} s"
        return "the robot is elsewhere" if self._jumped(observation.proprioception) else ""

    def _jumped(self, body: np.ndarray) -> bool:
        if self._body is None or self._longest is None or body.shape != self._body.shape:
            return False
        if self._steps < self.settled:
            return False
        moving = self._longest > 0
        far = np.abs(body - self._body) > self.jump * self._longest
        return bool(moving.any()) and bool((far & moving).sum() * 2 > moving.sum())

    def _remember(self, request: Mapping[str, Any], observation: Observation, now: float) -> None:
        body = np.asarray(observation.proprioception, np.float64)
        if self._steps and self._body is not None and body.shape == self._body.shape:
            step = np.nan_to_num(np.abs(body - self._body), nan=0.0, posinf=0.0)
            self._longest = step if self._longest is None else np.maximum(self._longest, step)
        self._steps += 1
        self._body, self._task, self._told = body, observation.instruction, _told(request)
        self._answered = now


def _told(request: Mapping[str, Any]) -> dict[str, Any]:
    """What an observation says about its episode: flags, and numbers or names that can be compared."""
    found: dict[str, Any] = {}
    for key, value in request.items():
        name = key if key == RESET_KEY else key.replace(".", "/").rsplit("/", 1)[-1]
        value = value.item() if isinstance(value, (np.ndarray, np.generic)) and value.size == 1 else value
        if name in FLAGS:
            found[name] = value is True or (isinstance(value, int) and value == 1)
        else:
            kinds = (int, str) if name in EPISODES else (int, float) if name in STEPS else ()
            found |= {name: value} if isinstance(value, kinds) else {}
    return found
