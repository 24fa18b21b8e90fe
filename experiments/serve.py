"""``forethought serve``: a policy that looks ahead behind a port, or stands in front of another server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ..interfaces import ActionSpec, ForethoughtError, Planner
from ..wrappers.limits import Limits
from ..wrappers.models import Models, load_models
from ..wrappers.serving.requests import Keys
from ..wrappers.serving.server import Server
from ..wrappers.serving.service import policy_server, proxy_server, warm_up
from ..wrappers.serving.sessions import Search
from ..wrappers.serving.upstream import MEGABYTE
from .evaluation.parts import build


def serve(
    *,
    policy: Mapping[str, Any] | None,
    planner: Mapping[str, Any] | None,
    models: str | None,
    upstream: str | None = None,
    upstream_timeout: float = 30.0,
    upstream_patience: float = 5.0,
    upstream_api_key_variable: str = "UPSTREAM_API_KEY",
    hold_seconds: float = 0.0,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_variable: str = "FORETHOUGHT_API_KEY",
    images: Mapping[str, str] | None = None,
    state: Sequence[str] = (),
    instruction: str | None = None,
    upside_down: Sequence[str] = (),
    limits: str | None = None,
    deadline_ms: float | None = None,
    samples: int | None = None,
    seed: int = 0,
    workers: int = 1,
    max_clients: int = 16,
    max_megabytes: float = 64.0,
    ping_seconds: float | None = 20.0,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Serves until it is interrupted; the configuration says what the arguments mean.

    Raises:
        ForethoughtError: Parts do not fit together, or the port cannot be had.
    """
    loaded = load_models(models) if models and planner else None
    keys = Keys(images or {}, tuple(state), instruction, tuple(upside_down))
    options: dict[str, Any] = {
        "observe": keys,
        "workers": workers,
        "host": host,
        "port": port,
        "api_key": os.environ.get(api_key_variable),
        "max_bytes": int(max_megabytes * MEGABYTE),
        "max_clients": max_clients,
        "ping_seconds": ping_seconds,
    }
    if limits is not None and not planner:
        raise ForethoughtError(
            f"limits={limits} are kept where actions are decided, and planner=none passes them on unseen. "
            "Choose a planner, or leave limits out."
        )
    drawn: dict[str, Any] = {"deadline_ms": deadline_ms, "samples": samples, "seed": seed}
    drawn["guard"] = None if limits is None else Limits.load(limits)
    if upstream is not None:
        search = _search(planner, loaded, None, drawn)
        server = proxy_server(
            upstream,
            search,
            upstream_timeout=upstream_timeout,
            upstream_patience=upstream_patience,
            upstream_api_key=os.environ.get(upstream_api_key_variable),
            hold_seconds=hold_seconds,
            **options,
        )
    else:
        served = build("policy", policy or {})
        search = _search(planner, loaded, served, drawn)
        server = policy_server(served, search, metadata=metadata, **options)
    if search is not None:
        warm_up(search)
    what = f"in front of {upstream}" if upstream else f"a {(policy or {}).get('_target_')}"
    listen(server, f"{what}, {'with search' if search is not None else 'without search'}")


def listen(server: Server, what: str) -> None:
    """Serves until SIGINT or SIGTERM."""
    console = Console(stderr=True)

    def started(port: int) -> None:
        console.print(f"Serving on ws://{server.host}:{port}: {what}. Ctrl-C ends it.", highlight=False)

    async def run() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: task and task.cancel())
        try:
            await server.run(started)
        except asyncio.CancelledError:
            console.print("Stopped.", highlight=False)

    asyncio.run(run())


def _search(
    planner: Mapping[str, Any] | None, models: Models | None, policy: Any, options: Mapping[str, Any]
) -> Search | None:
    """What each client searches with, or None without a planner."""
    if not planner:
        return None
    if models is None:
        raise ForethoughtError(
            "A search needs models=…, a folder that `forethought train models` wrote or the name of a "
            "shipped one; or choose planner=none."
        )
    spec = models.action_spec or getattr(policy, "action_spec", None)
    horizon = models.horizon or getattr(policy, "horizon", None)
    if not isinstance(spec, ActionSpec) or not horizon:
        raise ForethoughtError(
            "The models do not say what the numbers of an action mean, or how long a chunk is. Train them "
            "with this version of `forethought train models`, which records both."
        )
    make = build("planner", planner, partial=True)

    def one() -> Planner:
        return make(
            world_model=models.world_model,
            reward_model=models.reward_model,
            action_spec=spec,
            memory=models.memory,
        )

    one()  # what does not fit is said now
    return Search(one, spec, int(horizon), models.cameras, **options)
