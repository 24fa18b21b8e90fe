"""What is looked at, what it is compared with, and what is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError
from ..observations import INSTRUCTION_KEYS, STATE_KEYS

ACTIONS = ("actions", "action")


@dataclass(frozen=True)
class Symptom:
    """One thing that was looked at.

    Attributes:
        name: What.
        wrong: True for a mistake, None for a suspicion, False where it looks right.
        detail: What was found.
        mend: What to do about it, empty where it looks right.
    """

    name: str
    wrong: bool | None
    detail: str
    mend: str = ""


@dataclass(frozen=True, eq=False)
class Range:
    """Where numbers usually lie: ``low`` and ``high`` are the 1st and 99th percentile, ``[n]``."""

    low: np.ndarray
    high: np.ndarray

    @property
    def size(self) -> int:
        """How many numbers."""
        return len(self.low)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a policy saw and did.

    Attributes:
        images: By name, as they were handed to the policy.
        state: ``[P]``, or None.
        instruction: The task in words.
        actions: ``[T, A]``, as they went to the robot.
    """

    images: Mapping[str, np.ndarray]
    state: np.ndarray | None
    instruction: str
    actions: np.ndarray

    @staticmethod
    def of(entries: Mapping[str, Any]) -> Seen:
        """From arrays by name: images, state, instruction and actions under their usual names.

        Raises:
            ForethoughtError: The actions are missing, or not numbers ``[T, A]``.
        """
        named = {str(name).replace("/", ".").rsplit(".", 1)[-1]: value for name, value in entries.items()}
        actions = next((np.asarray(named[name]) for name in ACTIONS if name in named), np.zeros(0))
        if actions.ndim == 3 and len(actions) == 1:
            actions = actions[0]
        if actions.ndim != 2 or not np.issubdtype(actions.dtype, np.number) or not len(actions):
            raise ForethoughtError(
                f"Expected actions [T, A] under one of {list(ACTIONS)}, some successive ones as they went to "
                f"the robot; found { ({name: np.shape(value) for name, value in entries.items()}) }."
            )
        words = next((named[name] for name in INSTRUCTION_KEYS if name in named), "")
        state = next((np.asarray(named[name]).ravel() for name in STATE_KEYS if name in named), None)
        images = {
            name: array[0] if array.ndim == 4 else array
            for name, value in named.items()
            if name not in ACTIONS and (array := np.asarray(value)).ndim in (3, 4) and 3 in array.shape
        }
        text = str(np.asarray(words).ravel()[0]) if np.size(words) else ""
        return Seen(images, state, text, actions.astype(np.float64))


def read_statistics(content: Any, key: str | None = None) -> dict[str, Range]:
    """Ranges of ``action`` and ``state`` in the statistics that came with a policy.

    Understands OpenVLA's ``dataset_statistics.json``, openpi's ``norm_stats.json`` and LeRobot's
    ``stats.json``: percentiles where there are any, otherwise the extremes.

    Args:
        content: The parsed JSON.
        key: Name of the data set where the file holds several.

    Raises:
        ForethoughtError: There are none, or those of several data sets.
    """
    if isinstance(content, dict) and "norm_stats" in content:
        content = content["norm_stats"]
    if isinstance(content, dict) and key is not None:
        if key not in content:
            raise ForethoughtError(f"The statistics have no data set {key!r}; they have {sorted(content)}.")
        content = content[key]
    names = {"action": ("action", "actions"), "state": ("state", "proprio", "observation.state")}
    if isinstance(content, dict) and not any(name in content for name in names["action"]):
        if len(content) != 1:
            raise ForethoughtError(
                f"The statistics are of several data sets, {sorted(content)}; say which with --key."
            )
        content = next(iter(content.values()))
    found = {}
    for what, spellings in names.items():
        entry = next(
            (content[name] for name in spellings if isinstance(content, dict) and name in content), None
        )
        for low, high in (("q01", "q99"), ("min", "max")):
            if isinstance(entry, dict) and low in entry and high in entry and what not in found:
                found[what] = Range(*(np.ravel(np.asarray(entry[name], np.float64)) for name in (low, high)))
    if "action" not in found:
        raise ForethoughtError("The statistics hold no q01 and q99, nor min and max, of an action.")
    return found
