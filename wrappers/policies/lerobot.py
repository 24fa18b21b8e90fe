"""LeRobot's policies: ACT, Diffusion, VQ-BeT, SmolVLA, π0, X-VLA and whatever else extends PreTrainedPolicy.

Three habits of theirs decide how they are driven (https://github.com/huggingface/lerobot, 0.4):

* Everything inside is normalised; the pre- and the postprocessor that know the statistics stand outside.
  The observation is turned back before anybody else sees it, and what was planned is normalised again, so
  that the postprocessor of whoever calls makes it the planned action.
* ``select_action`` gives out a queue of actions and fills it with a new chunk when it is empty. What was
  planned is written into that queue: the policy goes on by itself, and what it remembers stays true.
* Some read observations that only ``select_action`` collects, so further chunks are asked for after it.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation
from ..lookahead import Lookahead
from ..processors import Units
from ..repeating import repeated_queues, repeated_rows, shared_prefix
from . import Adapter, Settings, needed_spec

RANK = 100

log = logging.getLogger(__name__)


def matches(policy: Any) -> bool:
    """Whether it extends LeRobot's PreTrainedPolicy."""
    return any(
        kind.__name__ == "PreTrainedPolicy" and kind.__module__.split(".")[0] == "lerobot"
        for kind in type(policy).__mro__
    )


def adapt(policy: Any, settings: Settings) -> Adapter:
    """Takes over select_action and predict_action_chunk."""
    own = policy.__dict__
    if isinstance(own.get("_queues"), dict):
        own["_queues"] = {name: copy.copy(queue) for name, queue in own["_queues"].items()}
    if "temporal_ensembler" in own:
        own["temporal_ensembler"] = copy.deepcopy(own["temporal_ensembler"])
    spec, horizon = needed_spec(policy, settings)
    units = Units(*_processors(policy, settings))
    units.check(policy, spec)
    driven = LeRobotPolicy(policy, units, spec, horizon)

    def methods(lookahead: Lookahead) -> Mapping[str, Callable[..., Any]]:
        calls = _Calls(driven, lookahead, settings.observe)
        return {name: getattr(calls, name) for name in ("select_action", "predict_action_chunk")}

    return Adapter(driven, methods)


def _processors(policy: Any, settings: Settings) -> tuple[Any, Any]:
    """The pre- and the postprocessor: the user's, or those saved beside the weights."""
    given = settings.processors
    if given is None and policy.config.pretrained_path:
        make = importlib.import_module("lerobot.policies.factory").make_pre_post_processors
        folder = str(policy.config.pretrained_path)
        device = {"device_processor": {"device": str(policy.config.device)}}
        try:
            given = make(policy.config, folder, preprocessor_overrides=device)
        except Exception as error:
            raise ForethoughtError(
                f"The processors of this {type(policy).__name__} cannot be loaded from {folder} ({error}). "
                "Hand them over: wrap(policy, processors=(preprocessor, postprocessor), …)."
            ) from error
    if not isinstance(given, (tuple, list)) or [hasattr(one, "steps") for one in given] != [True, True]:
        raise ForethoughtError(
            f"The actions of a {type(policy).__name__} are normalised; its processors know how. Hand "
            "wrap(policy, processors=make_pre_post_processors(policy.config, path), …), with the function "
            f"from lerobot.policies.factory; got processors={given!r}."
        )
    return given[0], given[1]


