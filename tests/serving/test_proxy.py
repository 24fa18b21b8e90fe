"""In front of another server: transparent, faster to recover than its client, and never mixed up."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from serving_fakes import (
    HORIZON,
    Echo,
    Running,
    echo,
    eventually,
    never,
    request,
    search,
    tree_planner,
)

from forethought.interfaces import ForethoughtError
from forethought.wrappers.serving.episodes import RESET_KEY
from forethought.wrappers.serving.service import policy_server, proxy_server
from forethought.wrappers.serving.wire import pack, unpack


@pytest.fixture
def proxied(start, connect):
    """A client of a proxy in front of a policy, and a client of the policy itself."""

    def make(policy=echo, find=None, upstream=None, **options):
        url = start(policy_server(policy, metadata={"robot": "panda"}, **(upstream or {})))
        behind = start(proxy_server(url, find, **options))
        return connect(behind), connect(url)

    return make


def test_without_a_search_the_answer_is_the_upstreams_byte_for_byte(start, connect):
    frames = []

    class Recorded:
        async def open(self):
            return {"robot": "panda"}

        async def reply(self, frame):
            frames.append(frame)
            return b"\x81\xa7actions\x90 not even msgpack"

        async def close(self):
            pass

    from forethought.wrappers.serving.server import Server

    client = connect(start(proxy_server(start(Server(Recorded)))))
    assert client.metadata == {"robot": "panda", "forethought": {"role": "proxy", "searches": False}}
    sent = pack(request(0.25))
    assert client.send(sent) == b"\x81\xa7actions\x90 not even msgpack"
    assert frames == [sent]


def test_an_answer_that_the_search_keeps_is_the_upstreams_byte_for_byte(proxied):
    client, direct = proxied(find=search(never))
    for place in np.linspace(-0.9, 0.9, 7):
        sent = pack(request(place))
        theirs, ours = unpack(direct.send(sent)), unpack(client.send(sent))
        assert theirs.pop("server_timing").keys() == ours.pop("server_timing").keys()
        assert pack(theirs) == pack(ours)  # nothing added, nothing changed


def test_with_a_search_the_answer_is_better_and_the_rest_of_it_is_kept(proxied):
    client, direct = proxied(find=search())
    ours, theirs = client.infer(request()), direct.infer(request())
    assert ours["actions"][:, 0].sum() > theirs["actions"][:, 0].sum()
    assert ours["actions"].dtype == theirs["actions"].dtype
    assert ours["policy_timing"] == theirs["policy_timing"]
    assert ours["forethought"]["overridden"]
    assert "forethought" not in theirs


def test_an_error_of_the_upstream_reaches_the_client_in_its_own_words(proxied):
    def picky(observation):
        if observation["observation/state"][0] > 0.5:
            raise RuntimeError("too far")
        return echo(observation)

    client, _ = proxied(picky, search())
    assert "RuntimeError: too far" in client.error(request(0.9))
    assert client.infer(request(0.1))


def test_a_bad_frame_never_reaches_the_upstream(proxied):
    policy = Echo()
    client, _ = proxied(policy)
    for frame in ("text", b"\xc1", pack([1]), pack(request())[:-4]):
        assert client.error(frame)
    assert policy.seen == []
    assert client.infer(request(0.5))
    assert policy.seen == [0.5]


@pytest.mark.parametrize("find", [None, search()])
@pytest.mark.parametrize("ours", [False, True])
def test_our_word_for_a_new_episode_reaches_our_servers_and_no_others(start, connect, find, ours):
    from forethought.wrappers.serving.server import Server

    keys = []

    class Upstream:
        async def open(self):
            return {"forethought": {}} if ours else {}

        async def reply(self, frame):
            keys.append(set(unpack(frame)))
            return pack({RESET_KEY: True} if keys[-1] == {RESET_KEY} else echo(request()))

        async def close(self):
            pass

    client = connect(start(proxy_server(start(Server(Upstream)), find)))
    client.infer(request(**{RESET_KEY: True}))
    assert client.infer({RESET_KEY: True}) == {RESET_KEY: True}
    word = {RESET_KEY} if ours else set()
    assert keys == [set(request()) | word, *([word] if ours else [])]


def test_an_upstream_that_comes_back_is_only_a_delay(start, connect):
    upstream = Running(policy_server(echo))
    client = connect(start(proxy_server(upstream.url, search(never), upstream_patience=20.0)))
    assert client.infer(request(0.1))
    upstream.stop()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(client.infer(request(0.2))))
    asking.start()
    time.sleep(0.5)
    assert not answers
    start(policy_server(echo), port=upstream.port)
    asking.join(30)
    assert answers[0]["actions"][0, 5] == np.float32(0.2)


def test_an_upstream_that_stays_away_is_a_clear_error(start, connect):
    upstream = Running(policy_server(echo))
    client = connect(start(proxy_server(upstream.url, search(), upstream_patience=0.3)))
    assert client.infer(request())
    upstream.stop()
    assert "cannot be reached" in client.error(request())
    start(policy_server(echo), port=upstream.port)
    assert client.infer(request())


def test_a_client_that_comes_while_the_upstream_is_away_is_told_why(start, connect):
    from websockets.exceptions import ConnectionClosedError

    with pytest.raises(ConnectionClosedError, match="cannot be reached") as told:
        connect(start(proxy_server("ws://127.0.0.1:9", upstream_patience=0.1)))
    assert told.value.rcvd.code == 1013


def test_what_is_no_policy_server_is_told(start, connect):
    from websockets.exceptions import ConnectionClosedError

    keyed = start(policy_server(echo, api_key="secret"))
    with pytest.raises(ConnectionClosedError, match="another api key"):
        connect(start(proxy_server(keyed, upstream_patience=0.0)))
    assert connect(start(proxy_server(keyed, upstream_api_key="secret"))).infer(request())


def test_a_late_answer_is_an_error_and_not_the_answer_to_the_next_question(start, connect):
    go_on = threading.Event()

    def slow(observation):
        if observation["observation/state"][0] > 0.5:
            go_on.wait(30)

    url = start(policy_server(Echo(before=slow), workers=2))
    client = connect(start(proxy_server(url, search(), upstream_timeout=0.5)))
    client.infer(request(0.1))
    assert "did not answer within 0.5 s" in client.error(request(0.9))
    go_on.set()
    for place in (0.2, 0.3, 0.4):
        answer = client.infer(request(place, task=f"to {place}"))
        assert np.all(np.abs(answer["actions"][:, 5] - place) < 0.45)
        assert unpack(pack(answer))["actions"].shape == (HORIZON, 7)


def test_while_one_upstream_is_stuck_other_clients_are_served(start, connect):
    go_on = threading.Event()

    def slow(observation):
        if observation["observation/state"][0] > 0.5:
            go_on.wait(30)

    url = start(policy_server(Echo(before=slow), workers=2))
    behind = start(proxy_server(url, search(never)))
    stuck, other = connect(behind), connect(behind)
    stuck.socket.send(pack(request(0.9)))
    time.sleep(0.2)
    assert other.infer(request(0.1))["actions"][0, 5] == np.float32(0.1)
    go_on.set()
    assert unpack(stuck.socket.recv(timeout=20))["actions"][0, 5] == np.float32(0.9)


def test_a_robot_is_held_still_for_a_while_when_asked_for(start, connect):
    upstream = Running(policy_server(echo))
    behind = start(proxy_server(upstream.url, search(), upstream_patience=0.0, hold_seconds=1.0))
    client = connect(behind)
    last = client.infer(request())["actions"]
    upstream.stop()
    held = client.infer(request())
    assert held["actions"].shape == last.shape and held["actions"].dtype == last.dtype
    assert np.all(held["actions"][:, :6] == 0) and np.all(held["actions"][:, 6] == last[-1, 6])
    assert "hold still" in held["forethought"]["reason"]
    eventually(lambda: isinstance(client.send(pack(request())), str))
    again = Running(policy_server(echo), port=upstream.port)
    assert client.infer(request())["actions"][0, 0] != 0
    again.stop()
    assert "hold still" in client.infer(request())["forethought"]["reason"]  # another loss, another while


def test_before_the_first_answer_nobody_is_held_still(start, connect):
    upstream = Running(policy_server(echo))
    client = connect(start(proxy_server(upstream.url, search(), upstream_patience=0.0, hold_seconds=9.0)))
    upstream.stop()
    assert "closed the connection" in client.error(request()) or "reached" in client.error(request())


ANSWERS = {
    "not a number": {"actions": np.full((HORIZON, 7), np.nan)},
    "another length": {"actions": np.zeros((HORIZON + 1, 7))},
    "no actions": {"poses": np.zeros((HORIZON, 7))},
    "text": {"actions": "left"},
    "a list": [1, 2],
    "nothing": None,
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_wrong_answer_after_a_good_one_holds_the_robot_still_and_is_counted(start, connect, what):
    """As in process: while a robot is driven the policy's failure means no motion, not noise."""

    class Moody:
        def infer(self, observation):
            good = observation["observation/state"][0] < 0.5
            return echo(observation) if good else ANSWERS[what]

    url = start(policy_server(Moody()))
    server = proxy_server(url, search())
    client = connect(start(server))
    client.infer(request(0.1))
    held = client.infer(request(0.9))
    assert np.all(held["actions"][:, :6] == 0)
    assert "hold still" in held["forethought"]["reason"] and held["forethought"]["fallback"]
    client.close()
    eventually(lambda: server.status()["problems"].get("policy") == 1)


