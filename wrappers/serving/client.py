"""A policy on another machine as an object: ``infer`` and ``reset``, over openpi's protocol."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any

from ...interfaces import ForethoughtError
from .backoff import Backoff
from .episodes import RESET_KEY
from .upstream import MEGABYTE, Upstream
from .wire import pack, unpack


class RemotePolicy:
    """A client of openpi's servers and of ours that survives their restarts.

    It answers the server's keep-alives while the robot moves, reconnects with backoff, and never takes a late
    answer for that to another question. ``forethought.wrap(RemotePolicy(url), models=…)`` looks ahead here
    and infers there.

    Args:
        url: ``ws://host:port`` or ``wss://…``.
        api_key: Sent as ``Authorization: Api-Key …``.
        timeout: Seconds that the server has for an answer.
        patience: Seconds to go on trying to reach it.
        max_bytes: Largest answer.

    Raises:
        ForethoughtError: No server of this protocol was reached while patience lasted.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        patience: float = 5.0,
        max_bytes: int = 64 * MEGABYTE,
    ) -> None:
        self._upstream = Upstream(
            url, api_key=api_key, timeout=timeout, backoff=Backoff(patience=patience), max_bytes=max_bytes
        )
        self._begins = False
        self._loop = asyncio.new_event_loop()
        self._closed = threading.Event()  # wrapped and original share it
        threading.Thread(target=_run_loop, args=(self._loop,), name="forethought-client", daemon=True).start()
        try:
            self._run(self._upstream.open())
        except BaseException:
            self.close()
            raise

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server says about itself."""
        return dict(self._upstream.metadata or {})

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer to an observation, a dictionary with ``actions``, ``[H, A]``.

        Raises:
            ForethoughtError: The server was not reached, did not answer in time, or answered with an error or
                with something that is no answer.
        """
        tells = self._begins and "forethought" in self.metadata
        self._begins = False
        request = {**observation, RESET_KEY: True} if tells else dict(observation)
        answer = unpack(self._run(self._upstream.ask(pack(request))))
        if not isinstance(answer, dict):
            raise ForethoughtError(
                f"{self._upstream.url} answered with a {type(answer).__name__}, not a "
                "dictionary with actions."
            )
        return answer

    def reset(self) -> None:
        """An episode starts. Our servers are told with the next observation; openpi's have no word for it."""
        self._begins = True

    def close(self) -> None:
        """Hangs up."""
        if not self._closed.is_set():
            self._run(self._upstream.close())
            self._closed.set()
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._closed.is_set():
            work.close()
            raise ForethoughtError("This client was closed. Make another one.")
        working = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return working.result()
        except BaseException:
            working.cancel()  # an interrupt must not leave half a question on the line
            raise


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()
