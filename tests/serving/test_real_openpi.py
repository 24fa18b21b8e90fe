"""The real openpi-client against our server and proxy. `make test-serving` has its environment."""

from __future__ import annotations

import numpy as np
import pytest
from serving_fakes import Echo, Running, echo, never, request, search

from forethought.wrappers.serving.service import policy_server, proxy_server
from forethought.wrappers.serving.wire import pack, unpack

REASON = "openpi-client pins numpy < 2 and has an environment of its own: make test-serving"
msgpack_numpy = pytest.importorskip("openpi_client.msgpack_numpy", reason=REASON)


def client_of(url: str, key: str | None = None):
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    return WebsocketClientPolicy(url, api_key=key)


MESSAGES = [
    request(0.5),
    {"actions": np.arange(56.0).reshape(8, 7), "server_timing": {"infer_ms": 1.5}},
    {
        "a": np.float32(1.5),
        "b": np.array([True, False]),
        "c": np.array(["x", "yz"]),
        "d": None,
        "e": [1, "2"],
    },
    {"empty": np.zeros((0, 7), np.float16), "scalar": np.array(3), "text": "ä"},
]


@pytest.mark.parametrize("index", range(len(MESSAGES)))
def test_our_frames_are_theirs_byte_for_byte_and_are_read_alike(index):
    message = MESSAGES[index]
    assert pack(message) == msgpack_numpy.packb(message)
    ours, theirs = unpack(pack(message)), msgpack_numpy.unpackb(pack(message))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert type(ours[key]) is type(value)
        if isinstance(value, np.ndarray):
            assert ours[key].dtype == value.dtype and np.array_equal(ours[key], value)
        else:
            assert ours[key] == value


@pytest.mark.parametrize("proxy", [False, True])
@pytest.mark.parametrize("find", [None, never])
def test_their_client_gets_the_policys_own_actions_bit_for_bit(start, proxy, find):
    searching = None if find is None else search(find)
    if proxy:
        url = start(
            proxy_server(
                start(policy_server(echo, api_key="up")), searching, upstream_api_key="up", api_key="down"
            )
        )
    else:
        url = start(policy_server(echo, searching, metadata={"robot": "panda"}, api_key="down"))
    client = client_of(url, "down")
    assert client.get_server_metadata()["forethought"]["searches"] is (find is not None)
    for place in np.linspace(-0.9, 0.9, 5):
        answer = client.infer(request(place))
        assert answer["actions"].tobytes() == echo(request(place))["actions"].tobytes()
    client.reset()
    assert client.infer(request(0.1))


def test_their_client_behind_the_proxy_gets_better_actions(start):
    client = client_of(start(proxy_server(start(policy_server(echo)), search())))
    answer = client.infer(request())
    assert answer["actions"][:, 0].sum() > echo(request())["actions"][:, 0].sum()
    assert answer["forethought"]["overridden"]


def test_their_broker_hands_out_our_chunks_one_action_at_a_time(start):
    """It slices what is an array and passes on what is none, our note included."""
    from openpi_client.action_chunk_broker import ActionChunkBroker

    policy = Echo()
    broker = ActionChunkBroker(client_of(start(proxy_server(start(policy_server(policy)), search()))), 4)
    actions = [broker.infer(request())["actions"] for _ in range(8)]
    assert all(action.shape == (7,) for action in actions)
    assert len(policy.seen) == 2
    broker.reset()
    broker.infer(request())
    assert len(policy.seen) == 3


def test_their_runtime_runs_an_episode_through_the_proxy(start):
    from openpi_client.runtime import environment, runtime
    from openpi_client.runtime.agents.policy_agent import PolicyAgent

    class Line(environment.Environment):
        def __init__(self) -> None:
            self.places: list[float] = []

        def reset(self) -> None:
            self.places.append(-0.5)

        def is_episode_complete(self) -> bool:
            return False

        def get_observation(self) -> dict:
            return request(self.places[-1])

        def apply_action(self, action: dict) -> None:
            self.places.append(self.places[-1] + 0.02 * float(action["actions"][0, 0]))

    server = proxy_server(start(policy_server(echo)), search())
    line = Line()
    agent = PolicyAgent(client_of(start(server)))
    runtime.Runtime(line, agent, [], num_episodes=2, max_episode_steps=10).run()
    assert server.counters["answers"] == 2 * 11  # theirs takes one step more than it is told
    assert np.diff(line.places[:11]).min() > 0.02 * 0.125


def test_their_client_raises_our_words_and_can_go_on(start):
    client = client_of(start(policy_server(echo, search())))
    with pytest.raises(RuntimeError, match="agentview_rgb"):
        client.infer({"observation/state": np.zeros(8), "prompt": "x"})
    assert client.infer(request())


def test_their_client_sees_nothing_of_an_upstream_that_restarts(start):
    upstream = Running(policy_server(echo))
    client = client_of(start(proxy_server(upstream.url, search(never), upstream_patience=20.0)))
    client.infer(request())
    upstream.stop()
    start(policy_server(echo), port=upstream.port)
    assert client.infer(request(0.5))["actions"][0, 5] == 0.5


def test_their_server_loop_is_spoken_to_as_it_is(start):
    """An upstream that does what openpi's server does: traceback as text, then it hangs up."""
    import asyncio
    import threading
    import traceback

    import websockets.asyncio.server

    ports, loop = [], asyncio.new_event_loop()

    async def handle(websocket):
        packer = msgpack_numpy.Packer()
        await websocket.send(packer.pack({"model": "theirs"}))
        while True:
            try:
                seen = msgpack_numpy.unpackb(await websocket.recv())
                await websocket.send(packer.pack(echo(seen)))
            except websockets.ConnectionClosed:
                break
            except Exception:
                await websocket.send(traceback.format_exc())
                await websocket.close(code=1011, reason="Internal server error.")
                raise

    async def main():
        async with websockets.asyncio.server.serve(
            handle, "127.0.0.1", 0, compression=None, max_size=None
        ) as s:
            ports.append(s.sockets[0].getsockname()[1])
            await asyncio.get_running_loop().create_future()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True)
    thread.start()
    from serving_fakes import eventually

    eventually(lambda: ports)
    client = client_of(start(proxy_server(f"ws://127.0.0.1:{ports[0]}", search(never))))
    assert client.get_server_metadata()["model"] == "theirs"
    for _ in range(3):
        with pytest.raises(RuntimeError, match="KeyError"):
            client.infer({"observation/image": np.zeros((6, 6, 3), np.uint8), "prompt": "no state"})
        assert client.infer(request(0.25))["actions"].tobytes() == echo(request(0.25))["actions"].tobytes()