class LeRobotPolicy:
    """One policy seen as a ``Policy``. Sample 0 is what it is about to do, the others are asked for anew.

    Attributes:
        policy: LeRobot's.
        units: Its processors, both ways.
        action_spec: What the numbers of an action mean.
        horizon: Chunk length H in control steps.
        deterministic: Whether asking again gives the same chunk; noticed when it does.
    """

    def __init__(self, policy: Any, units: Units, action_spec: ActionSpec, horizon: int) -> None:
        self.policy, self.units = policy, units
        self.action_spec, self.horizon = action_spec, horizon
        self.deterministic = False
        self._share = True
        self.failed: Exception | None = None
        self.own = torch.zeros(0)
        self.batch: dict[str, Any] = {}
        self.fresh = True
        self.first_problem: Callable[[Exception], None] = lambda error: None

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        """``[B, N, H, A]``, fewer than ``n`` from a deterministic policy.

        Raises:
            Exception: What the policy raised when it was called.
        """
        if self.failed is not None:
            raise self.failed
        chunks = self.units.environment(self.own)[:, None]
        more = min(n - 1, 0 if self.fresh else 1) if self.deterministic else n - 1
        if more > 0:
            try:
                asked = self._ask(more, seeds)[:, :, : self.horizon]
                if more > 1 and torch.allclose(asked, asked[:, :1], rtol=1e-5, atol=1e-5):
                    self.deterministic = True
                    asked = asked[:, : 0 if self.fresh else 1]
                if asked.shape[1]:
                    chunks = np.concatenate([chunks, self.units.environment(asked)], axis=1)
            except Exception as error:
                self.first_problem(error)
        return ActionSamples(chunks)

    def _ask(self, n: int, seeds: np.ndarray) -> Tensor:
        """Further chunks ``[B, n, C, A]``. The policy's queues and the global generators stay as they are."""
        policy, rows = self.policy, len(seeds)
        batch = dict(self.batch)
        queues = policy.__dict__.get("_queues") or {}
        for name, queue in queues.items():
            if name != "action" and queue:
                batch.setdefault(name, queue[-1])
        noise = self._noise(n, seeds)
        devices = [noise.device] if noise.is_cuda else []
        with (
            _warm(policy.config),
            torch.random.fork_rng(devices=devices),
            torch.no_grad(),
            repeated_queues(policy, rows, n) as repeat,
        ):
            torch.manual_seed(int(np.random.SeedSequence([int(s) for s in seeds]).generate_state(1)[0]))
            options = {"noise": noise} if self._takes_noise() else {}
            if self._share and options and _can_share(policy):
                try:
                    with shared_prefix(policy.model, rows, n):
                        chunks = policy.predict_action_chunk(_kept(batch), **options)
                    return chunks.unflatten(0, (rows, n))
                except Exception as error:
                    self._share = False
                    log.warning("The observation is encoded once per sample: sharing failed (%s).", error)
            repeat()
            chunks = policy.predict_action_chunk(repeated_rows(batch, rows, n), **options)
        return chunks.unflatten(0, (rows, n))

    def _takes_noise(self) -> bool:
        model = getattr(self.policy, "model", None)
        calls = (self.policy.predict_action_chunk, getattr(model, "sample_actions", None))
        return any("noise" in inspect.signature(call).parameters for call in calls if callable(call))

    def _noise(self, n: int, seeds: np.ndarray) -> Tensor:
        """``[B·n, C, A]`` from the seed of each row; ``A`` with the padding that the larger models have."""
        config, parameter = self.policy.config, next(self.policy.parameters())
        length = getattr(config, "chunk_size", None) or getattr(config, "horizon", self.horizon)
        size = getattr(config, "max_action_dim", None) or self.action_spec.size
        draws = [np.random.default_rng(int(seed)).standard_normal((n, length, size)) for seed in seeds]
        return torch.as_tensor(np.concatenate(draws), dtype=torch.float32, device=parameter.device)


