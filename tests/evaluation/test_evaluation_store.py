"""Episodes survive, and files that cannot be trusted are refused."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace

import pytest

from forethought.experiments.evaluation.plan import Episode
from forethought.experiments.evaluation.store import EpisodeResult, EpisodeStore, prepare_folder
from forethought.interfaces import ForethoughtError

EPISODE = Episode("policy", "key", 2, "reach", 30, 1234567890123456789)
RESULT = EpisodeResult(True, 80, 10, 3, 1, {"planner": 1}, {"search": [1.5, 2.25]}, {"total": 2.5})


def test_an_episode_comes_back_as_it_was(tmp_path):
    with EpisodeStore(tmp_path / "e.sqlite") as store:
        store.add(EPISODE, RESULT)
    with EpisodeStore(tmp_path / "e.sqlite") as store:
        assert store.finished([EPISODE]) == {EPISODE: RESULT}


def test_an_episode_is_kept_once_and_as_it_was_first(tmp_path):
    with EpisodeStore(tmp_path / "e.sqlite") as store:
        store.add(EPISODE, RESULT)
        store.add(EPISODE, replace(RESULT, success=False))
        assert store.finished([EPISODE]) == {EPISODE: RESULT}
    rows = sqlite3.connect(tmp_path / "e.sqlite").execute("SELECT count(*) FROM episodes").fetchone()
    assert rows == (1,)


@pytest.mark.parametrize(
    "change", [{"key": "other"}, {"arm": "x"}, {"init_state": 31}, {"task_id": 0}, {"seed": 1}]
)
def test_an_episode_of_another_arm_setting_task_state_or_seed_does_not_count(tmp_path, change):
    with EpisodeStore(tmp_path / "e.sqlite") as store:
        store.add(EPISODE, RESULT)
        assert store.finished([replace(EPISODE, **change)]) == {}


def test_an_episode_is_on_disk_before_the_store_is_closed(tmp_path):
    store = EpisodeStore(tmp_path / "e.sqlite")
    store.add(EPISODE, RESULT)
    with EpisodeStore(tmp_path / "e.sqlite") as other:
        assert other.finished([EPISODE])


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "e.sqlite").write_bytes(b"half of something else" * 100)
    with pytest.raises(ForethoughtError, match=r"not a readable results database.*out="):
        EpisodeStore(tmp_path / "e.sqlite")


def test_a_truncated_database_is_refused(tmp_path):
    path = tmp_path / "e.sqlite"
    with EpisodeStore(path) as store:
        for state in range(300):
            store.add(replace(EPISODE, init_state=state), RESULT)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ForethoughtError, match="not a readable results database"):
        EpisodeStore(path)


def test_a_database_of_somebody_else_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "e.sqlite") as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(ForethoughtError, match="layout 0"):
        EpisodeStore(tmp_path / "e.sqlite")


def test_a_later_layout_is_refused(tmp_path):
    EpisodeStore(tmp_path / "e.sqlite")
    with sqlite3.connect(tmp_path / "e.sqlite") as later:
        later.execute("PRAGMA user_version=99")
    with pytest.raises(ForethoughtError, match="layout 99"):
        EpisodeStore(tmp_path / "e.sqlite")


def test_a_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ForethoughtError, match=r"cannot|not a folder"):
        prepare_folder(tmp_path / "file" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ForethoughtError, match="permissions"):
        prepare_folder(tmp_path)
