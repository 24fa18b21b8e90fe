"""Builds what a config describes: a benchmark, and the controller of an arm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...interfaces import ForethoughtError
from ...wrappers.models import seen_through
from .arms import Arm

FACTS = (
    "privileged_supervision",
    "scheme",
    "cameras",
    "image_size",
    "horizon",
    "action_size",
    "metadata",
)
"""Attributes of a part that go into the results where the part has them."""


def build(what: str, config: Mapping[str, Any], *, partial: bool = False) -> Any:
    """The object that ``config`` describes by ``_target_`` (a dotted name) and its arguments.

    Args:
        what: What is being built, for messages.
        config: Arguments by name, and ``_target_``.
        partial: Return a callable that still takes the arguments that the config does not give.

    Raises:
        ForethoughtError: The target does not exist or refuses its arguments. A ForethoughtError of the
            target's own passes through unchanged.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    target = config.get("_target_")
    if not target:
        raise ForethoughtError(f"The config of {what} needs a `_target_`, the dotted name of what to build.")
    try:
        return instantiate(OmegaConf.create(dict(config)), _convert_="all", _partial_=partial)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ForethoughtError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from error
        reason = error.__cause__ or error
        raise ForethoughtError(
            f"Cannot build the {what} {target}: {type(reason).__name__}: {reason}. Compare its config with "
            "the arguments that it takes, and check that the extra it needs is installed (`forethought "
            "doctor`)."
        ) from error


class Workshop:
    """Builds the controllers of several arms for one environment at a time, loading equal parts once."""

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}

    def controller(self, arm: Arm) -> Any:
        """The arm's controller: its policy, and its planner over its models.

        Raises:
            ForethoughtError: A part cannot be built; the message names the arm.
        """
        try:
            policy = self._part("policy", arm)
            planner = None
            if arm.searches:
                world_model = self._part("world_model", arm)
                planner = build("planner", arm.parts["planner"], partial=True)(
                    world_model=world_model,
                    reward_model=seen_through(self._part("reward", arm), world_model),
                    action_spec=policy.action_spec,
                    memory=self._part("memory", arm) if arm.parts["memory"] else None,
                )
            return build("controller", arm.parts["controller"], partial=True)(policy=policy, planner=planner)
        except ForethoughtError as error:
            raise ForethoughtError(f"Arm {arm.name}: {error}") from error
        except TypeError as error:
            raise ForethoughtError(
                f"Arm {arm.name}: a part does not take what it was given: {error}."
            ) from error

    def attach(self, environment: Any) -> None:
        """Hands the environment to those world models that ask for it."""
        for part in self._parts.values():
            attach = getattr(part, "attach", None)
            if callable(attach):
                attach(environment)

    def facts(self, arm: Arm) -> dict[str, dict[str, Any]]:
        """What the arm's parts say about themselves, by group (see ``FACTS``)."""
        groups = [group for group, config in arm.parts.items() if self._key(group, config) in self._parts]
        found = {group: self._parts[self._key(group, arm.parts[group])] for group in groups}
        said = {
            group: {name: getattr(part, name) for name in FACTS if getattr(part, name, None) is not None}
            for group, part in found.items()
        }
        return json.loads(json.dumps({group: facts for group, facts in said.items() if facts}, default=str))

    def part(self, group: str, arm: Arm) -> Any | None:
        """A part that ``controller`` has built for the arm, or None."""
        return self._parts.get(self._key(group, arm.parts[group]))

    def _part(self, group: str, arm: Arm) -> Any:
        key = self._key(group, arm.parts[group])
        if key not in self._parts:
            self._parts[key] = build(group, arm.parts[group])
        return self._parts[key]

    @staticmethod
    def _key(group: str, config: Mapping[str, Any]) -> str:
        return group + json.dumps(config, sort_keys=True, default=str)
