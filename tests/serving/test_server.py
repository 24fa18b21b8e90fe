"""The server: openpi's protocol, one client apart from the other, an event loop that is never blocked."""

from __future__ import annotations

import gc
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np
import pytest
from serving_fakes import (
    HORIZON,
    SPEC,
    Echo,
    RawClient,
    echo,
    eventually,
    never,
    request,
    search,
    tree_planner,
)

from forethought.interfaces import ActionSamples, ForethoughtError
from forethought.planner.tree import Tree
from forethought.wrappers.serving.episodes import RESET_KEY
from forethought.wrappers.serving.service import policy_server, warm_up
from forethought.wrappers.serving.wire import pack


def get(url: str, path: str, **headers: str) -> tuple[int, str]:
    asked = urllib.request.Request(url.replace("ws://", "http://") + path, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metadata_come_first_then_an_answer_for_every_observation(start, connect):
    client = connect(start(policy_server(echo, metadata={"robot": "panda"})))
    assert client.metadata["robot"] == "panda"
    answer = client.infer(request(0.5))
    assert np.array_equal(answer["actions"], echo(request(0.5))["actions"])
    assert answer["policy_timing"] == {"infer_ms": 1.0}
    assert answer["server_timing"]["infer_ms"] > 0


def test_a_policy_that_is_never_overridden_answers_as_if_it_were_not_wrapped(start, connect):
    alone = connect(start(policy_server(echo)))
    searching = connect(start(policy_server(echo, search(never))))
    for place in np.linspace(-0.9, 0.9, 7):
        one, other = alone.infer(request(place)), searching.infer(request(place))
        assert one["actions"].dtype == other["actions"].dtype
        assert one["actions"].tobytes() == other["actions"].tobytes()
        assert not other["forethought"]["overridden"] and other["forethought"]["simulations"] == 24


def test_with_a_search_the_answer_is_better_and_says_why(start, connect):
    answer = connect(start(policy_server(echo, search()))).infer(request())
    assert answer["actions"][:, 0].sum() > echo(request())["actions"][:, 0].sum()
    note = answer["forethought"]
    assert note["overridden"] and note["value"] > note["policy_value"]
    assert note["milliseconds"].keys() >= {"policy", "search"}


def test_the_reference_kind_of_policy_is_served_too(start, connect):
    class Steady:
        action_spec, horizon, cameras = SPEC, HORIZON, ("agentview_rgb",)

        def propose(self, observation, n, seeds):
            return ActionSamples(np.full((observation.batch, n, HORIZON, 7), 0.25, np.float32))

    for options in ({}, {"search": search()}):
        client = connect(start(policy_server(Steady(), **options)))
        assert client.infer(request())["actions"].shape == (HORIZON, 7)
        several = {key: np.stack([value] * 3) for key, value in request().items() if key != "prompt"}
        several["prompt"] = ["push"] * 3
        assert client.infer(several)["actions"].shape == (3, HORIZON, 7)


def test_health_and_status_are_told_over_http(start, connect):
    url = start(policy_server(echo, search()))
    assert get(url, "/healthz") == (200, "OK\n")
    client = connect(url)
    client.infer(request())
    client.error("text")
    status = json.loads(get(url, "/status")[1])
    assert {key: status[key] for key in ("connected", "clients", "answers", "errors", "sessions")} == {
        "connected": 1,
        "clients": 1,
        "answers": 1,
        "errors": 1,
        "sessions": 1,
    }


def test_who_has_no_key_is_turned_away(start):
    url = start(policy_server(echo, api_key="secret"))
    from websockets.exceptions import InvalidStatus

    for key in (None, "wrong", "secret2", "sécret"):
        with pytest.raises((InvalidStatus, UnicodeError)) as told:
            RawClient(url, key)
        assert getattr(told.value, "response", None) is None or told.value.response.status_code == 401
    RawClient(url, "secret").close()
    assert get(url, "/healthz")[0] == 200  # for whoever watches the machine
    assert get(url, "/status")[0] == 401
    assert get(url, "/status", Authorization="Api-Key secret")[0] == 200


def test_a_page_in_a_browser_is_turned_away(start):
    from websockets.exceptions import InvalidStatus

    url = start(policy_server(echo))
    with pytest.raises(InvalidStatus) as told:
        RawClient(url, origin="http://evil.example")
    assert told.value.response.status_code == 403


def test_more_clients_than_allowed_are_turned_away_until_one_leaves(start, connect):
    from websockets.exceptions import InvalidStatus

    url = start(policy_server(echo, max_clients=2))
    first, _ = connect(url), connect(url)
    with pytest.raises(InvalidStatus) as told:
        RawClient(url)
    assert told.value.response.status_code == 503
    first.close()
    eventually(lambda: json.loads(get(url, "/status")[1])["connected"] == 1)
    assert connect(url).infer(request())


BAD = {
    "text": ("hello", "binary"),
    "no msgpack": (b"\xc1\xc1", "msgpack"),
    "a list": (pack([1, 2]), "dictionary"),
    "no state": (pack({"prompt": "x", "observation/image": request()["observation/image"]}), "state"),
    "no image": (pack({"prompt": "x", "observation/state": np.zeros(8)}), "agentview_rgb"),
    "no task": (pack({key: value for key, value in request().items() if key != "prompt"}), "instruction"),
    "state of text": (pack(request() | {"observation/state": "left"}), "state"),
    "nothing": (pack({}), "observation"),
}


@pytest.mark.parametrize("started", [False, True])
def test_a_bad_request_gets_words_and_the_connection_stays_usable(start, connect, started):
    client = connect(start(policy_server(echo, search())))
    if started:
        client.infer(request())
    for frame, words in BAD.values():
        assert words in client.error(frame)
    assert client.infer(request(0.5))["actions"].shape == (HORIZON, 7)


def test_a_frame_that_is_too_large_closes_the_connection_with_the_reason(start, connect):
    from websockets.exceptions import ConnectionClosedError

    url = start(policy_server(echo, max_bytes=10_000))
    client, other = connect(url), connect(url)
    with pytest.raises(ConnectionClosedError, match="10000"):
        client.send(bytes(10_001))
    assert other.infer(request())


def test_what_the_policy_raises_is_told_and_the_server_goes_on(start, connect):
    def picky(observation):
        if observation["observation/state"][0] > 0.5:
            raise RuntimeError("too far")
        return echo(observation)

    client = connect(start(policy_server(picky)))
    assert "RuntimeError: too far" in client.error(request(0.9))
    assert client.infer(request(0.1))


def test_keep_alives_are_answered_while_it_thinks(start, connect):
    """A client whose patience for a pong is far shorter than a decision keeps its connection."""
    thinking, go_on = threading.Event(), threading.Event()

    def slow(observation):
        thinking.set()
        assert go_on.wait(30)

    url = start(policy_server(Echo(before=slow), ping_seconds=0.1))
    client = connect(url, ping_interval=0.1, ping_timeout=1.0)
    client.socket.send(pack(request()))
    assert thinking.wait(20)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert get(url, "/healthz")[0] == 200
    assert connect(url).metadata is not None
    go_on.set()
    assert isinstance(client.socket.recv(timeout=20), bytes)


def drive(client, places, answers: list, then: Callable[[], object] = lambda: None) -> None:
    for place in places:
        answers.append(client.infer(request(place))["actions"])
        then()


def test_clients_get_the_answers_that_they_would_get_alone(start, connect):
    """Trees, seeds and episodes are a client's own, whoever else is there."""
    paths = [np.linspace(start_at, start_at + 0.6, 6) for start_at in (-0.8, -0.5, -0.2, 0.1)]
    alone: list[list] = []
    for path in paths:
        answers: list = []
        drive(connect(start(policy_server(echo, search()))), path, answers)
        alone.append(answers)
    assert not np.array_equal(alone[0], alone[1])

    url = start(policy_server(echo, search(), workers=2))
    clients = [connect(url) for _ in paths]
    together: list[list] = [[] for _ in paths]
    threads = [threading.Thread(target=drive, args=row) for row in zip(clients, paths, together, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)


def test_what_an_object_remembers_is_not_shared_between_clients(start, connect):
    policy = Echo()
    url = start(policy_server(policy, search()))
    drive(connect(url), (0.1, 0.2), [])
    drive(connect(url), (0.3,), [])
    assert policy.seen == []


def test_an_episode_begins_where_the_client_says_so_or_the_task_changes(start, connect):
    resets = []

    def planner():
        made = tree_planner()
        made.reset = lambda rows=None: resets.append(1)
        return made

    client = connect(start(policy_server(echo, search(planner))))
    client.infer(request(0.0))
    before = len(resets)
    client.infer(request(0.05))
    assert len(resets) == before
    client.infer(request(0.1, task="another"))
    assert len(resets) == before + 1
    client.infer(request(0.1, task="another", **{RESET_KEY: True}))
    assert len(resets) == before + 2
    assert client.infer({RESET_KEY: True}) == {RESET_KEY: True}
    assert len(resets) == before + 3


def test_a_client_that_left_leaves_nothing_behind(start, connect):
    server = policy_server(echo, search(deadline_ms=10_000.0))
    url = start(server)
    connect(url).infer(request())  # compiled, and one session that stays
    gc.collect()
    trees = sum(type(thing) is Tree for thing in gc.get_objects())
    threads = threading.active_count()
    for _ in range(5):
        client = RawClient(url)
        drive(client, (0.1, 0.2, 0.3), [])
        client.close()
    eventually(lambda: server.connected == 1)

    def gone() -> bool:
        gc.collect()
        return server.status()["sessions"] == 1

    eventually(gone)
    # A worker's frame may hold the last answer's tree until its next task.
    assert trees and sum(type(thing) is Tree for thing in gc.get_objects()) <= trees + 1
    eventually(lambda: threading.active_count() <= threads)


def test_trees_go_with_their_client_and_do_not_wait_for_the_garbage_collector(start):
    server = policy_server(echo, search())
    url = start(server)
    client = RawClient(url)
    drive(client, (0.1, 0.2, 0.3), [])
    gc.collect()
    gc.disable()
    try:
        trees = sum(type(thing) is Tree for thing in gc.get_objects())
        client.close()
        eventually(lambda: server.connected == 0)
        assert sum(type(thing) is Tree for thing in gc.get_objects()) == trees - 1
    finally:
        gc.enable()


def test_a_client_that_leaves_before_its_answer_does_not_stop_the_others(start, connect):
    go_on = threading.Event()
    server = policy_server(Echo(before=lambda observation: go_on.wait(30)))
    url = start(server)
    gone, other = RawClient(url), connect(url)
    gone.socket.send(pack(request()))
    eventually(lambda: server.connected == 2)
    time.sleep(0.1)
    gone.socket.socket.close()
    eventually(lambda: server.connected == 1)
    go_on.set()
    assert other.infer(request())
    assert server.counters["left"] == 1


def test_a_port_that_is_taken_is_said(start):
    url = start(policy_server(echo))
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises(ForethoughtError, match=f"{port}.*another port"):
        start(policy_server(echo), port=port)


def test_an_object_that_cannot_be_served_is_said_at_once():
    with pytest.raises(ForethoughtError, match="Cannot serve a dict"):
        policy_server({})
    with pytest.raises(ForethoughtError, match="workers"):
        policy_server(echo, workers=0)


def test_warming_up_plans_once_and_does_not_mind_models_of_another_kind():
    asked = []

    class Spy:
        def plan(self, observation, samples, seeds):
            asked.append(observation)
            raise ValueError("not mine")

    assert warm_up(search())
    assert not warm_up(search(Spy))
    assert asked[0].images["agentview_rgb"].shape == (1, 128, 128, 3)
