"""The server: openpi's websocket protocol, as published in ``openpi.serving.websocket_policy_server``
(https://github.com/Physical-Intelligence/openpi).

A client connects, gets the metadata as its first frame, and then, for each observation that it sends, one
answer: a binary frame, or a text frame that says what was wrong. After an error the connection stays usable.
``GET /healthz`` answers OK, ``GET /status`` counts.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from ...interfaces import ForethoughtError
from .lines import Line
from .upstream import MEGABYTE
from .wire import need, pack

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(eq=False)
class Server:
    """Answers clients, each over a line of its own.

    Attributes:
        line: Makes the line of a client that came.
        host: Address to listen on; other machines reach us only where this is not 127.0.0.1.
        port: Port; 0 takes a free one.
        api_key: What clients must send as ``Authorization: Api-Key …``; None asks for nothing.
        max_bytes: Largest frame of a client.
        max_clients: Clients at a time; further ones are turned away.
        ping_seconds: How often clients are asked whether they live; None never.
        extra: Further entries of ``/status``.
        counters: ``clients`` so far, ``answers``, ``errors`` told, ``left`` before their answer,
            ``turned_away``.
        connected: Clients now.
    """

    line: Callable[[], Line]
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    max_bytes: int = 64 * MEGABYTE
    max_clients: int = 16
    ping_seconds: float | None = 20.0
    extra: Callable[[], Mapping[str, Any]] = dict
    counters: Counter[str] = field(default_factory=Counter)
    connected: int = 0

    async def run(self, started: Callable[[int], None] = lambda port: None) -> None:
        """Serves until it is cancelled. ``started`` is told the port.

        Raises:
            ForethoughtError: The address cannot be listened on.
        """
        if self.host not in LOOPBACK and self.api_key is None:
            log.warning("Listening on %s without an api key: whoever reaches it can ask.", self.host)
        try:
            serving = await need("websockets.asyncio.server").serve(
                self._handle,
                self.host,
                self.port,
                process_request=self._before_handshake,
                origins=[None],  # a web page in a browser must not reach a robot through localhost
                compression=None,
                max_size=self.max_bytes,
                max_queue=2,  # a client waits for its answer; who does not is slowed down
                ping_interval=self.ping_seconds,
                ping_timeout=self.ping_seconds,
                close_timeout=2.0,
            )
        except OSError as error:
            raise ForethoughtError(
                f"Cannot listen on {self.host}:{self.port} ({error}). Choose another port=…, or end what "
                "listens there."
            ) from error
        async with serving:
            started(serving.sockets[0].getsockname()[1])
            await asyncio.get_running_loop().create_future()

    def status(self) -> dict[str, Any]:
        """What ``/status`` says."""
        return {"connected": self.connected, **self.counters, **self.extra()}

    def _before_handshake(self, connection: Any, request: Any) -> Any:
        """Answers plain HTTP, and turns away who may not come in."""
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        if self.api_key is not None:
            given = request.headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), f"Api-Key {self.api_key}".encode()):
                self.counters["turned_away"] += 1
                return connection.respond(
                    HTTPStatus.UNAUTHORIZED, "Send the header Authorization: Api-Key <the server's key>.\n"
                )
        if request.path == "/status":
            return connection.respond(HTTPStatus.OK, json.dumps(self.status(), default=str) + "\n")
        if self.connected >= self.max_clients:
            self.counters["turned_away"] += 1
            return connection.respond(
                HTTPStatus.SERVICE_UNAVAILABLE, f"There are {self.max_clients} clients already.\n"
            )
        return None

    async def _handle(self, connection: Any) -> None:
        closed = need("websockets.exceptions").ConnectionClosed
        self.connected += 1
        self.counters["clients"] += 1
        line: Line | None = None
        try:
            line = self.line()
            greeting = await _unless_gone(connection, line.open())
            await connection.send(pack(greeting))
            async for frame in connection:
                await connection.send(await _unless_gone(connection, self._reply(line, frame)))
        except _Gone:
            self.counters["left"] += 1
        except closed:
            pass
        except (
            Exception
        ) as error:  # before the greeting: there is nobody to tell but by the reason of closing
            level = logging.WARNING if isinstance(error, ForethoughtError) else logging.ERROR
            log.log(level, "A client cannot be served: %s", error, exc_info=level == logging.ERROR)
            await connection.close(1013, _short(error))
        finally:
            self.connected -= 1
            if line is not None:
                await line.close()

    async def _reply(self, line: Line, frame: Any) -> bytes | str:
        """The answer to a frame, or the words for what was wrong with it."""
        try:
            reply = await line.reply(frame)
        except ForethoughtError as error:
            self.counters["errors"] += 1
            log.info("Told a client: %s", error)
            return str(error)
        except Exception as error:
            self.counters["errors"] += 1
            log.exception("A request failed")
            return f"The policy failed: {type(error).__name__}: {error}"
        self.counters["answers"] += 1
        return reply


class _Gone(Exception):
    """The client left before it had its answer."""


async def _unless_gone(connection: Any, work: Any) -> Any:
    """The result of some work, which is given up when the client leaves."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(connection.wait_closed())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _Gone
        return working.result()
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def _short(error: Exception) -> str:
    """What fits into the reason of closing: 123 bytes."""
    return str(error).encode()[:120].decode(errors="ignore")
