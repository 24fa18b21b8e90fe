"""Adapters to families of policies. A family is one module in this folder, found by looking; nothing lists
them.

A module is an adapter when it has

    RANK: int                                  families are tried from the highest rank to the lowest
    def matches(policy) -> bool                whether it knows how to drive this object
    def adapt(policy, settings) -> Adapter     how

A named family (LeRobot, OpenVLA, …) takes rank 100; the general ones here take less.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ...interfaces import ActionSpec, ForethoughtError, Observation, Policy
from ..gripper import Gripper, standardised_gripper
from ..lookahead import Lookahead

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Settings:
    """What ``wrap`` was told, for an adapter.

    Attributes:
        observe: From the arguments of a call of the policy to an Observation.
        method: The one method to take over, or None for those that the adapter knows.
        action_spec: What the numbers of an action mean, said by the user or recorded with the models; or
            None.
        horizon: Chunk length H of the models in control steps, or None.
        gripper_open: The environment's gripper command for open, or None where the user did not say.
        told: Whether ``observe`` is the user's, and takes the arguments of a call exactly as they come.
        processors: What turns observations and actions into the policy's own and back, where it keeps that
            outside of itself; or None.
    """

    observe: Callable[..., Observation]
    method: str | None = None
    action_spec: ActionSpec | None = None
    horizon: int | None = None
    gripper_open: float | None = None
    told: bool = False
    processors: Any = None

    def gripper(self, spec: ActionSpec) -> Gripper | None:
        """How the policy writes open and closed, where the user said that it is not as the environment."""
        return None if self.gripper_open is None else standardised_gripper(spec, "", self.gripper_open)


@dataclass(frozen=True, eq=False)
class Adapter:
    """How to drive one object.

    Attributes:
        policy: The object as a Policy.
        methods: Given the lookahead, what takes the place of the object's methods, by name. ``reset`` is
            taken over for every object that has one and need not be named.
        on_reset: What else to do when an episode starts.
    """

    policy: Policy
    methods: Callable[[Lookahead], Mapping[str, Callable[..., Any]]]
    on_reset: Callable[[], None] = lambda: None


def adapters() -> list[ModuleType]:
    """The adapter modules of this folder, highest rank first.

    One that cannot be imported is left out and logged.
    """
    found = []
    for module in pkgutil.iter_modules(__path__):
        try:
            imported = importlib.import_module(f".{module.name}", __name__)
        except Exception as error:
            log.warning("The policy adapter %s cannot be imported: %s", module.name, error)
            continue
        if hasattr(imported, "matches"):
            found.append(imported)
    return sorted(found, key=lambda module: (-module.RANK, module.__name__))


def adapt(policy: Any, settings: Settings) -> Adapter:
    """The adapter of the first family that knows the object. A method named by the user settles the family.

    Raises:
        ForethoughtError: No family knows it.
    """
    if settings.method is not None:
        from . import methods

        return methods.adapt(policy, settings)
    families = adapters()
    for family in families:
        if family.matches(policy):
            return family.adapt(policy, settings)
    names = [module.__name__.rsplit(".", 1)[-1] for module in families]
    raise ForethoughtError(
        f"Do not know how to drive a {type(policy).__name__}: no adapter of {names} matches. Give an object "
        "with one of "
        "the methods propose, act, infer, predict, get_action or predict_action, name its method with "
        "wrap(method=...), or give a function from an observation to an action chunk."
    )


def needed_spec(policy: Any, settings: Settings) -> tuple[ActionSpec, int]:
    """Action spec and horizon for an object that has to be told them.

    Raises:
        ForethoughtError: Neither the object, nor the user, nor the models say.
    """
    spec = settings.action_spec or getattr(policy, "action_spec", None)
    if not isinstance(spec, ActionSpec):
        raise ForethoughtError(
            f"Do not know what the actions of this {type(policy).__name__} mean: the models do not say. "
            "Hand wrap(action_spec=ActionSpec(low, high, position=…, rotation=…, gripper=…))."
        )
    horizon = getattr(policy, "horizon", None) if settings.horizon is None else settings.horizon
    if not isinstance(horizon, (int, np.integer)) or horizon < 1:
        raise ForethoughtError(
            f"Do not know the chunk length to plan with for this {type(policy).__name__}: the models do not "
            "say. "
            f"Hand wrap(horizon=…), a number of control steps; got {horizon!r}."
        )
    return spec, int(horizon)
