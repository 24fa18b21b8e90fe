"""Each measurement, on numbers whose answer is known."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from forethought.experiments.diagnosis.budget import read_budget
from forethought.experiments.diagnosis.decisions import BIGGER, OWN, POLICY, WIDE, Tried
from forethought.experiments.diagnosis.dynamics import DynamicsReport
from forethought.experiments.diagnosis.losses import judge_decisions
from forethought.experiments.diagnosis.readout import ReadoutReport
from forethought.experiments.diagnosis.value import ValueReport, calibration
from forethought.experiments.diagnosis.verdict import NOTHING, Evidence, judge
from forethought.interfaces import ForethoughtError

KIND = np.array([POLICY, OWN, OWN, WIDE, BIGGER])
FINE = Evidence(
    value=ValueReport({25: 0.8, 50: 0.9, 75: 0.95}, 0.02, ((0.5, 0.5, 1.0),), 0.9, -0.5, 0.6, 0.1, {}),
    dynamics=DynamicsReport(0.2, 0.6, 0.8, 0.9, 0.8, 0.4, np.zeros((2, 3))),
    readout=ReadoutReport(5.0, 4.0, 3.0, 30.0, 0.83),
)


def decided(imagined, seen, exact, chosen, returns=(0.2, 0.5, 0.3, 0.5, 0.5), decisions=20) -> Tried:
    """The same decision many times, with returns that do not vary."""

    def repeat(numbers):
        return np.tile(np.asarray(numbers, float), (decisions, 1))

    return Tried(
        kind=KIND,
        returns=np.repeat(repeat(returns)[..., None], 2, axis=2),
        imagined=repeat(imagined),
        seen=repeat(seen),
        exact=repeat(exact),
        chosen=np.full(decisions, chosen),
        spread=np.full(decisions, 0.1),
    )


RIGHT, WRONG = (0.2, 0.5, 0.3, 0.5, 0.5), (0.9, 0.1, 0.3, 0.1, 0.1)


@pytest.mark.parametrize(
    ("part", "case"),
    [
        ("model", decided(WRONG, RIGHT, RIGHT, 0)),
        ("encoder", decided(WRONG, WRONG, RIGHT, 0)),
        ("value", decided(WRONG, WRONG, WRONG, 0)),
        ("proposals", decided(RIGHT, RIGHT, RIGHT, 1, (0.2, 0.5, 0.3, 0.9, 0.5))),
        ("budget", decided(RIGHT, RIGHT, RIGHT, 1, (0.2, 0.5, 0.3, 0.5, 0.9))),
    ],
)
def test_what_a_decision_loses_is_charged_to_the_part_that_lost_it(part, case):
    report = judge_decisions(case)
    lost = {name: loss.mean for name, loss in report.losses.items()}
    assert max(lost, key=lost.__getitem__) == part
    expected = {"proposals": 0.4, "budget": 0.4 if part == "budget" else 0.3}
    assert lost[part] == pytest.approx(expected.get(part, 0.3))
    assert judge(dataclasses.replace(FINE, decisions=report)).limit == part


def test_losses_add_up_to_the_gap():
    report = judge_decisions(decided(WRONG, (0.2, 0.1, 0.3, 0, 0), RIGHT, 0, (0.2, 0.5, 0.3, 0.9, 0.2)))
    total = sum(loss.mean for name, loss in report.losses.items() if name != "budget")
    assert total == pytest.approx(report.returns["wide"] - report.returns["chosen"])


def test_the_best_of_noise_is_not_better_than_its_mean():
    generator = np.random.default_rng(0)
    noise = generator.random((400, 5, 2))
    flat = np.zeros((400, 5))
    report = judge_decisions(Tried(KIND, noise, flat, flat, flat, np.zeros(400, int), np.ones(400)))
    assert abs(report.returns["best"] - 0.5) < 0.05
    assert noise.mean(axis=2)[:, :3].max(axis=1).mean() > 0.6


def test_calibration_error_is_the_distance_from_the_diagonal():
    outcome = np.array([0.0, 0.0, 1.0, 1.0])
    assert calibration(np.full(4, 0.5), outcome)[0] == pytest.approx(0)
    assert calibration(np.full(4, 0.9), outcome)[0] == pytest.approx(0.4)


def test_nothing_is_blamed_when_all_is_fine():
    assert judge(FINE).limit == NOTHING


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("encoder", {"readout": ReadoutReport(40.0, 35.0, 30.0, 42.0, 0.05)}),
        ("model", {"dynamics": dataclasses.replace(FINE.dynamics, action_effect=0.0)}),
        ("value", {"value": dataclasses.replace(FINE.value, auc={25: 0.5, 50: 0.5, 75: 0.55})}),
        ("value", {"value": dataclasses.replace(FINE.value, rank_failures=0.6, mean_failures=0.7)}),
        ("value", {"value": dataclasses.replace(FINE.value, rank_successes=0.1)}),
    ],
)
def test_a_sick_part_is_named(part, changed):
    verdict = judge(dataclasses.replace(FINE, **changed))
    assert verdict.limit == part
    assert verdict.findings[0].part == part


def test_of_two_equally_sick_parts_the_one_that_the_other_stands_on_comes_first():
    sick = dataclasses.replace(
        FINE,
        value=dataclasses.replace(FINE.value, auc={25: 0.5, 50: 0.5, 75: 0.5}),
        dynamics=dataclasses.replace(FINE.dynamics, action_effect=0.0),
    )
    assert judge(sick).limit == "model"


def summary(folder, simulations: int, successes: int, **planner) -> None:
    arm = {"successes": successes, "episodes": 100}
    settings = {
        "policy": {"key": "p", "parts": {}, "choices": {}},
        "forethought": {
            "key": str(simulations),
            "parts": {"planner": {"simulations": simulations, **planner}},
            "choices": {"memory": "retrieval"},
        },
    }
    folder.mkdir(parents=True)
    content = {
        "arms": {"policy": {"successes": 40, "episodes": 100}, "forethought": arm},
        "settings": settings,
        "init_states": "0-9",
        "benchmark": {"suite": "toy"},
    }
    (folder / "summary.json").write_text(json.dumps(content))


@pytest.mark.parametrize(("rates", "part"), [((50, 60, 80), "budget"), ((60, 85, 50), "value")])
def test_success_against_simulations_tells_budget_from_goodhart(tmp_path, rates, part):
    for job, (simulations, successes) in enumerate(zip((8, 32, 128), rates)):
        summary(tmp_path / str(job), simulations, successes)
    summary(tmp_path / "other", 64, 5, depth=3)  # another planner does not join the curve
    report = read_budget(tmp_path)
    assert [point.simulations for point in report.points] == [0, 8, 32, 128]
    assert judge(dataclasses.replace(FINE, budget=report)).limit == part


def test_one_number_of_simulations_is_no_curve(tmp_path):
    summary(tmp_path / "0", 8, 50)
    assert read_budget(tmp_path) is None


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ForethoughtError, match=r"no summary\.json"):
        read_budget(tmp_path)
