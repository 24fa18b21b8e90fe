"""``forethought eval`` from the command line: arms, sweeps, pictures."""

from __future__ import annotations

import json

import evaluation_command as command
import numpy as np
import pytest
from PIL import Image

from forethought.experiments.evaluation.evaluate import shareable
from forethought.wrappers.models import SHIPPED


def test_arms_replace_groups_by_option_by_value_and_by_both(tmp_path):
    code = command.run_here(
        tmp_path,
        "init_states=0-1",
        "workers=1",
        "planner.simulations=8",
        "arms.steady={policy: fake_steady, planner: none}",
        "arms.file={planner: fake}",
        "arms.value={planner: {simulations: 2}}",
        "arms.both={planner: {option: fake, simulations: 3}}",
    )
    assert code == 0
    settings = command.summary(tmp_path)["settings"]
    assert list(settings) == ["policy", "fake", "steady", "file", "value", "both"]
    budgets = {name: arm["parts"].get("planner", {}).get("simulations") for name, arm in settings.items()}
    assert budgets == {"policy": None, "fake": 8, "steady": None, "file": 4, "value": 2, "both": 3}
    assert settings["steady"]["parts"]["policy"]["noise"] == 0.5
    assert settings["steady"]["choices"]["policy"] == "fake_steady"
    assert set(settings["steady"]["parts"]) == {"policy", "controller"}
    assert set(command.summary(tmp_path)["paired"]) == {"fake", "steady", "file", "value", "both"}


def test_a_stored_command_knows_nothing_of_the_machine():
    words = ["forethought", "eval", "models=/home/me/runs/mine", "out=/scratch/there", "seed=3"]
    assert shareable(words) == ["forethought", "eval", "models=mine", "seed=3"]


def test_shipped_weights_go_by_name_also_within_a_value():
    folder = SHIPPED / "libero_object_images"
    word = f'++arms.other={{reward: {{folder: {folder}}}, memory: {{folder: "{folder}"}}}}'
    name = "${checkpoint:libero_object_images}"
    expected = f'++arms.other={{reward: {{folder: {name}}}, memory: {{folder: "{name}"}}}}'
    assert shareable([word]) == [expected]


def test_summary_says_how_it_came_about(tmp_path):
    command.run_here(tmp_path, "init_states=0", "seed=3")
    summary = command.summary(tmp_path)
    assert summary["command"].startswith("forethought eval --config-name eval_fake --config-dir ")
    assert summary["command"].endswith("fake_configs init_states=0 seed=3")
    assert (summary["seed"], summary["init_states"]) == (3, "0")
    assert summary["benchmark"]["convention"] == "fake"
    assert summary["versions"]["forethought"]
    assert summary["settings"]["fake"]["facts"]["world_model"]["privileged_supervision"] is True
    assert summary["settings"]["fake"]["facts"]["reward"]["scheme"] == "distance"


def test_the_policy_alone_needs_no_models(tmp_path):
    assert command.run_here(tmp_path, "planner=none", "world_model=latent", "init_states=0-1") == 0
    assert list(command.summary(tmp_path)["arms"]) == ["policy"]


def test_a_sweep_ends_in_one_joined_table(tmp_path):
    code, out, err = command.run(tmp_path, "-m", "planner.simulations=1,8,0", "init_states=0-4")
    (joined,) = tmp_path.glob("runs/sweeps/eval/*/joined.json")
    content = json.loads(joined.read_text())
    budgets = [run["settings"]["fake"]["parts"]["planner"]["simulations"] for run in content["runs"]]
    assert budgets == [1, 8]
    last = out[out.rindex("\nsweep ") :]
    assert "planner.simulations=1" in last
    assert "planner.simulations=8" in last
    assert "init_states" not in last  # what all jobs share is not repeated
    assert last.count("policy ") == 1  # the baseline is the same in all jobs: run once, shown once
    assert len(command.rows(tmp_path)) == 3 * 10
    # The job that could not run is named, and the others are not lost.
    assert code == 2
    assert "simulations must be 1 or more" in last
    assert "Traceback" not in err


def test_filmstrips_show_an_episode_that_only_search_solves(tmp_path):
    assert command.run_here(tmp_path, "filmstrips=1", "film.camera_size=32") == 0
    (path,) = tmp_path.glob("runs/eval/fake/filmstrips/*.png")
    picture = Image.open(path)
    assert picture.width > 8 * 32
    assert picture.height > 2 * 32
    assert len(np.unique(np.asarray(picture))) > 2


@pytest.mark.slow
def test_a_sweep_runs_its_jobs_side_by_side(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    code, out, err = command.run(
        tmp_path,
        *("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        *("planner.simulations=1,2", "init_states=0-1", "workers=1"),
    )
    assert code == 0, err
    assert "planner.simulations=2" in out[out.rindex("\nsweep ") :]
    assert len(command.rows(tmp_path)) == 3 * 4
