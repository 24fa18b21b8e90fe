"""The whole command on a toy world, undisturbed and killed again and again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from forethought.experiments.cli import main

HERE = Path(__file__).resolve().parent
FLAGS = ["--config-dir", str(HERE / "toy_configs"), "--config-name", "improve_toy"]


def run_here(folder: Path, *arguments: str) -> int:
    """With one thread, as in ``start``: sums of several threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.chdir(folder):
            return main(["improve", *FLAGS, *arguments])
    finally:
        torch.set_num_threads(before)


def start(folder: Path) -> subprocess.Popen[bytes]:
    tests = [str(HERE.parent / name) for name in ("diagnosis", "training")]
    path = os.pathsep.join([*tests, *(entry for entry in sys.path if entry)])
    return subprocess.Popen(
        [sys.executable, "-m", "forethought.experiments.cli", "improve", *FLAGS],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def records(folder: Path) -> list[dict[str, Any]]:
    """What the rounds say of themselves, without what the clock decides."""
    found = []
    for path in sorted((folder / "out").glob("round*/round.json")):
        record = json.loads(path.read_text())
        for step in ("collect", "train", "evaluate"):
            record[step].pop("seconds")
        found.append(record)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run_here(folder) == 0
    return folder


def test_each_round_is_a_folder_with_its_lineage(undisturbed):
    first, second = records(undisturbed)
    assert (first["collect"]["search"], second["collect"]["search"]) == (False, True)
    assert (first["collect"]["episodes"], second["collect"]["episodes"]) == (20, 10)
    assert 0 < first["collect"]["successes"] < 20
    assert second["collect"]["models"] == "round00/models"
    assert second["collect"]["models_digest"] == first["train"]["models_digest"]
    assert second["train"]["rollouts"] == ["round00/data", "round01/data"]
    assert second["train"]["models_digest"] != first["train"]["models_digest"]
    assert first["train"]["options"]["encoder_steps"] == 30
    assert first["evaluate"]["episodes"] == second["evaluate"]["episodes"] == 5
    assert first["evaluate"]["alone"] == second["evaluate"]["alone"]
    for name in ("data/collection.json", "models/config.json", "evaluation/summary.json"):
        assert (undisturbed / "out/round01" / name).is_file()
    source = json.loads((undisturbed / "out/round01/data/collection.json").read_text())["source"]
    assert source["options"]["label"] == "planned"
    assert source["options"]["policy"]["policy"]["_target_"] == "reach_world.ReachPolicy"
    assert json.loads((undisturbed / "out/improve.json").read_text())["best"]["models"].endswith("/models")


def test_killed_anywhere_it_ends_the_same(undisturbed, tmp_path):
    landmarks = ["round00/data/*.hdf5", "round00/models/stages/encoder.pt"]
    landmarks += ["round00/models/config.json", "round01/data/*.hdf5", "round01/models/memory.safetensors"]
    for landmark in landmarks:
        process = start(tmp_path)
        deadline = time.monotonic() + 240
        while not any((tmp_path / "out").glob(landmark)) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert run_here(tmp_path) == 0
    assert records(tmp_path) == records(undisturbed)


def test_judging_by_what_was_learned_from_is_refused(tmp_path, capsys):
    assert run_here(tmp_path, "init_states=15-25") == 2
    assert "both collected from" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_states_kept_for_final_tables_are_refused(tmp_path, capsys):
    assert run_here(tmp_path, "init_states=28-31") == 2
    assert "kept for final tables" in " ".join(capsys.readouterr().err.replace("│", " ").split())
