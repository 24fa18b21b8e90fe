"""A policy on another machine as an object."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from serving_fakes import HORIZON, SPEC, Echo, Running, echo, request, search, tree_planner

import forethought
from forethought.interfaces import ForethoughtError
from forethought.wrappers.serving.client import RemotePolicy
from forethought.wrappers.serving.server import Server
from forethought.wrappers.serving.service import policy_server
from forethought.wrappers.serving.wire import pack, unpack


def test_it_answers_like_the_policy_itself(start):
    client = RemotePolicy(start(policy_server(echo, metadata={"robot": "panda"}, api_key="k")), api_key="k")
    assert client.metadata["robot"] == "panda"
    assert np.array_equal(client.infer(request(0.5))["actions"], echo(request(0.5))["actions"])
    client.close()
    with pytest.raises(ForethoughtError, match="closed"):
        client.infer(request())


def test_it_can_be_wrapped_and_looks_ahead_here(start):
    client = RemotePolicy(start(policy_server(echo)))
    wrapped = forethought.wrap(client, planner=tree_planner(), action_spec=SPEC, horizon=HORIZON)
    assert isinstance(wrapped, RemotePolicy)
    better = wrapped.infer(request())
    assert better["actions"][:, 0].sum() > client.infer(request())["actions"][:, 0].sum()
    wrapped.reset()
    assert wrapped.metadata == client.metadata
    client.close()


def test_our_servers_hear_of_a_new_episode_and_others_see_nothing_of_it(start):
    resets, keys = [], []

    def planner():
        made = tree_planner()
        made.reset = lambda rows=None: resets.append(1)
        return made

    policy = Echo(before=lambda seen: keys.append(set(seen)))
    client = RemotePolicy(start(policy_server(policy, search(planner))))
    client.infer(request())
    before = len(resets)
    client.reset()
    client.infer(request())
    client.infer(request())
    assert len(resets) == before + 1
    assert keys == [set(request())] * 3
    client.close()

    class Theirs:
        async def open(self):
            return {"robot": "panda"}

        async def reply(self, frame):
            keys.append(set(unpack(frame)))
            return pack(echo(request()))

        async def close(self):
            pass

    client = RemotePolicy(start(Server(Theirs)))
    client.reset()
    client.infer(request())
    assert keys[-1] == set(request())
    client.close()


def test_it_survives_a_restart_and_says_when_there_is_nobody(start):
    server = Running(policy_server(echo))
    client = RemotePolicy(server.url, patience=20.0)
    server.stop()
    threading.Timer(0.4, lambda: start(policy_server(echo), port=server.port)).start()
    assert client.infer(request(0.5))["actions"][0, 5] == 0.5
    client.close()
    with pytest.raises(ForethoughtError, match="cannot be reached"):
        RemotePolicy("ws://127.0.0.1:9", patience=0.0)


def test_it_answers_keep_alives_while_the_robot_moves(start):
    server = policy_server(echo, ping_seconds=0.1)
    client = RemotePolicy(start(server))
    client.infer(request())
    time.sleep(1.0)
    client.infer(request())
    assert server.counters["clients"] == 1
    client.close()


def test_errors_and_nonsense_are_errors_here(start):
    def fail(observation):
        raise RuntimeError("boom")

    client = RemotePolicy(start(policy_server(fail)))
    with pytest.raises(ForethoughtError, match="boom"):
        client.infer(request())
    client.close()
