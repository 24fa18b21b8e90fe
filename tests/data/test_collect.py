"""Collecting: what is recorded, what is refused, and what an interruption costs."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from forethought.experiments.data.collect import collect
from forethought.experiments.data.hdf5 import read_episodes
from forethought.experiments.data.sources import ExpertSource, PolicySource, disturb
from forethought.interfaces import ForethoughtError

BENCHMARK = {"_target_": "collecting_fakes.LineBenchmark"}
QUIET = PolicySource(
    {"_target_": "collecting_fakes.RightPolicy"}, noise_levels=(0.0,), random_chunk=0.0, gripper_flip=0.0
)


def run(out: Path, source: Any = QUIET, **options: Any) -> Any:
    settings: dict[str, Any] = {"episodes_per_task": 3, "tasks": [0], "quiet": True, **options}
    return collect(BENCHMARK, source, out=out, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.hdf5"))}


def identities(folder: Path) -> list[tuple[int | None, int | None]]:
    return [(episode.task_id, episode.seed) for episode in read_episodes(folder)]


def test_a_policy_episode_holds_frames_at_chunk_boundaries_and_states_at_every_step(tmp_path: Path) -> None:
    result = run(tmp_path, episodes_per_task=2)
    assert (result.episodes, result.successes, result.played) == (2, 2, 2)
    for episode in read_episodes(tmp_path):
        steps = episode.steps
        assert episode.success
        assert (episode.source, episode.noise, episode.instruction) == ("policy", 0.0, "go right 0")
        assert episode.privileged is not None
        assert episode.privileged[:, 0].tolist() == list(range(steps + 1))
        assert episode.proprioception[-1, 0] > 0.5 >= episode.proprioception[-2, 0]
        assert episode.proprioception[0, 0] == pytest.approx(-(episode.init_state or 0) / 100.0)
        expected = [*range(0, steps, 4), steps]
        assert episode.image_steps.tolist() == expected
        assert episode.images("agentview_rgb")[:, 0, 0, 0].tolist() == expected


def test_more_frames_than_decisions_change_no_action(tmp_path: Path) -> None:
    noisy = PolicySource({"_target_": "collecting_fakes.RightPolicy"}, random_chunk=0.3)
    run(tmp_path / "chunks", noisy)
    run(tmp_path / "halves", dataclasses.replace(noisy, image_stride=2))
    pairs = zip(read_episodes(tmp_path / "chunks"), read_episodes(tmp_path / "halves"), strict=True)
    for chunks, halves in pairs:
        assert np.array_equal(chunks.executed_actions, halves.executed_actions)
        assert halves.image_steps.tolist() == [*range(0, halves.steps, 2), halves.steps]
        seen = halves.images("agentview_rgb")[:, 0, 0, 0]
        assert seen.tolist() == halves.image_steps.tolist()


def test_a_stride_that_misses_decisions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="image_stride=3 does not divide"):
        run(tmp_path, dataclasses.replace(QUIET, image_stride=3))


def test_failures_are_kept(tmp_path: Path) -> None:
    slow = PolicySource(
        {"_target_": "collecting_fakes.RightPolicy", "speed": 0.1}, noise_levels=(0.0,), random_chunk=0.0
    )
    result = run(tmp_path, slow)
    assert (result.episodes, result.successes) == (3, 0)
    assert [(e.success, e.steps) for e in read_episodes(tmp_path)] == [(False, 18)] * 3


def test_where_only_successes_are_kept_a_hopeless_policy_is_an_error(tmp_path: Path) -> None:
    slow = PolicySource(
        {"_target_": "collecting_fakes.RightPolicy", "speed": 0.0}, noise_levels=(0.0,), random_chunk=0.0
    )
    with pytest.raises(ForethoughtError, match="failed 8 times in a row on task 0"):
        run(tmp_path, slow, successes_only=True)


@pytest.mark.parametrize("states", [[30], [0, 49], list(range(50))])
def test_initial_states_reserved_for_evaluation_are_refused(tmp_path: Path, states: list[int]) -> None:
    with pytest.raises(ForethoughtError, match="reserved for evaluation"):
        run(tmp_path / "out", init_states=states)
    assert not (tmp_path / "out").exists()


def test_reserved_states_need_an_explicit_word(tmp_path: Path) -> None:
    run(tmp_path, init_states=[31], allow_evaluation_states=True, episodes_per_task=1)
    assert [e.init_state for e in read_episodes(tmp_path)] == [31]


def test_by_default_no_reserved_state_is_visited_and_every_other_one_is(tmp_path: Path) -> None:
    run(tmp_path, episodes_per_task=30)
    assert sorted(e.init_state or 0 for e in read_episodes(tmp_path)) == list(range(30))


def test_the_number_of_workers_does_not_change_the_data(tmp_path: Path) -> None:
    noisy = PolicySource({"_target_": "collecting_fakes.RightPolicy"})
    for workers in (1, 3):
        run(tmp_path / str(workers), noisy, tasks=None, episodes_per_task=12, workers=workers)
    one, three = (list(read_episodes(tmp_path / str(workers))) for workers in (1, 3))
    assert [e.seed for e in one] == [e.seed for e in three]
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a.actions, b.actions)
    assert len({e.noise for e in one}) == 4


def test_a_second_call_plays_nothing_again(tmp_path: Path) -> None:
    run(tmp_path, episodes_per_task=12)
    before = contents(tmp_path)
    assert run(tmp_path, episodes_per_task=12).played == 0
    assert contents(tmp_path) == before


def test_more_episodes_are_added_to_those_that_are_there(tmp_path: Path) -> None:
    run(tmp_path, episodes_per_task=3)
    before = contents(tmp_path)
    assert run(tmp_path, episodes_per_task=5).played == 2
    assert before.items() <= contents(tmp_path).items()
    assert len(set(identities(tmp_path))) == 5


def test_after_a_kill_only_what_is_missing_is_played_and_nothing_twice(tmp_path: Path) -> None:
    run(tmp_path / "whole", episodes_per_task=25)
    run(tmp_path / "cut", episodes_per_task=25)
    lost, kept = sorted((tmp_path / "cut").glob("*.hdf5"))[1:3]
    half = lost.read_bytes()[:500]
    lost.unlink()
    (tmp_path / "cut" / f"{lost.name}.4711.partial").write_bytes(half)
    stamp = kept.stat().st_mtime_ns
    assert run(tmp_path / "cut", episodes_per_task=25).played == 10
    assert identities(tmp_path / "cut") == identities(tmp_path / "whole")
    assert kept.stat().st_mtime_ns == stamp
    assert not list((tmp_path / "cut").glob("*.partial"))


def test_a_worker_that_dies_is_replaced_and_its_unit_played_again(tmp_path: Path) -> None:
    mark = tmp_path / "crashed"
    policy = {"_target_": "collecting_fakes.RightPolicy", "crash_once": str(mark)}
    result = run(tmp_path / "out", PolicySource(policy), episodes_per_task=4)
    assert mark.exists()
    assert result.episodes == 4
    assert len(set(identities(tmp_path / "out"))) == 4


def test_other_arguments_do_not_mix_into_a_folder(tmp_path: Path) -> None:
    run(tmp_path, episodes_per_task=1)
    with pytest.raises(ForethoughtError, match=r"collected otherwise: seed was 0, is now 1"):
        run(tmp_path, seed=1)
    with pytest.raises(ForethoughtError, match="collected otherwise: source"):
        run(tmp_path, PolicySource({"_target_": "collecting_fakes.RightPolicy"}))


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    h5py.File(tmp_path / "mine.hdf5", "w").close()
    with pytest.raises(ForethoughtError, match="did not collect"):
        run(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ForethoughtError, match="cannot be written"):
        run(tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": [0, 7]}, "has the tasks 0 to 1"),
        ({"tasks": [1, 1]}, "Name each once"),
        ({"tasks": []}, "has the tasks 0 to 1"),
        ({"init_states": []}, "at least one"),
        ({"init_states": [3, 3]}, "distinct"),
        ({"init_states": [50], "allow_evaluation_states": True}, r"has 50 \(0 to 49\)"),
        ({"episodes_per_task": 0}, "at least 1"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ForethoughtError, match=message):
        run(tmp_path, **options)


def test_a_policy_that_cannot_be_built_stops_the_collection(tmp_path: Path) -> None:
    with pytest.raises(ForethoughtError, match="no_such_thing"):
        run(tmp_path, PolicySource({"_target_": "collecting_fakes.no_such_thing"}))


def wait_until_gone(group: int) -> bool:
    """Whether all processes of a group end within ten seconds."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_an_interrupt_leaves_whole_files_and_no_process(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell ignores it
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from forethought.experiments.data.collect import collect\n"
        "from forethought.experiments.data.sources import PolicySource\n"
        "from forethought.interfaces import ForethoughtError\n"
        "if __name__ == '__main__':\n"
        "    policy = {'_target_': 'collecting_fakes.RightPolicy', 'seconds': 0.02}\n"
        "    try:\n"
        "        collect({'_target_': 'collecting_fakes.LineBenchmark'}, PolicySource(policy), workers=2,\n"
        f"                out={str(tmp_path / 'out')!r}, episodes_per_task=500)\n"
        "    except ForethoughtError as error:\n"
        "        print('ERROR', error)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob("*.hdf5")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "ERROR Stopped." in output.replace("\n", " ")
    assert "Traceback" not in output
    assert wait_until_gone(process.pid)
    assert not list((tmp_path / "out").glob("*.partial"))
    assert all(episode.steps for episode in read_episodes(tmp_path / "out"))


