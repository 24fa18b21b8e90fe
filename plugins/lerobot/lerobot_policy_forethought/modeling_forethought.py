"""A policy of LeRobot's that holds another one, wrapped by Forethought."""

from __future__ import annotations

import importlib
import logging
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

import forethought
from forethought.interfaces import ForethoughtError, Observation
from forethought.wrappers.observations import from_call

from .configuration_forethought import ForethoughtConfig
from .processor_forethought import make_forethought_pre_post_processors

log = logging.getLogger(__name__)


class ForethoughtPolicy(PreTrainedPolicy):
    """The policy at ``base_path``, looking ahead.

    Attributes:
        base: That policy, of its own type.
        forethought: Its latest decision and counters; None where it acts alone.
    """

    config_class = ForethoughtConfig
    name = "forethought"

    def __init__(self, config: ForethoughtConfig, **kwargs: Any) -> None:
        super().__init__(config)
        base_config = config.base_config()
        kind = get_policy_class(base_config.type)
        base = kind.from_pretrained(config.base_path, config=base_config)
        models_path = config.models_path()
        if models_path is None:
            log.warning(
                "forethought: no models, so %s acts alone. Give --policy.models=<folder or shipped name>, or "
                "put them into %s/forethought.",
                kind.__name__,
                config.base_path,
            )
        else:
            models = _models(models_path)
            base = forethought.wrap(
                base,
                models=models,
                planner=config.planner,
                observation=_Renamed(config.cameras, models.cameras) if config.cameras else None,
                processors=make_forethought_pre_post_processors(config),
                samples=config.samples,
                deadline_ms=config.deadline_ms,
                seed=config.seed,
                **config.options,
            )
        self.base: Any = base
        self._tally = _Tally(self.forethought)
        weakref.finalize(self, self._tally.report)  # no episode starts after the last one

    @property
    def forethought(self) -> Any:
        """The latest decision and the counters of what went wrong."""
        return getattr(self.base, "forethought", None)

    def reset(self) -> None:
        """An episode starts; what was decided in the one before is logged."""
        self._tally.report()
        self.base.reset()

    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """One action ``[B, A]``, normalised as the policy does it."""
        action = self.base.select_action(batch, **kwargs)
        self._tally.note(self.forethought)
        return action

    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """A chunk ``[B, C, A]``, normalised; the models' horizon of it is planned."""
        chunk = self.base.predict_action_chunk(batch, **kwargs)
        self._tally.note(self.forethought)
        return chunk

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict | None]:
        """The policy's loss."""
        return self.base.forward(batch)

    def get_optim_params(self) -> Any:
        """The policy's."""
        return self.base.get_optim_params()


def _models(path: str) -> forethought.Models:
    module, _, function = path.partition(":")
    if not function or Path(path).exists():
        return forethought.load_models(path)
    try:
        models = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        raise ForethoughtError(
            f"--policy.models={path} names a function {function} in a module {module} that cannot be had "
            f"({error}). Is its folder on PYTHONPATH?"
        ) from error
    if not isinstance(models, forethought.Models):
        raise ForethoughtError(f"{path} must return a forethought.Models; got {type(models).__name__}.")
    return models


class _Renamed:
    """An Observation from what the policy saw, with cameras under the names that the models know."""

    def __init__(self, names: Mapping[str, str], cameras: tuple[str, ...]) -> None:
        self._names, self._cameras = dict(names), cameras

    def __call__(self, entries: Mapping[str, Any]) -> Observation:
        by_last = {name.rsplit(".", 1)[-1]: value for name, value in entries.items()}
        renamed = {f"{new}": by_last[old] for new, old in self._names.items() if old in by_last}
        return from_call(({**entries, **renamed},), {}, self._cameras)


class _Tally:
    """Counts decisions between two resets."""

    def __init__(self, lookahead: Any) -> None:
        self._problems = getattr(lookahead, "counters", {})
        self._last: Any = None
        self._decisions = self._overridden = 0
        self._milliseconds = 0.0

    def note(self, lookahead: Any) -> None:
        if lookahead is None or lookahead.last is None or lookahead.last is self._last:
            return
        self._last = lookahead.last
        self._decisions += len(self._last.overridden)
        self._overridden += int(self._last.overridden.sum())
        self._milliseconds += sum(self._last.milliseconds.values())

    def report(self) -> None:
        if self._decisions:
            log.info(
                "forethought: %d decisions, %d not the policy's own, %.0f ms in all; problems so far: %s.",
                self._decisions,
                self._overridden,
                self._milliseconds,
                dict(self._problems) or "none",
            )
        self._decisions = self._overridden = 0
        self._milliseconds = 0.0
