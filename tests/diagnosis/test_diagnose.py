"""Diagnose finds what was broken on purpose, and nothing where nothing is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import episodes
import numpy as np
import pytest
import reach_world
from rich.console import Console

from forethought.experiments.diagnosis.decisions import Parts, Trial, try_decisions
from forethought.experiments.diagnosis.diagnose import Request, Simulation, diagnose
from forethought.experiments.evaluation.arms import Arm
from forethought.experiments.evaluation.parts import Workshop
from forethought.experiments.training import models
from forethought.interfaces import ForethoughtError

BENCHMARK = {"_target_": "reach_world.ReachBenchmark"}
STEPS = {"encoder_steps": 300, "dynamics_steps": 400, "value_steps": 400, "encoder_batch": 64, "batch": 64}
SUCCESSES_ONLY = ("progress_successes_only",)
VALUE = "value_success_discounted"


def train(
    folder: Path, rollouts: Path, like: Path | None = None, lent: tuple[str, ...] = (), **options: Any
) -> Path:
    """Models from rollouts; ``like`` lends some of its stages."""
    for stage in lent:
        assert like is not None
        (folder / "stages").mkdir(parents=True, exist_ok=True)
        shutil.copy(like / f"stages/{stage}.pt", folder / "stages")
    return models.train(
        rollouts=[str(rollouts)],
        out=str(folder),
        cameras=(episodes.CAMERA,),
        image_size=16,
        horizon=episodes.HORIZON,
        discount=0.9,
        members=3,
        memory_entries=400,
        **{"schemes": ("success_discounted",), **STEPS, **options},
    )


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory) -> Path:
    return episodes.write(tmp_path_factory.mktemp("rollouts"), 200, skill=0.5)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory) -> Path:
    return episodes.write(tmp_path_factory.mktemp("unseen"), 80, skill=0.5, first_seed=5000)


@pytest.fixture(scope="module")
def healthy(rollouts, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("healthy"), rollouts)


def arm(
    folder: Path, *, value: Path | None = None, memory: bool = True, speed: float = 0.9, **planner: Any
) -> Arm:
    settings = {"_target_": "forethought.planner.presets.forethought", "simulations": 16}
    settings |= {"bandwidths": [0.02]} | planner
    parts = {
        "policy": {"_target_": "reach_world.ReachPolicy", "speed": speed, "wobble": 0.05},
        "world_model": {"_target_": "forethought.world_models.latent.load", "folder": str(folder)},
        "reward": {"_target_": "forethought.reward.value.load", "folder": str(value or folder)},
        "memory": {"_target_": "forethought.world_models.retrieval.load", "folder": str(folder)},
        "planner": settings,
        "controller": {"_target_": "forethought.wrappers.controller.Controller"},
    }
    if not memory:
        parts["memory"] = {}
    return Arm("forethought", dict.fromkeys(parts, "toy"), parts)


def run(chosen: Arm, out: Path, unseen: Path, simulator: bool = True, **request: Any) -> dict[str, Any]:
    trial = Trial(decisions=16, rollouts=1, candidates=10, wide=9)
    diagnose(
        chosen,
        Request("toy", out, [str(unseen)], page=request.pop("page", False), **request),
        Simulation(BENCHMARK, "all", "30-39", trial) if simulator else None,
        Console(quiet=True),
    )
    return json.loads((out / "diagnose.json").read_text())


def test_nothing_is_blamed_where_nothing_is_broken(healthy, unseen, tmp_path):
    found = run(arm(healthy), tmp_path, unseen, page=True)
    assert found["verdict"]["limit"] == "nothing stands out", found["verdict"]
    assert found["value"]["auc"]["75"] > 0.8
    assert found["dynamics"]["action_effect"] > 0.5
    assert found["readout"]["skill"] > 0.5
    returns = found["decisions"]["returns"]
    assert returns["best"] >= returns["chosen"]
    assert returns["best"] >= returns["policy"]
    assert (tmp_path / "diagnose.png").stat().st_size > 10_000


def test_a_part_of_a_chunk_is_not_judged(healthy, unseen, tmp_path):
    chosen = arm(healthy)
    chosen.parts["controller"]["execution_horizon"] = 2
    with pytest.raises(ForethoughtError, match="execution_horizon=2"):
        run(chosen, tmp_path, unseen)


def test_labels_without_failures_are_found(healthy, rollouts, unseen, tmp_path):
    blind = train(tmp_path / "m", rollouts, healthy, ("encoder", "dynamics"), schemes=SUCCESSES_ONLY)
    found = run(arm(healthy, value=blind), tmp_path, unseen)
    assert found["verdict"]["limit"] == "value", found["verdict"]
    assert "leave failures out" in found["verdict"]["words"]


def test_shuffled_actions_are_found(healthy, rollouts, unseen, tmp_path):
    shuffled = reach_world.write_with_shuffled_actions(tmp_path / "data", rollouts)
    broken = train(tmp_path / "m", shuffled, healthy, ("encoder", VALUE))
    shutil.copy(healthy / "memory.safetensors", broken)
    found = run(arm(broken), tmp_path, unseen)
    assert found["verdict"]["limit"] == "model", found["verdict"]
    assert "hardly listens to the actions" in found["verdict"]["words"]


def test_narrow_proposals_are_found(healthy, unseen, tmp_path):
    found = run(arm(healthy, memory=False, speed=0.25, bandwidths=[0.001]), tmp_path, unseen)
    assert found["verdict"]["limit"] == "proposals", found["verdict"]
    assert found["decisions"]["spread"] < 0.05


def test_a_value_of_another_suite_is_found(healthy, unseen, tmp_path):
    other = reach_world.write_other_suite(tmp_path / "data", 200)
    foreign = train(tmp_path / "m", other, healthy, ("encoder", "dynamics"))
    found = run(arm(healthy, value=foreign), tmp_path, unseen)
    assert found["verdict"]["limit"] == "value", found["verdict"]
    assert "does not tell success from failure" in found["verdict"]["words"]
    assert "other tasks" in found["verdict"]["words"]


def test_most_of_it_needs_no_simulator(healthy, unseen, tmp_path):
    found = run(arm(healthy), tmp_path, unseen, simulator=False)
    assert found["decisions"] is None
    assert found["verdict"]["limit"] == "nothing stands out"


def test_one_outcome_alone_is_refused(healthy, tmp_path):
    failures = episodes.write(tmp_path / "data", 3, skill=0.0, first_seed=1)
    with pytest.raises(ForethoughtError, match="failed: whether a value"):
        run(arm(healthy), tmp_path, failures, simulator=False)


def test_trying_decisions_does_not_change_the_episode(healthy):
    workshop, chosen = Workshop(), arm(healthy)
    controller = workshop.controller(chosen)
    models_ = workshop.part("world_model", chosen), workshop.part("reward", chosen)
    parts = Parts(controller.policy, controller.planner, *models_)
    benchmark = reach_world.ReachBenchmark()

    def track(per_episode: int) -> list[np.ndarray]:
        """Where the hand is when the planner decides."""
        environment, places = benchmark.make(0), []
        decide = controller.planner.plan

        def plan(observation, samples, seeds):
            places.append(observation.proprioception[0])
            return decide(observation, samples, seeds)

        spied = dataclasses.replace(parts, planner=SimpleNamespace(plan=plan))
        trial = Trial(decisions=3 if per_episode > 1 else 1, per_episode=per_episode, rollouts=2)
        tested = try_decisions(lambda _: environment, benchmark.tasks, [33], spied, trial)
        assert np.all((tested.returns >= 0) & (tested.returns <= 1))
        return places

    many, few = track(per_episode=6), track(per_episode=1)
    both = min(len(many), len(few))
    assert len(many) >= 2
    np.testing.assert_array_equal(few[:both], many[:both])
