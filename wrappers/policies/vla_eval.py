"""Model servers of ``vla-eval`` (https://github.com/allenai/vla-evaluation-harness, 0.8): one adapter on
``predict`` and ``predict_batch`` for all of its policy families.

    server = OpenVLAModelServer("openvla/openvla-7b", unnorm_key="…")
    vla_eval.model_servers.serve.serve(forethought.wrap(server, models="runs/my_task"))

The harness drives several episodes at once: every session gets a planner of its own, forgotten when its
episode ends. What ``predict`` returns is in the benchmark's units already; the harness cuts the chunk
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...interfaces import ActionSpec, ForethoughtError
from ..actions import ACTION_KEYS, Queue
from ..foreign import CalledPolicy, ForeignCall
from ..lookahead import Lookahead
from . import Adapter, Settings, needed_spec

RANK = 100
BASE = "vla_eval.model_servers.predict", "PredictModelServer"


def matches(policy: Any) -> bool:
    """Whether its class descends from the harness' ``PredictModelServer``."""
    return any((kind.__module__, kind.__qualname__) == BASE for kind in type(policy).__mro__)


def adapt(policy: Any, settings: Settings) -> Adapter:
    """Takes over what infers, and what begins and ends an episode."""
    for name in ("continuous_inference", "laas"):
        if getattr(policy, name, False):
            raise ForethoughtError(
                f"This {type(policy).__name__} has {name}=True: it then infers without being asked, and its "
                f"chunks are not executed as they are. Looking ahead needs {name}=False."
            )
    spec, horizon = needed_spec(policy, settings)
    chunk_size = getattr(policy, "chunk_size", None)
    if chunk_size is not None and chunk_size > horizon:
        raise ForethoughtError(
            f"This {type(policy).__name__} executes chunks of {chunk_size} steps, the models imagine "
            f"{horizon}. Give it chunk_size={horizon}, or train models for its chunks."
        )

    def methods(lookahead: Lookahead) -> dict[str, Callable[..., Any]]:
        return _Sessions(policy, lookahead, settings, spec, horizon).methods()

    return Adapter(CalledPolicy(spec, horizon), methods)


class _Sessions:
    """The episodes that run at once, by the harness' name of their session."""

    def __init__(
        self, server: Any, lookahead: Lookahead, settings: Settings, spec: ActionSpec, horizon: int
    ) -> None:
        self._server, self._lookahead, self._observe = server, lookahead, settings.observe
        self._spec, self._horizon = spec, horizon
        self._calls: dict[str, ForeignCall] = {}

    def methods(self) -> dict[str, Callable[..., Any]]:
        return {
            "predict": self.predict,
            "predict_batch": self.predict_batch,
            "on_episode_start": self.on_episode_start,
            "on_episode_end": self.on_episode_end,
        }

    def predict(self, obs: Mapping[str, Any], ctx: Any) -> Any:
        return self._improved(obs, ctx, lambda: self._server.predict(obs, ctx))

    def predict_batch(self, obs_batch: list[Mapping[str, Any]], ctx_batch: list[Any]) -> list[Any]:
        theirs = self._server.predict_batch(obs_batch, ctx_batch)
        rows = zip(obs_batch, ctx_batch, theirs, strict=True)
        return [self._improved(obs, ctx, lambda answer=answer: answer) for obs, ctx, answer in rows]

    async def on_episode_start(self, config: dict[str, Any], ctx: Any) -> None:
        self._forget(ctx)
        await self._server.on_episode_start(config, ctx)

    async def on_episode_end(self, result: dict[str, Any], ctx: Any) -> None:
        self._forget(ctx)
        await self._server.on_episode_end(result, ctx)

    def _forget(self, ctx: Any) -> None:
        session = self._calls.pop(ctx.session_id, None)
        if session is not None:
            self._lookahead.counters.update(session.lookahead.counters)

    def _improved(self, obs: Mapping[str, Any], ctx: Any, call: Callable[[], Any]) -> Any:
        session = self._calls.get(ctx.session_id)
        if session is None:
            called = CalledPolicy(self._spec, self._horizon)
            session = ForeignCall(called, self._lookahead.beside(called), self._observe, Queue())
            self._calls[ctx.session_id] = session
        answer = session(lambda _: self._cut(call()), obs)
        self._lookahead.last = session.lookahead.last
        return answer

    def _cut(self, answer: Any) -> Any:
        """The answer with as many steps as the models imagine, where the harness drops the others anyhow."""
        if not isinstance(answer, Mapping) or getattr(self._server, "chunk_size", None) is None:
            return answer
        key = next((key for key in ACTION_KEYS if key in answer), None)
        if key is None or np.ndim(answer[key]) != 2 or len(answer[key]) <= self._horizon:
            return answer
        return {**answer, key: np.asarray(answer[key])[: self._horizon]}