@pytest.mark.parametrize("what", ["another length", "no actions", "text"])
def test_a_wrong_first_answer_is_told_for_somebody_can_mend_it(start, connect, what):
    url = start(policy_server(lambda observation: ANSWERS[what]))
    assert "Expected one action" in connect(start(proxy_server(url, search()))).error(request())


def test_a_garbled_answer_is_told(start, connect):
    class Garbled:
        async def open(self):
            return {}

        async def reply(self, frame):
            return b"\xc1"

        async def close(self):
            pass

    from forethought.wrappers.serving.server import Server

    client = connect(start(proxy_server(start(Server(Garbled)), search())))
    assert "cannot be read" in client.error(request())


def test_an_observation_that_the_models_cannot_read_leaves_the_upstreams_answer(start, connect):
    """Told while nothing has gone well yet; after that the robot has a policy to follow."""
    blind = {key: value for key, value in request(0.3).items() if "image" not in key}
    server = proxy_server(start(policy_server(echo)), search())
    client = connect(start(server))
    assert "agentview_rgb" in client.error(blind)
    client.infer(request(0.1))
    answer = client.infer(blind)
    assert "forethought" not in answer and answer["actions"][0, 5] == np.float32(0.3)
    client.close()
    eventually(lambda: server.status()["problems"].get("observation") == 1)