class _Calls:
    """What stands for the methods of one policy."""

    def __init__(
        self, driven: LeRobotPolicy, lookahead: Lookahead, observe: Callable[..., Observation]
    ) -> None:
        self._driven, self._policy, self._lookahead, self._observe = (
            driven,
            driven.policy,
            lookahead,
            observe,
        )
        self._wait = 0  # actions to give out before the next decision
        self._shape: Tensor | None = None  # the last chunk that the policy gave
        driven.first_problem = lambda error: lookahead.controller.count("samples", 1, error)

    def select_action(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """One action ``[B, A]``, normalised. Plans where the policy makes a chunk, and every H actions."""
        horizon, before = self._driven.horizon, _kept(batch)
        with _recorded(self._policy) as made:
            try:
                action = self._policy.select_action(batch, *args, **kwargs)
            except Exception as error:
                return self._hold(error, before)[:, 0]
        ahead = _ahead(self._policy, action, made)
        if not made and self._wait > 0:
            self._wait -= 1
            return self._noted(action)
        if ahead.shape[1] < horizon and not made:  # the end of a chunk: the policy is asked anew soon
            return self._noted(action)
        if self._too_short(ahead):
            return self._noted(action)
        chunk, changed = self._decide(before, ahead[:, :horizon], fresh=bool(made))
        queue = _action_queue(self._policy)
        self._wait = min(horizon, 1 + len(queue)) - 1
        for step in range(min(len(queue), horizon - 1)):
            queue[step] = chunk[:, step + 1]
        while changed and len(queue) > horizon - 1:
            queue.pop()
        return self._noted(chunk[:, 0], instead=True)

    def _noted(self, action: Tensor, *, instead: bool = False) -> Tensor:
        """The action ``[B, A]``; a guard that remembers what was executed is told."""
        controller = self._lookahead.controller
        if callable(getattr(controller.guard, "notice", None)):
            try:
                controller.executed(self._driven.units.environment(action[:, None]), instead=instead)
            except Exception as error:
                controller.count("guard", len(action), error)
        return action

    def predict_action_chunk(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """A chunk ``[B, C, A]``, normalised; its first H actions are planned, the rest is the policy's."""
        horizon, before = self._driven.horizon, _kept(batch)
        try:
            ahead = self._policy.predict_action_chunk(batch, *args, **kwargs)
        except Exception as error:
            return self._hold(error, before)
        if self._too_short(ahead):
            return ahead
        chunk, _ = self._decide(before, ahead[:, :horizon], fresh=True)
        return torch.cat([chunk, ahead[:, horizon:]], dim=1)

    def _too_short(self, ahead: Tensor) -> bool:
        """Whether there is nothing to plan with. The first time that is an error to mend."""
        if ahead.shape[1] >= self._driven.horizon:
            return False
        error = ForethoughtError(
            f"{type(self._policy).__name__} gives chunks of {ahead.shape[1]} actions, the models were "
            f"trained for {self._driven.horizon}. Train models with horizon={ahead.shape[1]} or less, or "
            "load the policy with more steps a chunk (n_action_steps)."
        )
        if not self._lookahead.started:
            raise error
        self._lookahead.controller.count("policy", len(ahead), error)
        return True

    def _decide(self, batch: dict[str, Any], own: Tensor, *, fresh: bool) -> tuple[Tensor, bool]:
        """What to do in place of ``own [B, H, A]``, normalised, and whether any row does something else than
        the policy wanted; kept rows stay bit for bit."""
        driven = self._driven
        self._shape = driven.own = own
        driven.batch, driven.fresh, driven.failed = batch, fresh, None
        decision = self._lookahead.decide(self._seen(batch), batch=len(own))
        if self._lookahead.dry_run:
            return own, False
        theirs = driven.units.environment(own)
        spec = driven.action_spec
        inside = (theirs >= spec.low - 1e-3) & (theirs <= spec.high + 1e-3)
        kept = ~decision.overridden & (inside & (spec.clip(theirs) == decision.chunk)).all(axis=(1, 2))
        if kept.all():
            return own, False
        planned = driven.units.policy(decision.chunk, own)
        rows = torch.as_tensor(kept, device=own.device)[:, None, None]
        return torch.where(rows, own, planned), bool(decision.overridden.any())

    def _hold(self, error: Exception, batch: dict[str, Any]) -> Tensor:
        """No motion, ``[B, H, A]``, when the policy raised; the first time that is raised again."""
        if self._shape is None or not self._lookahead.started or self._lookahead.dry_run:
            raise error
        self._wait, self._driven.failed = 0, error
        decision = self._lookahead.decide(self._seen(batch), batch=len(self._shape))
        return self._driven.units.policy(decision.chunk, self._shape)

    def _seen(self, batch: dict[str, Any]) -> Any:
        try:
            return self._observe(self._driven.units.observation(batch))
        except Exception as error:
            if not self._lookahead.started:
                raise
            return error


def _kept(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch as it came: some policies change small entries in place."""
    return {
        name: value.clone() if isinstance(value, Tensor) and value.ndim < 4 else value
        for name, value in batch.items()
        if name != "action"
    }


def _action_queue(policy: Any) -> deque[Tensor]:
    """The actions ``[B, A]`` that a policy has yet to give out; they live under one of two names."""
    queues = (policy.__dict__.get("_action_queue"), (policy.__dict__.get("_queues") or {}).get("action"))
    return next((queue for queue in queues if queue), deque())


def _ahead(policy: Any, action: Tensor, made: list[Tensor]) -> Tensor:
    """What the policy means to do from now on, ``[B, C, A]``; the first is ``action``."""
    ensemble = getattr(getattr(policy, "temporal_ensembler", None), "ensembled_actions", None)
    if ensemble is not None:
        return torch.cat([action[:, None], ensemble], dim=1)
    if made and made[-1].ndim == 3 and torch.equal(made[-1][:, 0], action):
        return made[-1]
    return torch.stack([action, *_action_queue(policy)], dim=1)


@contextmanager
def _recorded(policy: Any) -> Iterator[list[Tensor]]:
    """The chunks that the policy makes meanwhile, in whole; it queues but a part of them."""
    made: list[Tensor] = []

    def recording(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def recorded(*args: Any, **kwargs: Any) -> Tensor:
            made.append(make(*args, **kwargs))
            return made[-1]

        return recorded

    names = [name for name in ("predict_action_chunk", "_get_action_chunk") if hasattr(policy, name)]
    policy.__dict__.update({name: recording(getattr(policy, name)) for name in names})
    try:
        yield made
    finally:
        for name in names:
            del policy.__dict__[name]


def _can_share(policy: Any) -> bool:
    model = getattr(policy, "model", None)
    return callable(getattr(model, "denoise_step", None)) and not getattr(
        policy.config, "compile_model", False
    )


@contextmanager
def _warm(config: Any) -> Iterator[None]:
    """Lets a policy that always writes the likeliest action tokens draw them for once."""
    cold = getattr(config, "temperature", None) == 0.0
    if cold:
        config.temperature = 1.0
    try:
        yield
    finally:
        if cold:
            config.temperature = 0.0
