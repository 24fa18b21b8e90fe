"""Which episodes an evaluation consists of, and their seeds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from forethought.experiments.evaluation.arms import Arm
from forethought.experiments.evaluation.plan import parse_indices, plan_episodes
from forethought.experiments.evaluation.seeds import decision_seed, episode_seed
from forethought.interfaces import ForethoughtError

ARMS = [(Arm(name, {}, {}), f"key of {name}") for name in ("policy", "forethought")]
TASKS = [SimpleNamespace(id=i, name=f"task {i}", init_states=50) for i in (0, 3)]


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        ("all", (0, 1, 2, 3, 4)),
        (3, (3,)),
        ("1-3", (1, 2, 3)),
        ("0-1,4", (0, 1, 4)),
        ([4, 0, "1-2"], (0, 1, 2, 4)),
        ("2,2,2", (2,)),
    ],
)
def test_indices_are_written_as_ranges_numbers_or_lists(value, indices):
    assert parse_indices(value, "tasks", 5) == indices


@pytest.mark.parametrize("value", ["3-9", "a", "", "5", "3-1", []])
def test_indices_that_do_not_exist_are_refused_by_name(value):
    with pytest.raises(ForethoughtError, match="tasks="):
        parse_indices(value, "tasks", 5)


def test_every_task_init_state_and_arm_meet_once():
    episodes = plan_episodes(tasks=TASKS, init_states="30-31", arms=ARMS, seed=0, benchmark="b")
    met = {(e.task_id, e.init_state, e.arm) for e in episodes}
    assert len(episodes) == len(met) == 2 * 2 * 2


def test_paired_episodes_share_their_seed_and_no_others_do():
    episodes = plan_episodes(tasks=TASKS, init_states="0-9", arms=ARMS, seed=0, benchmark="b")
    seeds = {(e.task_id, e.init_state): set() for e in episodes}
    for episode in episodes:
        seeds[episode.task_id, episode.init_state].add(episode.seed)
    assert all(len(of_pair) == 1 for of_pair in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds)


def test_repeats_are_further_episodes_with_seeds_of_their_own():
    once = plan_episodes(tasks=TASKS, init_states="30-31", arms=ARMS, seed=0, benchmark="b")
    thrice = plan_episodes(tasks=TASKS, init_states="30-31", arms=ARMS, seed=0, benchmark="b", repeats=3)
    assert set(once) < set(thrice)
    assert len(set(thrice)) == 3 * len(once)
    assert len({episode.seed for episode in thrice}) == 3 * 4


def test_no_episode_at_all_is_refused():
    with pytest.raises(ForethoughtError, match="repeats=0"):
        plan_episodes(tasks=TASKS, init_states="30-31", arms=ARMS, seed=0, benchmark="b", repeats=0)


def test_seeds_stay_the_same_for_ever():
    assert episode_seed(0, "libero_object", "pick_up_the_milk", 30) == 3220524761502480939
    assert decision_seed(3220524761502480939, 1) == 5555141958650193283


def test_seeds_depend_on_the_evaluations_seed():
    assert episode_seed(0, "b", "t", 1) != episode_seed(1, "b", "t", 1)
