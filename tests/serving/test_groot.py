"""GR00T's protocol: the published wire, a server that is lost, slow or wrong, and the policy behind it."""

from __future__ import annotations

import io
import json
import pickle
import threading

import msgpack
import numpy as np
import pytest
from serving_fakes import HORIZON, SPEC, tree_planner

import forethought
from forethought.interfaces import ForethoughtError, Observation
from forethought.wrappers.serving.groot import GrootClient, GrootPolicy, pack, unpack
from forethought.wrappers.serving.upstream import UpstreamLost, UpstreamRefused
from forethought.wrappers.serving.wire import BadFrame

ARRAY = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_messages_are_byte_for_byte_those_that_are_published():
    assert pack({"a": ARRAY}) == msgpack.packb({"a": {"__ndarray_class__": True, "as_npy": npy(ARRAY)}})
    assert np.array_equal(unpack(pack({"a": ARRAY}))["a"], ARRAY)
    assert np.array_equal(unpack(pack(np.asfortranarray(ARRAY))), ARRAY)


@pytest.mark.parametrize("said", [{"delta_indices": [0]}, json.dumps({"delta_indices": [0]})])
def test_modality_configurations_are_read_of_both_versions(said):
    message = msgpack.packb({"video": {"__ModalityConfig_class__": True, "as_json": said}})
    assert unpack(message) == {"video": {"delta_indices": [0]}}


def test_nothing_is_unpickled_and_no_header_is_believed(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, fail)
    whole = npy(ARRAY)
    huge = npy(np.zeros((1, 1))).replace(b"(1, 1)", b"(9**9,)"[:6])
    bad = {
        "object": whole.replace(b"<f4", b"|O8"),
        "cut": whole[:-1],
        "longer": whole + b"1234",
        "huge": huge,
        "no magic": b"abc",
        "empty": b"",
        "text": "abc",
    }
    for data in bad.values():
        with pytest.raises(BadFrame):
            unpack(msgpack.packb({"__ndarray_class__": True, "as_npy": data}))
    with pytest.raises(BadFrame):
        unpack(b"\xc1")
    with pytest.raises(ForethoughtError, match="Cannot send"):
        pack({"a": np.array([None])})


class Server:
    """A server as published: one REP socket, endpoints by name."""

    def __init__(self, port: int = 0, before=lambda name: None, token: str | None = None) -> None:
        import zmq

        self.socket = zmq.Context.instance().socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, 50)
        self.socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.port = int(self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        self.before, self.token, self.calls, self.ended = before, token, [], False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        import zmq

        while not self.ended:
            try:
                request = unpack(self.socket.recv())
            except zmq.error.Again:
                continue
            name = request["endpoint"]
            self.calls.append(name)
            if self.token is not None and request.get("api_token") != self.token:
                self.socket.send(pack({"error": "Unauthorized: Invalid API token"}))
                continue
            reply = self.before(name)
            if reply is None:
                handler = getattr(self, name)
                reply = pack(handler(**request["data"]) if "data" in request else handler())
            self.socket.send(reply)
        self.socket.close()

    def stop(self) -> None:
        self.ended = True
        self.thread.join(10)

    def ping(self):
        return {"status": "ok"}

    def reset(self, options):
        return {}

    def get_action(self, observation, options):
        body = observation["state"]["arm"]
        assert observation["video"]["front"].dtype == np.uint8 and observation["video"]["front"].ndim == 5
        assert observation["language"]["task"] == [["push the block"]] * len(body)
        arm = np.full((len(body), 6, 6), 0.125, np.float32)
        arm += np.arange(len(body), dtype=np.float32)[:, None, None] / 64
        return [{"arm": arm, "gripper": np.ones((len(body), 6, 1), np.float32)}, {}]


@pytest.fixture
def server():
    pytest.importorskip(
        "zmq", reason="GR00T needs the extra: pip install 'forethought[groot]'; make test-serving"
    )
    made = []

    def make(**options) -> Server:
        made.append(Server(**options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def policy(client: GrootClient) -> GrootPolicy:
    return GrootPolicy(
        client,
        SPEC,
        HORIZON,
        video={"front": "agentview_rgb"},
        state={"arm": range(6)},
        actions=("arm", "gripper"),
        language="task",
    )


def seen(batch: int = 1) -> Observation:
    images = {"agentview_rgb": np.zeros((batch, 6, 6, 3), np.uint8)}
    return Observation(images, np.zeros((batch, 8), np.float32), ("push the block",) * batch)


def test_samples_are_copies_in_one_request(server):
    running = server()
    samples = policy(GrootClient(port=running.port)).propose(seen(2), 3, np.zeros(2, np.int64))
    assert samples.chunks.shape == (2, 3, HORIZON, 7)
    assert np.allclose(samples.chunks[..., 0, 0], 0.125 + np.arange(6).reshape(2, 3) / 64)
    assert running.calls == ["get_action"]


def test_it_can_be_wrapped_and_is_reset(server):
    running = server()
    original = policy(GrootClient(port=running.port))
    wrapped = forethought.wrap(original, planner=tree_planner())
    assert wrapped.act(seen())[0, :, 0].sum() > original.act(seen())[0, :, 0].sum()
    wrapped.reset()
    assert running.calls[-1] == "reset"


def test_a_token_is_sent_and_a_refusal_told(server):
    running = server(token="secret")
    assert GrootClient(port=running.port, api_token="secret").ping()
    with pytest.raises(UpstreamRefused, match="Unauthorized"):
        GrootClient(port=running.port).get_modality_config()


def test_a_server_that_stays_away_is_told_in_time_and_one_that_comes_back_is_used(server):
    client = GrootClient(port=9, timeout=0.2)
    assert not client.ping()
    with pytest.raises(UpstreamLost, match="did not answer within 0.2 s"):
        client.reset()
    running = server()
    client = GrootClient(port=running.port, timeout=0.3, patience=20.0)
    assert client.ping()
    running.stop()
    threading.Timer(0.5, lambda: server(port=running.port)).start()
    assert policy(client).act(seen()).shape == (1, HORIZON, 7)


def test_a_late_answer_is_not_the_answer_to_the_next_question(server):
    slow = threading.Event()

    def before(name):
        if name == "reset":
            slow.wait(10)

    client = GrootClient(port=server(before=before).port, timeout=0.3)
    with pytest.raises(UpstreamLost):
        client.reset()
    slow.set()
    assert client.call("ping", None) == {"status": "ok"}


WRONG = {
    "garbled": b"\xc1",
    "error": b"ERROR",
    "text": pack("hello"),
    "a number": pack([{"arm": 3}, {}]),
    "another part": pack([{"leg": np.zeros((1, 8, 6), np.float32)}, {}]),
    "too short": pack([{"arm": np.zeros((1, 2, 6), "f4"), "gripper": np.zeros((1, 2, 1), "f4")}, {}]),
    "too wide": pack([{"arm": np.zeros((1, 8, 9), "f4"), "gripper": np.zeros((1, 8, 1), "f4")}, {}]),
    "flat": pack([{"arm": np.zeros(6, "f4"), "gripper": np.zeros(1, "f4")}, {}]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_answer_is_told(server, what):
    with pytest.raises(ForethoughtError):
        policy(GrootClient(port=server(before=lambda name: WRONG[what]).port)).act(seen())


def test_without_its_package_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(ForethoughtError, match=r"forethought\[groot\]"):
        GrootClient()
