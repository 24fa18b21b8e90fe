"""What stands behind one client of the server: a policy that lives here, or a server elsewhere."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Protocol

from ...interfaces import ForethoughtError
from .episodes import RESET_KEY
from .sessions import NOTE, RelayedSession, Session
from .upstream import Upstream, UpstreamLost, UpstreamRefused
from .wire import BadFrame, pack, unpack, unpack_request

log = logging.getLogger(__name__)


class Line(Protocol):
    """What the server needs to answer one client."""

    async def open(self) -> Mapping[str, Any]:
        """The metadata to greet the client with."""
        ...

    async def reply(self, frame: Any) -> bytes:
        """The answer to a frame. What it raises is told to the client."""
        ...

    async def close(self) -> None:
        """The client is gone."""
        ...


class PolicyLine:
    """Answers with a policy that lives here; it works in a thread, so that the event loop stays free."""

    def __init__(
        self,
        session: Session,
        workers: Executor,
        metadata: Mapping[str, Any],
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self.session = session
        self._workers, self._metadata, self._closed = workers, metadata, closed

    async def open(self) -> Mapping[str, Any]:
        """The metadata."""
        return self._metadata

    async def reply(self, frame: Any) -> bytes:
        """The policy's answer."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, self._work, frame)

    async def close(self) -> None:
        """Nothing is held but what is counted."""
        self._closed()

    def _work(self, frame: Any) -> bytes:
        start = time.perf_counter()
        answer = self.session.answer(unpack_request(frame))
        if isinstance(answer, Mapping) and RESET_KEY not in answer:
            answer = {**answer, "server_timing": {"infer_ms": 1e3 * (time.perf_counter() - start)}}
        return pack(answer)


class ProxyLine:
    """Asks a server elsewhere, then looks whether there is something better.

    An answer that is kept goes to the client byte for byte as it came. When the server is lost, the client
    gets the error; or, with ``hold_seconds``, for so long an answer that holds the robot still.

    Args:
        upstream: The connection, this client's own.
        session: Looks for better actions; None passes everything on.
        workers: Threads for the search.
        closed: Called when the client is gone.
        hold_seconds: How long a robot is held still after the server was lost, once there was an answer.
    """

    def __init__(
        self,
        upstream: Upstream,
        session: RelayedSession | None,
        workers: Executor,
        hold_seconds: float = 0.0,
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        self.upstream, self.session = upstream, session
        self._workers, self._hold_seconds, self._closed = workers, hold_seconds, closed
        self._lost_since: float | None = None

    async def open(self) -> Mapping[str, Any]:
        """The other server's metadata, with a note that we stand in between."""
        metadata = await self.upstream.open()
        searches = self.session is not None
        return {**metadata, NOTE: {"role": "proxy", "searches": searches}}

    async def reply(self, frame: Any) -> bytes:
        """The other server's answer, or a better one."""
        request = unpack_request(frame)
        if RESET_KEY in request and not self._told_resets():
            if set(request) == {RESET_KEY}:
                return await self._only_reset(request)
            frame = pack({key: value for key, value in request.items() if key != RESET_KEY})
        try:
            answer = await self.upstream.ask(frame)
        except (UpstreamLost, UpstreamRefused) as error:
            if self.session is not None:
                await self._in_thread(self.session.missed, request)
            if isinstance(error, UpstreamRefused):
                raise
            return await self._without_upstream(error)
        self._lost_since = None
        if self.session is None:
            return answer
        return await self._in_thread(self._improve, request, answer)

    async def close(self) -> None:
        """Hangs up on the other server too."""
        self._closed()
        await self.upstream.close()

    def _told_resets(self) -> bool:
        """Whether the other server is one of ours, which knows our word for a new episode."""
        return NOTE in (self.upstream.metadata or {})

    async def _only_reset(self, request: dict[str, Any]) -> bytes:
        if self.session is None:
            return pack({RESET_KEY: True})
        return pack(await self._in_thread(self.session.reset, request))

    def _improve(self, request: dict[str, Any], frame: bytes) -> bytes:
        assert self.session is not None
        if set(request) == {RESET_KEY}:
            self.session.reset(request)
            return frame
        try:
            theirs = unpack(frame)
        except BadFrame as error:
            raise ForethoughtError(
                f"{self.upstream.url} sent an answer that cannot be read: {error}"
            ) from error
        answer = self.session.answer(request, theirs)
        return frame if answer is theirs else pack(answer)

    async def _without_upstream(self, error: UpstreamLost) -> bytes:
        now = time.monotonic()
        since = self._lost_since = self._lost_since or now
        if self.session is None or now - since >= self._hold_seconds:
            raise error
        try:
            held = await self._in_thread(self.session.held)
        except ForethoughtError:
            raise error from None
        log.warning("%s Holding the robot still.", error)
        return pack(held)

    async def _in_thread(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._workers, call, *args)
