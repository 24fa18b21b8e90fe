"""Puts a server together: for a policy that lives here, or in front of a server elsewhere."""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...interfaces import ActionSamples, ForethoughtError, Observation
from .backoff import Backoff
from .lines import PolicyLine, ProxyLine
from .server import Server
from .sessions import Observe, RelayedSession, Search, policy_session
from .upstream import MEGABYTE, Upstream

log = logging.getLogger(__name__)


class Ledger:
    """Counts the sessions that live, and the problems of all that ever lived."""

    def __init__(self) -> None:
        self._living: weakref.WeakSet[Any] = weakref.WeakSet()
        self._problems: Counter[str] = Counter()

    def opened(self, session: Any) -> Callable[[], None]:
        """Notes a session; call what is returned when it ends."""
        self._living.add(session)
        lookahead = session.lookahead

        def closed() -> None:
            if lookahead is not None:
                self._problems.update(lookahead.counters)
                lookahead.controller.forget()  # trees are large: not to wait for the garbage collector

        return closed

    def status(self) -> dict[str, Any]:
        """Entries for ``/status``: sessions in memory, and problems of those that ended."""
        return {"sessions": len(self._living), "problems": dict(self._problems)}


def policy_server(
    policy: Any,
    search: Search | None = None,
    *,
    observe: Observe | None = None,
    metadata: Mapping[str, Any] | None = None,
    workers: int = 1,
    **server: Any,
) -> Server:
    """A server for a policy that lives here.

    Args:
        policy: See ``policy_session``.
        search: How to look ahead, for each client by itself; None serves the policy as it is.
        observe: Understands what clients send; by default by the usual keys.
        metadata: What clients are greeted with.
        workers: Threads that infer and plan. More than one only for a policy that may be asked by several at
            a time.
        **server: Options of ``Server``.

    Raises:
        ForethoughtError: The policy cannot be served, or an option is wrong.
    """
    policy_session(policy, search, observe)  # what does not fit is said now, and not to the first client
    pool, ledger = _pool(workers), Ledger()
    greeting = {**(metadata or {}), "forethought": {"role": "policy", "searches": search is not None}}

    def line() -> PolicyLine:
        session = policy_session(policy, search, observe)
        return PolicyLine(session, pool, greeting, ledger.opened(session))

    return Server(line, extra=ledger.status, **server)


def proxy_server(
    url: str,
    search: Search | None = None,
    *,
    observe: Observe | None = None,
    upstream_api_key: str | None = None,
    upstream_timeout: float = 30.0,
    upstream_patience: float = 5.0,
    hold_seconds: float = 0.0,
    workers: int = 1,
    max_bytes: int = 64 * MEGABYTE,
    **server: Any,
) -> Server:
    """A server in front of another one, which gets a connection for each client.

    Args:
        url: ``ws://host:port`` of the other server.
        search: How to look for something better than its answers; None passes them on.
        observe: Understands what clients send; by default by the usual keys.
        upstream_api_key: Key that the other server wants.
        upstream_timeout: Seconds that it has for an answer.
        upstream_patience: Seconds to go on trying to reach it.
        hold_seconds: How long a client whose upstream is lost is told to hold still before it gets the error.
        workers: Threads that plan.
        max_bytes: Largest frame, of the client and of the other server.
        **server: Options of ``Server``.

    Raises:
        ForethoughtError: The address or an option is wrong.
    """
    if not url.startswith(("ws://", "wss://")):
        raise ForethoughtError(
            f"The upstream must be an address like ws://localhost:8000; got {url!r}. GR00T's servers "
            "(tcp://) are reached with policy=groot."
        )
    if not upstream_timeout > 0:
        raise ForethoughtError(f"upstream_timeout must be more than 0 seconds; got {upstream_timeout}.")
    backoff = Backoff(patience=upstream_patience)
    pool, ledger = _pool(workers), Ledger()

    def line() -> ProxyLine:
        session = None if search is None else RelayedSession(search, observe)
        upstream = Upstream(
            url,
            api_key=upstream_api_key,
            timeout=upstream_timeout,
            backoff=backoff,
            max_bytes=max_bytes,
        )
        closed = ledger.opened(session) if session is not None else lambda: None
        return ProxyLine(upstream, session, pool, hold_seconds, closed)

    return Server(line, extra=ledger.status, max_bytes=max_bytes, **server)


def warm_up(search: Search, proprioception: int = 8, image_size: int = 128) -> bool:
    """Plans once on a black picture: the first client need not wait for what is compiled on first use.

    Returns whether that went well; models of another kind of observation are left cold.
    """
    images = {name: np.zeros((1, image_size, image_size, 3), np.uint8) for name in search.cameras}
    observation = Observation(images, np.zeros((1, proprioception), np.float32), ("warm up",))
    chunk = search.action_spec.clip(np.zeros((1, 1, search.horizon, search.action_spec.size), np.float32))
    try:
        search.planner().plan(observation, ActionSamples(chunk), np.zeros(1, np.int64))
    except Exception as error:
        log.info("Not warmed up: %s", error)
        return False
    return True


def _pool(workers: int) -> ThreadPoolExecutor:
    if workers < 1:
        raise ForethoughtError(f"workers must be 1 or more threads; got {workers}.")
    return ThreadPoolExecutor(workers, thread_name_prefix="forethought-worker")