def test_noise_is_shared_over_a_chunk_small_on_rotation_and_absent_from_the_gripper() -> None:
    from collecting_fakes import SPEC

    source = PolicySource({"_target_": "x"}, random_chunk=0.0, gripper_flip=0.0)
    generator = np.random.default_rng(0)
    chunk = np.zeros((8, 7), np.float32)
    chunk[:, 6] = 1.0
    drawn = np.stack([disturb(chunk, SPEC, source, 0.1, generator) for _ in range(4000)])
    assert drawn[..., :3].std() == pytest.approx(0.1, rel=0.05)
    assert drawn[..., 3:6].std() == pytest.approx(0.04, rel=0.05)
    assert np.all(drawn[..., 6] == 1.0)
    assert np.corrcoef(drawn[:, 0, 0], drawn[:, 7, 0])[0, 1] == pytest.approx(0.8, abs=0.03)


def test_gripper_flips_and_random_chunks_come_as_often_as_asked() -> None:
    from collecting_fakes import SPEC

    chunk = np.zeros((8, 7), np.float32)
    chunk[:, 6] = 1.0
    generator = np.random.default_rng(0)
    flips = PolicySource({"_target_": "x"}, random_chunk=0.0, gripper_flip=0.25)
    flipped = [disturb(chunk, SPEC, flips, 0.0, generator)[0, 6] < 0 for _ in range(2000)]
    assert np.mean(flipped) == pytest.approx(0.25, abs=0.03)
    random = PolicySource({"_target_": "x"}, random_chunk=0.25, gripper_flip=0.0)
    wild = [np.any(disturb(chunk, SPEC, random, 0.0, generator)[:, :3] != 0) for _ in range(2000)]
    assert np.mean(wild) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PolicySource({}),
        lambda: PolicySource({"_target_": "x"}, noise_levels=()),
        lambda: PolicySource({"_target_": "x"}, noise_levels=(-0.1,)),
        lambda: PolicySource({"_target_": "x"}, random_chunk=1.5),
        lambda: PolicySource({"_target_": "x"}, image_stride=0),
        lambda: ExpertSource(noise=-1.0),
        lambda: ExpertSource(image_stride=0),
        lambda: ExpertSource(early_release=2.0),
    ],
)
def test_sources_that_make_no_sense_are_refused(make: Any) -> None:
    with pytest.raises(ForethoughtError, match="expected"):
        make()
