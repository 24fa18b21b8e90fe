"""Arms: what is compared. An arm is one choice for every group of parts.

Every evaluation has the arm ``policy`` (the policy alone) and, unless ``planner=none``, one arm named for
the chosen planner. ``arms.<name>={...}`` adds more: each starts from the run's own choices and replaces the
groups that it names,

    arms.paper={planner: vla_reasoner, reward: paper}             an option's file as it stands
    arms.small={planner: {simulations: 8}}                        the run's own choice with other values
    arms.best={planner: {option: best_of_n, simulations: 64}}     an option with other values

Values given on the command line for a group (``planner.simulations=8``) do not reach an arm that replaces
that group.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ...interfaces import ForethoughtError

BASELINE = "policy"
"""Name of the arm that everything is compared with."""

GROUPS = ("policy", "world_model", "reward", "memory", "planner", "controller")
"""Groups that an arm chooses from. The benchmark is not among them: episodes are paired on it."""

SEARCH_GROUPS = ("world_model", "reward", "memory", "planner")
"""Groups that the policy alone does not use."""

OptionLoader = Callable[[str, str], DictConfig]
"""From a group and an option's name to that option's config, as its file has it."""


@dataclass(frozen=True)
class Arm:
    """One choice for every group.

    Attributes:
        name: Shown in tables and written into results.
        choices: Group to the name of the chosen option; groups that the arm does not use are absent.
        parts: Group to its resolved config, plain containers; empty where there is nothing to build.
    """

    name: str
    choices: Mapping[str, str]
    parts: Mapping[str, Mapping[str, Any]]

    @property
    def searches(self) -> bool:
        """Whether the arm has a planner."""
        return bool(self.parts["planner"])


def compose_arms(
    config: DictConfig, choices: Mapping[str, str], load_option: OptionLoader
) -> tuple[Arm, ...]:
    """The arms of an evaluation, the policy alone first.

    Args:
        config: The composed config, with one node per group and ``arms``.
        choices: Group to the name of the option that the run chose.
        load_option: Reads another option of a group.

    Raises:
        ForethoughtError: An arm's name is taken, or it names a group or option that does not exist.
    """
    own = {group: choices[group] for group in GROUPS}
    arms = [_resolve(BASELINE, config, own | {"planner": "none"}, {"planner": OmegaConf.create({})})]
    chosen = _resolve(own["planner"], config, own, {})
    if chosen.searches:
        arms.append(chosen)
    for name, wanted in (config.get("arms") or {}).items():
        if str(name) in {arm.name for arm in arms}:
            raise ForethoughtError(
                f"arms.{name}: the evaluation already has an arm of this name (`{BASELINE}` and the chosen "
                "planner always run). Choose another name."
            )
        arms.append(_extra_arm(str(name), wanted, config, own, load_option))
    return tuple(arms)


def _extra_arm(
    name: str, wanted: Any, config: DictConfig, own: Mapping[str, str], load_option: OptionLoader
) -> Arm:
    if not isinstance(wanted, DictConfig) or not wanted:
        raise ForethoughtError(f"arms.{name}={wanted} must name groups, for example {{planner: best_of_n}}.")
    choices, replaced = dict(own), {}
    for group, value in wanted.items():
        group = str(group)
        if group not in GROUPS:
            raise ForethoughtError(f"arms.{name} names the group {group!r}; there are {', '.join(GROUPS)}.")
        if isinstance(value, DictConfig):
            values = {str(key): value[key] for key in value if key != "option"}
            option = value.get("option")
            base = config[group] if option is None else load_option(group, str(option))
            choices[group] = str(option or own[group])
            replaced[group] = OmegaConf.merge(base, values)
        else:
            choices[group] = str(value)
            replaced[group] = load_option(group, str(value))
    return _resolve(name, config, choices, replaced)


def _resolve(name: str, config: DictConfig, choices: Mapping[str, str], replaced: Mapping[str, Any]) -> Arm:
    """The arm's parts with all interpolations filled in, as if its choices had been the run's."""
    whole = config.copy()
    OmegaConf.set_struct(whole, False)
    OmegaConf.set_readonly(whole, False)
    for group, part in replaced.items():
        whole[group] = part
    searches = bool(whole.planner)
    used = [group for group in GROUPS if searches or group not in SEARCH_GROUPS]
    try:
        parts = {
            group: OmegaConf.to_container(whole[group], resolve=True) if group in used else {}
            for group in GROUPS
        }
    except OmegaConfBaseException as error:
        cause = error.__cause__
        if isinstance(cause, ForethoughtError):
            raise cause from None
        raise ForethoughtError(f"Arm {name}: {error}") from error
    return Arm(name, {group: choices[group] for group in used}, parts)  # type: ignore[arg-type]


def arm_key(arm: Arm, surroundings: Mapping[str, Any]) -> str:
    """A fingerprint of everything that decides an arm's outcome.

    Args:
        arm: The arm; its name and the names of its choices do not count.
        surroundings: Benchmark, seed, weights: whatever else does.
    """
    text = json.dumps({"parts": arm.parts, **surroundings}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
