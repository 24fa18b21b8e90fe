"""A policy whose answers tell whom they answer, models that know better, servers in threads, raw clients."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from forethought.interfaces import ActionSpec, Observation, Prediction, Score
from forethought.planner import PRESETS
from forethought.wrappers.serving.sessions import Search
from forethought.wrappers.serving.wire import pack, unpack

HORIZON, SIZE = 4, 7
SPEC = ActionSpec(np.full(SIZE, -1.0), np.ones(SIZE), (0, 1, 2), (3, 4, 5), (6,))


def request(place: float = 0.0, task: str = "push the block", **more: Any) -> dict[str, Any]:
    """An observation as openpi's clients send it; ``place`` is where the robot is."""
    state = np.zeros(8, np.float32)
    state[0] = place
    image = np.full((6, 6, 3), 7, np.uint8)
    return {"observation/image": image, "observation/state": state, "prompt": task, **more}


def echo(observation: dict[str, Any]) -> dict[str, Any]:
    """A policy whose actions say where the robot was, in the last number but the gripper."""
    chunk = np.full((HORIZON, SIZE), 0.125, np.float64)
    chunk[:, 5] = float(observation["observation/state"][0])
    chunk[:, 6] = 1.0
    return {"actions": chunk, "policy_timing": {"infer_ms": 1.0}}


class Echo:
    """The same as an object; ``before`` runs first."""

    def __init__(self, before: Callable[[dict], Any] = lambda observation: None) -> None:
        self.before = before
        self.seen: list[float] = []

    def infer(self, observation: dict) -> dict:
        self.before(observation)
        self.seen.append(float(observation["observation/state"][0]))
        return echo(observation)


class Line:
    """The latent is a point on a line: where the robot is, moved by the first numbers of the actions."""

    def encode(self, observation: Observation) -> np.ndarray:
        return observation.proprioception[:, :1].copy()

    def step(self, latent: Any, chunks: np.ndarray) -> Prediction:
        moved = latent + chunks[:, :, 0].sum(axis=1, keepdims=True)
        zeros = np.zeros(len(moved), np.float32)
        return Prediction(
            moved.astype(np.float32), zeros + 1.0, zeros
        )  # vague: the next tree grows on this one


class Onwards:
    """The further along the line, the better, so steeply that looking two chunks ahead pays."""

    def score(self, latent: Any, instruction: Sequence[str]) -> Score:
        value = 1.0 / (1.0 + np.exp(4.0 - np.asarray(latent, np.float32)[:, 0]))
        return Score(value, np.zeros_like(value))


def tree_planner(**options: Any) -> Any:
    """A real planner that remembers: it grows the next tree on this one."""
    settings = {"simulations": 24, "depth": 2, "reuse": True, "bandwidths": (0.2,), **options}
    return PRESETS["forethought"](Line(), Onwards(), action_spec=SPEC, **settings)


def never() -> Any:
    """A planner that always keeps the policy's chunk, but for a margin that none can have."""
    return tree_planner(margin=10.0)


def search(planner: Callable[[], Any] = tree_planner, **options: Any) -> Search:
    return Search(planner, SPEC, HORIZON, cameras=("agentview_rgb",), **options)


class Running:
    """A server in a thread of its own."""

    def __init__(self, server: Any, port: int = 0) -> None:
        self.server = server
        server.port = port
        self.loop = asyncio.new_event_loop()
        self.port = 0
        started = threading.Event()
        self.error: BaseException | None = None

        def ready(port: int) -> None:
            self.port = port
            started.set()

        async def run() -> None:
            try:
                await server.run(ready)
            except asyncio.CancelledError:
                pass
            except BaseException as error:
                self.error = error
            finally:
                started.set()

        def main() -> None:
            self.task = self.loop.create_task(run())
            self.loop.run_until_complete(self.task)
            self.loop.close()

        self.thread = threading.Thread(target=main, daemon=True)
        self.thread.start()
        assert started.wait(30)
        if self.error is not None:
            raise self.error
        self.url = f"ws://127.0.0.1:{self.port}"

    def stop(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.task.cancel)
            self.thread.join(20)
            assert not self.thread.is_alive()


class RawClient:
    """Frames as they are, from websockets' own client."""

    def __init__(self, url: str, key: str | None = None, **options: Any) -> None:
        from websockets.sync.client import connect

        headers = {"Authorization": f"Api-Key {key}"} if key else None
        options = {"compression": None, "max_size": None, "additional_headers": headers, **options}
        self._stack = contextlib.ExitStack()
        self.socket = self._stack.enter_context(connect(url, proxy=None, close_timeout=1, **options))
        self.metadata = unpack(self.socket.recv(timeout=30))

    def send(self, frame: Any) -> Any:
        """A frame's answer, binary or text."""
        self.socket.send(frame)
        return self.socket.recv(timeout=60)

    def infer(self, observation: dict) -> dict:
        answer = self.send(pack(observation))
        assert isinstance(answer, bytes), answer
        return unpack(answer)

    def error(self, frame: Any) -> str:
        answer = self.send(frame if isinstance(frame, (bytes, str)) else pack(frame))
        assert isinstance(answer, str), unpack(answer)
        return answer

    def close(self) -> None:
        self._stack.close()


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Waits until something holds, and returns it."""
    end = time.monotonic() + seconds
    while not (held := condition()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return held
