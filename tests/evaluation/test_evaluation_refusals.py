"""Bad input is refused in words, with exit code 2, before an episode is run."""

from __future__ import annotations

import os

import evaluation_command as command
import pytest

REFUSALS = {
    "unknown benchmark": (["benchmark=nowhere"], "Could not find 'benchmark/nowhere'"),
    "unknown planner in an arm": (["arms.x={planner: nothing}"], "Could not find 'planner/nothing'"),
    "unknown group in an arm": (["arms.x={robot: arm}"], "names the group 'robot'"),
    "name of an arm taken": (["arms.policy={planner: none}"], "already has an arm of this name"),
    "unknown option": (["wrokers=3"], "Could not override 'wrokers'"),
    "task out of range": (["tasks=0-7"], "tasks=0-7 goes to 7, but there are 2"),
    "init state out of range": (["init_states=10"], "init_states=10 goes to 10, but there are 10"),
    "no workers": (["workers=0"], "workers=0: give 1 or more"),
    "a budget of nothing": (["planner.simulations=0"], "Arm fake: simulations must be 1 or more; got 0"),
    "another action size": (
        ["policy.action_size=7"],
        "the policy gives actions of 7 numbers; the benchmark takes 2",
    ),
    "another camera": (["policy.camera=wrist"], "reads the cameras ['wrist']"),
    "broken weights": (["world_model=fake_nan"], "the values of the planner"),
    "weights missing": (["policy=reference", "models=nowhere"], "No models at 'nowhere'"),
    "a target that does not exist": (["policy._target_=nowhere.Policy"], "Cannot build the policy nowhere"),
    "a folder that cannot be written": (["out=/proc/nowhere"], "not a folder that can be written"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_refused(what, tmp_path, capfd):
    arguments, expected = REFUSALS[what]
    code = command.run_here(tmp_path, *arguments)
    err = capfd.readouterr().err
    assert code == 2, err
    assert expected in command.message(err)
    assert "Traceback" not in err
    assert "Error executing job" not in err
    assert command.rows(tmp_path) == []


def test_a_damaged_database_is_refused(tmp_path, capfd):
    folder = tmp_path / "runs/eval/fake"
    folder.mkdir(parents=True)
    (folder / "episodes.sqlite").write_bytes(os.urandom(5000))
    assert command.run_here(tmp_path) == 2
    err = capfd.readouterr().err
    assert "not a readable results database" in command.message(err)


def test_a_traceback_is_shown_on_request(tmp_path):
    code, _, err = command.run(tmp_path, "tasks=9", FORETHOUGHT_DEBUG="1")
    assert code not in (0, 2)
    assert "Traceback" in err
