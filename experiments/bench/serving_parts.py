"""What the server is measured with: a robot whose numbers tell who it is, models for it, server processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...interfaces import ActionSamples, ActionSpec, Decision, Observation, Planner, Prediction, Score
from ...planner import PRESETS
from ...planner.tree import Tree
from ...wrappers.serving.server import Server
from ...wrappers.serving.service import policy_server, proxy_server
from ...wrappers.serving.sessions import Search
from ...wrappers.serving.wire import need, pack, unpack_request

HORIZON, SIZE, LEVELS = 10, 7, 8
SPEC = ActionSpec(np.full(SIZE, -1.0), np.ones(SIZE), (0, 1, 2), (), (6,))


def level(number: int) -> float:
    """One of ``LEVELS`` numbers in [-1, 1], far apart beside the noise of a search."""
    return -0.875 + 0.25 * (number % LEVELS)


def observation(client: int, episode: int, step: int, side: int = 224) -> dict[str, Any]:
    """What a client sends: two pictures, a state with its name, its episode and its step, and a task."""
    luck = np.random.default_rng(1000 * episode + step)
    place = 5.0 * (episode % 2) + 0.01 * step  # the next episode begins elsewhere
    state = np.full(9, place, np.float32) + luck.normal(0, 0.002, 9).astype(np.float32)
    state[6:] = level(client), level(episode), level(step)
    image = np.full((side, side, 3), episode % 256, np.uint8)
    return {
        "observation/image": image,
        "observation/wrist_image": image,
        "observation/state": state,
        "prompt": "push the block",
    }


def answer_to(request: Mapping[str, Any]) -> dict[str, Any]:
    """A policy: its actions repeat who asked, of which episode and step."""
    chunk = np.full((HORIZON, SIZE), 0.125, np.float32)
    chunk[:, 3:6] = request["observation/state"][6:]
    chunk[:, 6] = 1.0
    return {"actions": chunk}


class Told:
    """A model of that robot: the state tells all."""

    def encode(self, observation: Observation) -> np.ndarray:
        """``[B, 3]``: how far the hand went, client and episode."""
        return observation.proprioception[:, [0, 6, 7]].astype(np.float32)

    def step(self, latent: Any, chunks: np.ndarray) -> Prediction:
        """The hand goes where it is sent."""
        moved = np.array(latent, np.float32)
        moved[:, 0] += chunks[:, :, 0].sum(axis=1)
        nothing = np.zeros(len(moved), np.float32)
        return Prediction(moved, nothing + 0.5, nothing)

    def score(self, latent: Any, instruction: Sequence[str]) -> Score:
        """Further is better, steeply: what lies below the executed chunk is worth growing on."""
        value = (1.0 / (1.0 + np.exp(7.0 - np.asarray(latent)[:, 0]))).astype(np.float32)
        return Score(value, np.zeros_like(value))


@dataclass(eq=False)
class Witness:
    """A planner that grows its next tree on this one, and notes when two robots or episodes meet in it.

    Attributes:
        planner: The planner.
        mixed: Counts decisions on another client or episode than the one before, with no reset between.
    """

    planner: Planner
    mixed: Counter[str]
    _last: tuple[float, float] | None = field(default=None, init=False)

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        """See ``Planner.plan``."""
        now = tuple(observation.proprioception[0, 6:8].tolist())
        if self._last not in (None, now):
            self.mixed["clients" if self._last[0] != now[0] else "episodes"] += 1
        self._last = now
        return self.planner.plan(observation, samples, seeds)

    def reset(self) -> None:
        """See ``TreeReuse.reset``."""
        self._last = None
        self.planner.reset()  # type: ignore[attr-defined]


def search(simulations: int, mixed: Counter[str] | None = None) -> Search:
    """A real search for that robot, with memory."""
    model, counted = Told(), Counter() if mixed is None else mixed

    def planner() -> Planner:
        tree = PRESETS["forethought"](
            model, model, action_spec=SPEC, simulations=simulations, depth=2, reuse=True
        )
        return Witness(tree, counted)

    return Search(planner, SPEC, HORIZON, cameras=("agentview_rgb",))


def memory() -> dict[str, Any]:
    """What this process holds: megabytes, trees, threads, tasks."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    trees = sum(type(thing) is Tree for thing in gc.get_objects())
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return {
        "megabytes": round(megabytes, 1),
        "trees": trees,
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "files": len(os.listdir("/proc/self/fd")),
    }


def run_policy(report: Any, port: int, simulations: int) -> None:
    """A server for the policy; 0 simulations: without a search."""
    found = search(simulations) if simulations else None
    _run(policy_server(answer_to, found, port=port, max_clients=64), report)


def run_proxy(report: Any, port: int, url: str, simulations: int, timeout: float, megabytes: float) -> None:
    """A server in front of ``url``."""
    mixed: Counter[str] = Counter()
    found = search(simulations, mixed) if simulations else None
    server = proxy_server(
        url,
        found,
        port=port,
        upstream_timeout=timeout,
        upstream_patience=1.0,
        hold_seconds=0.5,
        max_bytes=int(megabytes * 2**20),
        ping_seconds=1.0,
        max_clients=64,
    )
    told = server.extra
    server.extra = lambda: {**memory(), **told(), "mixed": dict(mixed)}
    _run(server, report)


def run_troubled(report: Any, port: int, seed: int) -> None:
    """An upstream that is slow, errs, talks nonsense or hangs up, now and then."""
    luck = random.Random(seed)

    async def handle(connection: Any) -> None:
        await connection.send(pack({"robot": "toy"}))
        with contextlib.suppress(Exception):
            async for frame in connection:
                request, chance = unpack_request(frame), luck.random()
                await asyncio.sleep(
                    luck.uniform(0.0, 0.02) if luck.random() > 0.03 else luck.uniform(0.2, 2.0)
                )
                if chance < 0.01:
                    await connection.send("Traceback: the policy of the upstream failed")
                    await connection.close(1011)
                elif chance < 0.02:
                    connection.transport.abort()
                else:
                    await connection.send(_nonsense(luck) if chance < 0.04 else pack(answer_to(request)))

    async def main() -> None:
        serve = need("websockets.asyncio.server").serve
        async with serve(handle, "127.0.0.1", port, compression=None, max_size=None) as serving:
            report.send(serving.sockets[0].getsockname()[1])
            await asyncio.get_running_loop().create_future()

    logging.disable(logging.CRITICAL)
    asyncio.run(main())


def _nonsense(luck: random.Random) -> bytes:
    return luck.choice(
        [
            b"\xc1 not msgpack",
            pack([1, 2, 3]),
            pack({"poses": 1}),
            pack({"actions": np.full((HORIZON, SIZE), np.nan)}),
            pack({"actions": np.zeros((3, 3))}),
        ]
    )


def _run(server: Server, report: Any) -> None:
    logging.disable(logging.CRITICAL)
    asyncio.run(server.run(report.send))


class Process:
    """A server in a process of its own, up when the constructor returns."""

    def __init__(self, run: Callable[..., None], *args: Any, port: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=run, args=(theirs, port, *args), daemon=True)
        self._process.start()
        theirs.close()
        self.port: int = ours.recv()
        self.url = f"ws://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.is_alive()

    def stop(self) -> None:
        """Ends it, at once."""
        self._process.kill()
        self._process.join()
