"""Bad clients in front of a proxy in front of a bad server, for as long as one likes."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import time
import urllib.request
from collections import Counter
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError
from ...wrappers.serving.episodes import RESET_KEY
from ...wrappers.serving.wire import need, pack, unpack
from .serving_parts import LEVELS, Process, observation, run_proxy, run_troubled

TIMEOUT, LIMIT_MEGABYTES = 1.0, 1.0
"""Seconds that the upstream has for an answer, and the largest frame: both are exceeded now and then."""

PATIENCE = 60.0
"""Seconds after which a client says that it was not answered, on a machine that is busy with other things."""


def soak(clients: int, minutes: float, simulations: int, seed: int) -> dict[str, Any]:
    """What the proxy did and held, sampled while clients and upstream misbehave.

    Clients disconnect at any moment, send broken and oversized frames, and begin episodes in all ways; the
    upstream is slow, errs, talks nonsense, hangs up, and is killed and started again once a minute.

    Raises:
        ForethoughtError: The proxy died, mixed up clients, episodes or questions, or did not let go of
            sessions and trees.
    """
    return asyncio.run(_soak(clients, 60.0 * minutes, simulations, seed))


class Counts(Counter[str]):
    """What happened; and which task each client works on."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[int, str] = {}


async def _soak(clients: int, seconds: float, simulations: int, seed: int) -> dict[str, Any]:
    upstream = Process(run_troubled, seed)
    proxy = Process(run_proxy, upstream.url, simulations, TIMEOUT, LIMIT_MEGABYTES)
    counted = Counts()
    start, samples, stall = time.monotonic(), [], 0.0
    end = start + seconds
    try:
        tasks = [asyncio.create_task(_client(i, proxy.url, end, seed, counted)) for i in range(clients)]
        next_restart = start + 60.0
        while any(not task.done() for task in tasks):
            pause, before = min(5.0, max(0.5, seconds / 20)), time.monotonic()
            await asyncio.sleep(pause)
            stall = max(stall, time.monotonic() - before - pause)
            samples.append({"seconds": round(time.monotonic() - start), **await _status(proxy)})
            if time.monotonic() > next_restart:
                next_restart += 60.0
                upstream.stop()
                await asyncio.sleep(1.5)
                again = functools.partial(Process, run_troubled, seed + len(samples), port=upstream.port)
                upstream = await asyncio.to_thread(again)  # takes long on a busy machine; clients go on
                counted["upstream restarts"] += 1
        await asyncio.gather(*tasks)
        await asyncio.sleep(3.0)
        last = await _status(proxy)
    finally:
        proxy.stop()
        upstream.stop()
    summary = {"longest stall of the clients' own process, seconds": round(stall, 2)}
    return {"summary": summary | _judged(counted, samples, last), "samples": samples}