def test_every_client_has_an_upstream_connection_of_its_own_which_ends_with_it(start, connect):
    upstream = policy_server(echo)
    behind = start(proxy_server(start(upstream), search()))
    first, second = connect(behind), connect(behind)
    assert upstream.connected == 2
    first.close()
    eventually(lambda: upstream.connected == 1)
    assert second.infer(request())


def test_a_client_that_leaves_while_the_upstream_thinks_frees_its_connection(start, connect):
    go_on = threading.Event()
    upstream = policy_server(Echo(before=lambda observation: go_on.wait(30)))
    server = proxy_server(start(upstream), search())
    client = connect(start(server))
    client.socket.send(pack(request()))
    time.sleep(0.2)
    client.socket.socket.close()
    eventually(lambda: server.connected == 0)
    go_on.set()
    eventually(lambda: upstream.connected == 0)


def test_addresses_and_numbers_that_make_no_sense_are_said_at_once():
    with pytest.raises(ForethoughtError, match="ws://localhost:8000"):
        proxy_server("tcp://localhost:5555")
    with pytest.raises(ForethoughtError, match="upstream_timeout"):
        proxy_server("ws://localhost:1", upstream_timeout=0.0)
    with pytest.raises(ForethoughtError, match="patience"):
        proxy_server("ws://localhost:1", upstream_patience=-1.0)


def test_an_episode_that_begins_with_an_unanswered_question_begins_all_the_same(start, connect):
    resets, failing = [], threading.Event()

    def planner():
        made = tree_planner()
        made.reset = lambda rows=None: resets.append(1)
        return made

    def policy(observation):
        if failing.is_set():
            raise RuntimeError("not now")
        return echo(observation)

    client = connect(start(proxy_server(start(policy_server(policy)), search(planner))))
    client.infer(request(0.1))
    before = len(resets)
    failing.set()
    assert "not now" in client.error(request(0.1, **{RESET_KEY: True}))
    failing.clear()
    client.infer(request(0.1))
    assert len(resets) == before + 1


def test_a_kept_answer_is_not_even_written_anew(start, connect):
    """The same content in other bytes than ours would be: numbers of other widths, keys as text."""
    import msgpack

    from forethought.wrappers.serving.server import Server

    chunk = echo(request())["actions"]
    array = {"__ndarray__": True, "shape": list(chunk.shape), "dtype": "<f8", "data": chunk.tobytes()}
    frame = msgpack.packb({"actions": array, "n": 1.5}, use_single_float=True)

    class Other:
        async def open(self):
            return {}

        async def reply(self, sent):
            return frame

        async def close(self):
            pass

    assert pack(unpack(frame)) != frame
    assert connect(start(proxy_server(start(Server(Other)), search(never)))).send(pack(request())) == frame


def test_keep_alives_are_answered_while_it_searches(start, connect):
    thinking, go_on = threading.Event(), threading.Event()

    def planner():
        made = tree_planner()
        plan = made.plan_rows

        def slow(*args):
            thinking.set()
            assert go_on.wait(30)
            return plan(*args)

        made.plan_rows = slow
        return made

    behind = start(proxy_server(start(policy_server(echo)), search(planner), ping_seconds=0.1))
    client = connect(behind, ping_interval=0.1, ping_timeout=1.0)
    client.socket.send(pack(request()))
    assert thinking.wait(20)
    time.sleep(2.0)
    assert connect(behind).metadata
    go_on.set()
    assert isinstance(client.socket.recv(timeout=20), bytes)
