"""``forethought serve`` from the command line, in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from serving_fakes import echo, request

from forethought.experiments.bench.serve import bench_serve, broken
from forethought.experiments.cli import CONFIGS
from forethought.experiments.serve import serve
from forethought.interfaces import ForethoughtError
from forethought.wrappers.serving.requests import Keys
from forethought.wrappers.serving.service import policy_server

COMMAND = [sys.executable, "-m", "forethought.experiments.cli", "serve"]


def libero(side: int = 64) -> dict:
    """What openpi's LIBERO client sends."""
    image = np.full((side, side, 3), 100, np.uint8)
    return {
        "observation/image": image,
        "observation/wrist_image": image,
        "observation/state": np.zeros(8, np.float64),
        "prompt": "pick up the ketchup and place it in the basket",
    }


@pytest.fixture
def command(tmp_path):
    """Starts the command with arguments, and returns its address."""
    started = []

    def start(*arguments: str, **environment: str) -> str:
        process = subprocess.Popen(
            [*COMMAND, "port=0", *arguments],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **environment},
        )
        started.append(process)
        guard = threading.Timer(240, process.kill)
        guard.start()
        said = ""
        for line in process.stderr or ():
            said += line
            if found := re.search(r"ws://127\.0\.0\.1:(\d+)", line):
                guard.cancel()
                return f"ws://127.0.0.1:{found[1]}"
        raise AssertionError(said)

    start.processes = started
    yield start
    for process in started:
        process.kill()
        process.wait()


def test_the_shipped_policy_is_served_with_its_search_and_ends_when_told(command, connect):
    client = connect(command())
    answer = client.infer(libero())
    assert answer["actions"].shape == (8, 7)
    assert answer["forethought"]["simulations"] == 32
    process = command.processes[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_it_stands_in_front_of_another_server_and_keeps_keys_out_of_its_files(
    command, start, connect, tmp_path
):
    upstream = start(policy_server(lambda seen: {"actions": np.zeros((8, 7))}, api_key="key-5fa1"))
    url = command(f"upstream={upstream}", UPSTREAM_API_KEY="key-5fa1", FORETHOUGHT_API_KEY="key-90bc")
    client = connect(url, key="key-90bc")
    assert client.metadata["forethought"] == {"role": "proxy", "searches": True}
    assert client.infer(libero())["actions"].shape == (8, 7)
    written = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "upstream" in written and "key-5fa1" not in written and "key-90bc" not in written


def test_a_robots_limits_are_kept_for_every_client(command, connect, tmp_path):
    limits = tmp_path / "arm.json"
    limits.write_text('{"hz": 20, "speed": 0.001}')
    url = command(f"limits={limits}")
    for _ in range(2):
        actions = connect(url).infer(libero())["actions"]
        metres = np.linalg.norm(actions[:, :3], axis=1) * 0.05  # LIBERO's controller: 5 cm a unit
        assert metres.max() * 20 <= 0.001 + 1e-6


def test_without_a_search_it_passes_on(command, start, connect):
    client = connect(command(f"upstream={start(policy_server(echo))}", "planner=none"))
    assert np.array_equal(client.infer(request(0.5))["actions"], echo(request(0.5))["actions"])


def test_what_does_not_fit_is_said_before_anybody_connects():
    with pytest.raises(ForethoughtError, match="needs models"):
        serve(policy=None, planner={"_target_": "any"}, models=None, upstream="ws://x:1")
    with pytest.raises(ForethoughtError, match=r"Choose a planner, or leave limits out"):
        serve(policy=None, planner=None, models=None, upstream="ws://x:1", limits="arm.json")
    with pytest.raises(ForethoughtError, match="ws://localhost:8000"):
        serve(policy=None, planner=None, models=None, upstream="localhost:8000")


def test_the_configuration_takes_keys_of_other_clients():
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(
            "serve",
            overrides=["images={agentview_rgb: cam}", "state=[joints,hand]", "upside_down=[agentview_rgb]"],
        )
    keys = Keys(config.images, tuple(config.state), config.instruction, tuple(config.upside_down))
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    seen = keys({"cam": image, "joints": np.ones(7), "hand": 0.5, "prompt": "go"}, ("agentview_rgb",))
    assert np.array_equal(seen.images["agentview_rgb"][0], image[::-1, ::-1])
    assert np.allclose(seen.proprioception, [[1] * 7 + [0.5]])
    with pytest.raises(ForethoughtError, match="'cam'"):
        keys({"joints": np.ones(7), "hand": 0.5, "prompt": "go"})
    with pytest.raises(ForethoughtError, match="do not make one vector"):
        keys({"cam": image, "joints": np.ones((1, 7)), "hand": 0.5, "prompt": "go"})


def test_the_bench_measures_and_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ForethoughtError, match="sections"):
        bench_serve(out=str(tmp_path), sections=["speed"])
    path = bench_serve(
        out=str(tmp_path),
        requests=5,
        simulations=8,
        frames=60,
        clients=2,
        minutes=0.05,
        sections=["latency", "fuzz"],
    )
    assert path.endswith("serve.json")


def test_broken_frames_are_of_all_kinds():
    import random

    luck = random.Random(0)
    frames = [broken(luck) for _ in range(300)]
    assert {type(frame) for frame in frames} == {bytes, str}
    assert any(len(frame) > 2**20 for frame in [broken(luck) for _ in range(3000)])
