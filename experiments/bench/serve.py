"""``forethought bench serve``: what the server adds, and how it bears broken frames and bad clients."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ...interfaces import ForethoughtError
from ...wrappers.serving.episodes import RESET_KEY
from ...wrappers.serving.wire import need, pack, unpack
from .serving_parts import Process, answer_to, observation, run_policy, run_proxy
from .soak import soak

SECTIONS = ("latency", "fuzz", "soak")
"""What can be measured, in this order."""


def bench_serve(
    *,
    out: str,
    sections: Sequence[str] = SECTIONS,
    requests: int = 500,
    simulations: int = 32,
    frames: int = 10_000,
    clients: int = 8,
    minutes: float = 10.0,
    seed: int = 0,
) -> str:
    """Measures, prints tables and writes ``serve.json``; returns its path.

    Args:
        out: Folder for ``serve.json``.
        sections: What to measure, of ``SECTIONS``.
        requests: Requests of each kind whose time is taken, in turns.
        simulations: Of the search.
        frames: Broken frames.
        clients: Bad clients at a time.
        minutes: How long they go on.
        seed: Decides what they do.

    Raises:
        ForethoughtError: A section is unknown, or the server did what it must not.
    """
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown:
        raise ForethoughtError(f"There are no sections {unknown}; there are {list(SECTIONS)}.")
    console = Console()
    report: dict[str, Any] = {"cores": os.cpu_count()}
    if "latency" in sections:
        report["latency"] = latency(requests, simulations)
        _show(console, "milliseconds from question to answer, two 224×224 images", report["latency"])
    if "fuzz" in sections:
        report["fuzz"] = fuzz(frames, seed)
        _show(console, f"{frames} broken frames", report["fuzz"])
    if "soak" in sections:
        report["soak"] = soak(clients, minutes, simulations, seed)
        _show(console, f"{clients} bad clients for {minutes:g} minutes", report["soak"]["summary"])
    path = Path(out) / "serve.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return str(path)


def latency(requests: int, simulations: int) -> dict[str, Any]:
    """Milliseconds, median and 95th percentile: the policy asked directly, by the proxy, and with a search.

    The three take turns. The policy does nothing, so that its time is the protocol's.
    """
    policy = Process(run_policy, 0)
    proxy = Process(run_proxy, policy.url, 0, 30.0, 64.0)
    searching = Process(run_proxy, policy.url, simulations, 30.0, 64.0)
    times: dict[str, list[float]] = {"direct": [], "proxy": [], "searching": []}
    try:
        with _connected(policy.url) as one, _connected(proxy.url) as two, _connected(searching.url) as three:
            for index in range(requests + 20):
                frame = pack(observation(0, 0, index))
                for name, connection in zip(times, (one, two, three), strict=True):
                    start = time.perf_counter()
                    connection.send(frame)
                    connection.recv()
                    if index >= 20:
                        times[name].append(1e3 * (time.perf_counter() - start))
    finally:
        for process in (searching, proxy, policy):
            process.stop()
    report = {
        name: {"median": round(float(np.median(taken)), 3), "p95": round(float(np.percentile(taken, 95)), 3)}
        for name, taken in times.items()
    }
    added = np.array(times["proxy"]) - np.array(times["direct"])
    return report | {
        "added by the proxy": {
            "median": round(float(np.median(added)), 3),
            "p95": round(float(np.percentile(added, 95)), 3),
        },
        "frame kilobytes": len(pack(observation(0, 0, 0))) // 1000,
        "simulations": simulations,
    }


def fuzz(frames: int, seed: int) -> dict[str, Any]:
    """Sends broken frames and observations to a server and a proxy, both with a search.

    Raises:
        ForethoughtError: One of them fell over, said nothing, or answered a good question wrongly afterwards.
    """
    luck, counted = random.Random(seed), Counter()
    policy, behind = Process(run_policy, 16), Process(run_policy, 0)
    proxy = Process(run_proxy, behind.url, 16, 5.0, 1.0)
    try:
        for process in (policy, proxy):
            asyncio.run(_fuzz(process.url, frames // 2, luck, counted))
            if not process.alive or not healthy(process.url):
                raise ForethoughtError("The server fell over.")
        status = read_status(proxy.url)
    finally:
        for process in (proxy, policy, behind):
            process.stop()
    return {**counted, "sessions left": status["sessions"], "megabytes": status["megabytes"]}


async def _fuzz(url: str, frames: int, luck: random.Random, counted: Counter[str]) -> None:
    closed = need("websockets.exceptions").ConnectionClosed
    connection = await _connect(url)
    for index in range(frames):
        if index % 97 == 0 and luck.random() < 0.5:
            await _greet_badly(url, luck)
        frame = broken(luck)
        try:
            await connection.send(frame)
            answer = await asyncio.wait_for(connection.recv(), 30)
        except closed as error:
            counted[f"closed with {error.rcvd.code if error.rcvd else 'nothing'}"] += 1
            connection = await _connect(url)
            continue
        if isinstance(answer, str) and len(answer) < 10:
            raise ForethoughtError(f"A broken frame was answered with {answer!r}, which explains nothing.")
        counted["told what was wrong" if isinstance(answer, str) else "still an observation"] += 1
        if index % 50 == 0:
            # What went before, though broken, was of this client: its tree may be grown on unless it is told.
            await connection.send(pack(observation(1, 2, 3) | {RESET_KEY: True}))
            good = unpack(await connection.recv())
            if (
                np.abs(good["actions"][:, 3:5] - answer_to(observation(1, 2, 3))["actions"][:, 3:5]).max()
                > 0.1
            ):
                raise ForethoughtError("A good question got somebody else's answer.")
            counted["good ones in between"] += 1
    await connection.close()


def broken(luck: random.Random) -> Any:
    """A frame with something wrong: in its bytes, or in what it says."""
    kind = luck.randrange(6)
    if kind == 0:
        return luck.randbytes(luck.randint(0, 400))
    if kind == 1:
        return "".join(chr(luck.randrange(32, 0x2FF)) for _ in range(luck.randint(0, 60)))
    request = observation(luck.randrange(8), luck.randrange(8), luck.randrange(99), side=8)
    if kind == 2:
        data = bytearray(pack(request))
        for _ in range(luck.randint(1, 6)):
            at = luck.randrange(len(data))
            data[at : at + luck.randrange(3)] = luck.randbytes(luck.randrange(4))
        return bytes(data)
    if kind == 3:
        return pack(request)[: luck.randrange(800)]
    if kind == 4 and luck.random() < 0.02:
        return bytes(2**20 + 1)
    key = luck.choice(sorted(request))
    wrong: list[Any] = [
        None,
        -1,
        "left",
        [],
        {},
        [[1]],
        1e308,
        np.zeros(0),
        np.zeros((2, 3), "f8"),
        b"",
        True,
    ]
    wrong += [
        np.full(9, np.nan),
        np.zeros((4, 4), np.uint8),
        np.array(["a"]),
        np.zeros((3, 8, 8, 3), np.uint8),
    ]
    if luck.random() < 0.3:
        del request[key]
    else:
        request[key] = luck.choice(wrong)
    return pack(request)


async def _greet_badly(url: str, luck: random.Random) -> None:
    """Bytes that are no websocket."""
    _, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    writer.write(luck.randbytes(luck.randint(1, 300)))
    await writer.drain()
    writer.close()


async def _connect(url: str) -> Any:
    connection = await need("websockets.asyncio.client").connect(
        url, compression=None, max_size=None, proxy=None
    )
    await connection.recv()
    return connection


class _connected:
    """A plain connection, its metadata read."""

    def __init__(self, url: str) -> None:
        connect = need("websockets.sync.client").connect
        self._context = connect(url, compression=None, max_size=None, proxy=None)

    def __enter__(self) -> Any:
        connection = self._context.__enter__()
        connection.recv()
        return connection

    def __exit__(self, *problem: Any) -> None:
        self._context.__exit__(*problem)


def healthy(url: str) -> bool:
    """Whether ``/healthz`` answers OK."""
    with urllib.request.urlopen(url.replace("ws:", "http:") + "/healthz", timeout=20) as answer:
        return answer.read() == b"OK\n"


def read_status(url: str) -> dict[str, Any]:
    """What ``/status`` says."""
    with urllib.request.urlopen(url.replace("ws:", "http:") + "/status", timeout=20) as answer:
        return json.loads(answer.read())


def _show(console: Console, title: str, report: dict[str, Any]) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in report.items():
        words = (
            ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
        )
        table.add_row(name, words)
    console.print(table)