def _judged(counted: Counter[str], samples: list[dict[str, Any]], last: dict[str, Any]) -> dict[str, Any]:
    early = [one["megabytes"] for one in samples[: max(1, len(samples) // 5)]]
    late = [one["megabytes"] for one in samples[-max(1, len(samples) // 5) :]]
    summary = {
        **dict(sorted(counted.items())),
        "proxy answers": last["answers"],
        "proxy errors told": last["errors"],
        "problems": last["problems"],
        "mixed": last["mixed"],
        "megabytes in the first fifth, median": float(np.median(early)),
        "megabytes in the last fifth, median": float(np.median(late)),
        "most trees": max(one["trees"] for one in samples),
        "trees left": last["trees"],
        "sessions left": last["sessions"],
        "connected left": last["connected"],
        "threads left": last["threads"],
        "tasks left": last["tasks"],
        "files left": last["files"],
    }
    if last["mixed"] or counted["wrong client"] or counted["wrong episode"] or counted["wrong step"]:
        raise ForethoughtError(f"Clients, episodes or questions were mixed up: {summary}.")
    if counted["not answered"]:
        raise ForethoughtError(f"Clients were left without an answer: {summary}.")
    if last["sessions"] or last["connected"] or last["trees"] > 2:
        raise ForethoughtError(f"Sessions or trees were left behind: {summary}.")
    return summary


async def _status(proxy: Process) -> dict[str, Any]:
    if not proxy.alive:
        raise ForethoughtError("The proxy died.")

    def read() -> dict[str, Any]:
        with urllib.request.urlopen(proxy.url.replace("ws:", "http:") + "/status", timeout=30) as answer:
            return json.loads(answer.read())

    return await asyncio.to_thread(read)


async def _client(number: int, url: str, end: float, seed: int, counted: Counts) -> None:
    luck, errors = random.Random(1000 * seed + number), need("websockets.exceptions")
    episode = 0
    while time.monotonic() < end:
        try:
            async with asyncio.timeout(40):
                connection = await need("websockets.asyncio.client").connect(
                    url, compression=None, max_size=None, proxy=None, ping_interval=1.0, ping_timeout=10.0
                )
                await connection.recv()
        except (OSError, TimeoutError, errors.WebSocketException):
            counted["refused while the upstream was away"] += 1
            await asyncio.sleep(luck.uniform(0.1, 1.0))
            continue
        counted["connections"] += 1
        try:
            while time.monotonic() < end and luck.random() > 0.15:
                episode += 1
                await _episode(connection, number, episode, luck, counted)
            await connection.close()
        except errors.ConnectionClosed as error:
            counted[f"closed with {error.rcvd.code if error.rcvd else 'nothing'}"] += 1
        except _Left:
            counted["disconnects"] += 1


class _Left(Exception):
    """The client has gone, without a word."""


async def _episode(connection: Any, number: int, episode: int, luck: random.Random, counted: Counts) -> None:
    sign = luck.choice(
        ("told", "another task", "elsewhere")
    )  # how the server may know that an episode begins
    task = f"task {episode}" if sign == "another task" else counted.tasks.get(number, "push the block")
    counted.tasks[number] = task
    for step in range(luck.randint(8, 40)):
        request = observation(number, episode, step, side=luck.choice((16, 64, 224)))
        request["prompt"] = task
        if step == 0 and sign == "told":
            request[RESET_KEY] = True
        chance = luck.random()
        if chance < 0.02:
            await connection.send(luck.randbytes(luck.randint(0, 200)))
            counted["broken frames told" if isinstance(await connection.recv(), str) else "odd"] += 1
        elif chance < 0.023:
            await connection.send(bytes(int(LIMIT_MEGABYTES * 2**20) + 1))
            counted["oversized frames"] += 1
        elif chance < 0.033:
            await connection.send(pack(request))
            await asyncio.sleep(luck.uniform(0, 0.05))
            connection.transport.abort()
            raise _Left
        await connection.send(pack(request))
        try:
            answer = await asyncio.wait_for(connection.recv(), PATIENCE)
        except TimeoutError:
            counted["not answered"] += 1
            return
        _check(answer, number, episode, step, counted)
        await asyncio.sleep(luck.uniform(0.02, 0.25))


def _check(answer: Any, number: int, episode: int, step: int, counted: Counter[str]) -> None:
    if isinstance(answer, str):
        words = (
            "did not answer",
            "cannot be reached",
            "closed the connection",
            "Traceback",
            "cannot be read",
        )
        words += ("Expected one action",)
        counted["told: " + next((word for word in words if word in answer), answer[:60])] += 1
        return
    found = unpack(answer)
    note, actions = found.get("forethought"), found["actions"]
    if note is not None and "hold still" in note["reason"]:
        counted["held still"] += 1
        return
    counted["kept" if note is None else "improved"] += 1
    told = [round((float(one) + 0.875) / 0.25) for one in np.median(actions[:, 3:6], axis=0)]
    for name, one, expected in zip(("client", "episode", "step"), told, (number, episode, step), strict=True):
        # A chunk inherited from the tree before carries the step for which it was drawn.
        if one != expected % LEVELS and not (name == "step" and note is not None):
            counted[f"wrong {name}"] += 1
