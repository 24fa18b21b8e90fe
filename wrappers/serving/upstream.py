"""A line to a server of openpi's protocol, kept up: it reconnects, and never gives a late answer to another
question."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ...interfaces import ForethoughtError
from .backoff import Backoff
from .wire import need, unpack

log = logging.getLogger(__name__)

MEGABYTE = 2**20


class UpstreamLost(ForethoughtError):
    """The server cannot be reached, went away, or did not answer in time."""


class UpstreamRefused(ForethoughtError):
    """The server answered with an error, which is the message."""


class Upstream:
    """One connection, for one client.

    Args:
        url: ``ws://host:port`` or ``wss://…``.
        api_key: Sent as ``Authorization: Api-Key …``.
        timeout: Seconds that the server has for an answer. After that the connection is given up: an answer
            that came late would be taken for that to the next question.
        backoff: Waits between attempts to connect.
        max_bytes: Largest answer.

    Attributes:
        metadata: What the server said about itself when it was last reached, or None.
        connections: How often it was reached.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        backoff: Backoff | None = None,
        max_bytes: int = 64 * MEGABYTE,
    ) -> None:
        self.url = url
        self.metadata: dict[str, Any] | None = None
        self.connections = 0
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else {}
        self._timeout = timeout
        self._backoff = backoff or Backoff()
        self._max_bytes = max_bytes
        self._connection: Any = None

    async def open(self) -> dict[str, Any]:
        """The server's metadata, from a connection that stands.

        Raises:
            UpstreamLost: No attempt succeeded while patience lasted.
        """
        if self._connection is None:
            waits = self._backoff.waits()
            while True:
                try:
                    self._connection = await self._connect()
                    break
                except UpstreamLost as error:
                    wait = next(waits, None)
                    if wait is None:
                        raise
                    log.warning("%s Trying again in %.2f s.", error, wait)
                    await asyncio.sleep(wait)
        assert self.metadata is not None
        return self.metadata

    async def ask(self, frame: bytes) -> bytes:
        """The server's answer to a frame, as it came.

        A connection that broke before an answer came is made anew and the frame sent again: to infer twice
        does no harm.

        Raises:
            UpstreamLost: It was not reached, or did not answer in time.
            UpstreamRefused: It answered with an error.
        """
        closed = need("websockets.exceptions").ConnectionClosed
        waits = self._backoff.waits()
        while True:
            await self.open()
            try:
                return await self._exchange(frame)
            except closed as error:
                await self.close()
                wait = next(waits, None)
                # Why the server hung up is its business with this frame, not a loss, if it says so.
                if wait is None or _is_final(error):
                    raise UpstreamLost(f"{self.url} closed the connection ({error}).") from error
                await asyncio.sleep(wait)

    async def close(self) -> None:
        """Hangs up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Without waiting for the other side, which may be stuck.
            connection.transport.abort()

    async def _connect(self) -> Any:
        client, errors = need("websockets.asyncio.client"), need("websockets.exceptions")
        try:
            async with asyncio.timeout(self._timeout):
                connection = await client.connect(
                    self.url,
                    compression=None,
                    max_size=self._max_bytes,
                    max_queue=2,
                    additional_headers=self._headers,
                    open_timeout=None,
                    close_timeout=1.0,
                    proxy=None,
                )
        except errors.InvalidStatus as error:
            words = {401: "it wants another api key", 403: "it refuses us", 503: "it is full"}
            status = error.response.status_code
            raise UpstreamLost(
                f"{self.url} answered with HTTP status {status}: {words.get(status, 'not a policy server')}."
            ) from error
        except (OSError, TimeoutError, EOFError, errors.WebSocketException) as error:
            words = str(error) or f"no answer within {self._timeout:g} s"
            raise UpstreamLost(f"{self.url} cannot be reached ({type(error).__name__}: {words}).") from error
        try:
            async with asyncio.timeout(self._timeout):
                metadata = unpack(await connection.recv())
            if not isinstance(metadata, dict):
                raise ForethoughtError(f"it greeted with a {type(metadata).__name__}, not with metadata")
        except (ForethoughtError, TimeoutError, errors.ConnectionClosed) as error:
            connection.transport.abort()
            words = str(error) or f"no metadata within {self._timeout:g} s"
            raise UpstreamLost(f"{self.url} does not speak openpi's protocol ({words}).") from error
        if self.metadata is not None and metadata.keys() != self.metadata.keys():
            log.warning("%s came back with other metadata: %s.", self.url, sorted(map(str, metadata)))
        self.metadata = metadata
        self.connections += 1
        return connection

    async def _exchange(self, frame: bytes) -> bytes:
        connection = self._connection
        try:
            async with asyncio.timeout(self._timeout):
                await connection.send(frame)
                answer = await connection.recv()
        except TimeoutError as error:
            await self.close()
            raise UpstreamLost(
                f"{self.url} did not answer within {self._timeout:g} s. Give it more with "
                "upstream_timeout=…, or look why it is slow."
            ) from error
        except asyncio.CancelledError:  # whoever asked is gone; the answer must not meet the next question
            await self.close()
            raise
        if isinstance(answer, str):
            # openpi's server hangs up after an error; that must not be taken for its word on the next frame.
            await self.close()
            raise UpstreamRefused(answer)
        return answer


def _is_final(error: Any) -> bool:
    """Whether the server said that this frame is the reason, so that sending it again is of no use."""
    received = getattr(error, "rcvd", None)
    return received is not None and received.code in (1003, 1007, 1008, 1009, 1011)
