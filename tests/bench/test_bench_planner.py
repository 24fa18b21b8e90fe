"""The measurements of the search: that they count what they say, and know what the optimum is."""

from __future__ import annotations

import itertools
import json
import stat

import numpy as np
import pytest
import torch

from forethought.experiments.bench import regret, throughput, timing
from forethought.experiments.bench.peer import Peer
from forethought.experiments.bench.planner import SECTIONS, bench_planner
from forethought.experiments.bench.problem import NETWORKS, Sizes, Stopwatch, question
from forethought.interfaces import Decision, ForethoughtError

SMALL = Sizes(latent=8, hidden=16, horizon=2, actions=4)


def fake_peer(folder, answer: str) -> str:
    """An interpreter that reads settings and gives an answer of its own to each."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\nwhile read line; do {answer}; done\n")
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    return str(script)


def small_run(folder, **options):
    settings = {
        "out": str(folder / "out"),
        "batch": [1, 2],
        "simulations": [8, 24],
        "wave": [1, 4],
        "threads": [1],
        "latent": 8,
        "hidden": 16,
        "horizon": 2,
        "candidates": 4,
        "repeats": 3,
        "regret_rows": 6,
        "regret_simulations": [16],
        "depth_rows": 4,
        "depth_simulations": [8],
        "decisions": 3,
        "budget_milliseconds": 6.0,
        "wave_milliseconds": 1.0,
        "clock": "cpu",
    }
    path = bench_planner(**(settings | options))
    with open(path) as file:
        return json.load(file)


def test_a_run_measures_every_section_and_counts_distinct_evaluations(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    peer = fake_peer(tmp_path, """echo '{"wall": 2.0, "cpu": 1.0, "evaluated": 50}'""")
    found = small_run(tmp_path, peer=peer)
    assert set(SECTIONS) <= set(found)
    ours = [row for row in found["throughput"] if row["wave"] is not None]
    assert len(ours) == 2 * 2 * 2 * 2 * 2  # actions, batch, simulations, wave, networks
    for row in ours:
        assert row["evaluated"] == row["batch"] * row["simulations"]
        assert sum(row["shares"].values()) == pytest.approx(1.0, abs=1e-6)
        assert row["to_peer"] == pytest.approx(row["per_second"] / 50.0)
    assert [row["to_peer"] for row in found["throughput"] if row["wave"] is None] == [1.0] * 8
    assert found["gpu"] == {"skipped": "torch sees no CUDA device here"}
    assert {row["depth"] for row in found["depth"]} == {0, 1, 2, 3, 4}
    assert found["milliseconds"]["p99"] >= found["milliseconds"]["p50"] > 1.0
    assert found["density"]["density"] > 0.0
    assert "mctx" in capsys.readouterr().out


def test_what_cannot_be_measured_is_refused(tmp_path):
    for options, said in (
        ({"sections": ["speed"]}, "sections knows throughput"),
        ({"actions": ["none"]}, "actions knows shared, sampled"),
        ({"networks": ["jax"]}, "networks knows numpy, torch"),
        ({"clock": "sun"}, "clock knows wall, cpu"),
        ({"wave": [0]}, "integers >= 1"),
    ):
        with pytest.raises(ForethoughtError, match=said):
            small_run(tmp_path, **options)


def test_a_peer_that_is_not_there_or_ends_is_said_with_what_mends_it(tmp_path):
    with pytest.raises(ForethoughtError, match="make bench-mctx"):
        small_run(tmp_path, sections=["throughput"], peer=str(tmp_path / "nobody"))
    with (
        pytest.raises(ForethoughtError, match="peer ended"),
        Peer(fake_peer(tmp_path, "exit 3"), "wall", 1) as peer,
    ):
        peer.ask(throughput.Setting("shared", 1, 8, None, 1, None), SMALL)


def test_both_networks_compute_the_same():
    asked = question(SMALL, 5)
    answers = []
    for world, value in NETWORKS.values():
        model = world(SMALL)
        after = model.step(model.encode(asked.observation), asked.samples.chunks[:, 0]).latent
        answers.append((np.asarray(after), value(SMALL).score(after, ()).value))
    np.testing.assert_allclose(answers[0][0], answers[1][0], atol=1e-5)
    np.testing.assert_allclose(answers[0][1], answers[1][1], atol=1e-5)


def test_a_stopwatch_adds_up_what_runs_between():
    ticks = iter([0.0, 2.0, 10.0, 13.0])
    watch = Stopwatch(lambda: next(ticks))
    for _ in range(2):
        watch.add("tree", watch.now())
    assert watch.seconds == {"tree": 5.0}


def test_what_the_models_take_is_not_the_trees_share():
    seconds = {"evaluate": 6.0, "network": 5.0, "encode": 1.0, "sampling": 2.0}
    found = throughput.shares(seconds, 10.0)
    assert found == pytest.approx({"network": 0.6, "gather": 0.1, "sampling": 0.2, "tree": 0.1})


def test_a_round_on_a_slower_machine_leaves_the_shares_alone():
    rounds = [({"evaluate": 7.0, "network": 6.0, "sampling": 1.0}, 10.0)] * 3
    rounds += [({name: 3.0 * took for name, took in rounds[0][0].items()}, 30.0)] * 2
    rounds += [({name: 3.0 * took for name, took in rounds[0][0].items()}, 10.0)]  # it turned slow between
    measured = throughput.Measured(parts=[throughput.shares(*one) for one in rounds])
    assert measured.shares() == pytest.approx({"network": 0.6, "gather": 0.1, "sampling": 0.1, "tree": 0.2})
    assert throughput.Measured().shares() == {}


def test_linearity_is_the_worst_slowdown_of_a_simulation():
    def row(simulations, rate, wave=8):
        same = {"actions": "shared", "batch": 1, "threads": 1, "network": "numpy"}
        return same | {"simulations": simulations, "per_second": rate, "wave": wave}

    rows = [row(64, 50.0), row(256, 100.0), row(4096, 80.0), row(4096, 1.0, wave=None)]
    assert throughput.linearity(rows) == pytest.approx(1.25)
    assert throughput.linearity(rows[:1]) is None


def chosen(chunk: np.ndarray) -> Decision:
    rows = len(chunk)
    nothing, no = np.zeros(rows, np.float32), np.zeros(rows, bool)
    return Decision(chunk, nothing, nothing, nothing, no, no, ("",) * rows, nothing)


def test_regret_of_increments_is_that_of_every_sequence_tried():
    problem = regret.Increments(depth=3)
    observation, samples = problem.question(3, 4)
    choices = samples.chunks[0, :, 0, 0].astype(np.float64)
    worth = np.zeros((3, 4))
    for row, sequence in itertools.product(range(3), itertools.product(range(4), repeat=3)):
        state = observation.proprioception[row]
        for index in sequence:
            state = problem.after(state, choices[index])
        worth[row, sequence[0]] = max(worth[row, sequence[0]], state[1])
    for index in range(4):
        lost = problem.regret(observation, samples, chosen(samples.chunks[:, index]))
        np.testing.assert_allclose(lost, worth.max(axis=1) - worth[:, index], atol=1e-12)


def test_the_best_of_two_hills_is_reached_and_never_passed():
    problem = regret.TwoHills()
    observation, _ = problem.question(5, 4)
    state, best = observation.proprioception, problem.best(observation.proprioception, problem.depth)
    draw = np.random.default_rng(0)
    tried = np.full(5, -np.inf)
    for _ in range(3000):
        after = state
        for chunk in draw.uniform(-1.0, 1.0, (problem.depth, 5, 1, 2)).astype(np.float32):
            after = np.asarray(problem.step(after, chunk).latent)
        tried = np.maximum(tried, problem.best(after, 0))
    assert (tried <= best + 1e-6).all()
    np.testing.assert_allclose(tried, best, atol=0.1)


def test_a_search_that_sees_everything_has_no_regret():
    rows = regret.measure([4 + 16 + 64], [8], rows=5, candidates=4)
    seen = [row["regret"] for row in rows if row["problem"] == "increments"]
    assert seen == pytest.approx([0.0, 0.0])


def test_waves_of_one_are_the_measure_of_the_others():
    rows = regret.measure([12], [8], rows=20, candidates=4)
    assert [row["ratio"] for row in rows if row["wave"] == 1] == [1.0, 1.0]
    assert all(row["evaluated"] == 12 for row in rows)


def test_a_slow_model_is_as_slow_as_it_says():
    found = timing.milliseconds_kept(SMALL, decisions=4, budget=30.0, wave_takes=10.0, clock="cpu")
    assert 2.0 <= found["waves"] <= 3.0
    assert found["p50"] >= 20.0
