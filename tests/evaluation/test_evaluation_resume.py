"""However an evaluation is stopped, starting it again gives the table of an undisturbed run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import evaluation_command as command
import pytest


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    code, _, err = command.run(folder)
    assert code == 0, err
    return folder


def kill_after(folder: Path, episodes: int) -> None:
    """Starts the evaluation and kills it without warning once so many episodes are written."""
    process = command.start(folder, FAKE_SLEEP_MS="15")
    deadline = time.monotonic() + 60
    while len(command.rows(folder)) < episodes:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)


def test_kill_and_restart_loses_no_episode_and_repeats_none(tmp_path, undisturbed):
    for episodes in (0, 1, 17):
        kill_after(tmp_path, episodes)
    kept = command.rows(tmp_path)
    assert 17 <= len(kept) < 40
    code, out, err = command.run(tmp_path)
    assert code == 0, err
    assert f"{len(kept)} of 40 episodes" in out
    assert command.summary(tmp_path)["pace"]["episodes"] == 40 - len(kept)
    assert command.rows(tmp_path) == command.rows(undisturbed)
    assert command.table(tmp_path) == command.table(undisturbed)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    process = command.start(tmp_path, FAKE_SLEEP_MS="15")
    workers: list[int] = []
    deadline = time.monotonic() + 60
    while len(workers) < 2 or not command.rows(tmp_path):
        assert time.monotonic() < deadline
        workers = [pid for pid in _children(process.pid) if "spawn_main" in _command_line(pid)]
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    while any("spawn_main" in _command_line(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_same_seed_gives_the_same_episodes_whatever_the_number_of_workers(tmp_path, undisturbed):
    code, _, err = command.run(tmp_path, "workers=1")
    assert code == 0, err
    assert command.rows(tmp_path) == command.rows(undisturbed)


def test_another_seed_gives_other_episodes(tmp_path, undisturbed):
    command.run(tmp_path, "seed=1", "init_states=0-4")
    seeds = {row[4] for row in command.rows(tmp_path)}
    assert len(seeds) == 10
    assert not seeds & {row[4] for row in command.rows(undisturbed)}


def test_other_settings_in_the_same_folder_do_not_mix_and_the_baseline_is_not_run_again(tmp_path):
    command.run(tmp_path, "init_states=0-2")
    before = command.rows(tmp_path)
    code, out, _ = command.run(tmp_path, "init_states=0-2", "planner.simulations=2")
    assert code == 0
    assert "6 of 12 episodes" in out
    assert len(command.rows(tmp_path)) == len(before) + 6
    assert command.summary(tmp_path)["arms"]["fake"]["episodes"] == 6


def test_an_episode_whose_worker_dies_is_run_again(tmp_path, undisturbed):
    crash = tmp_path / "crash"
    crash.write_text("")
    code, _, err = command.run(tmp_path, FAKE_CRASH=str(crash))
    assert code == 0, err
    assert not crash.exists()
    assert command.rows(tmp_path) == command.rows(undisturbed)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(child) for child in text.split()]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""
