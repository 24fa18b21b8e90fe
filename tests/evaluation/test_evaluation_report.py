"""The numbers of a summary, against ones worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf
from rich.console import Console

from forethought.experiments.evaluation.evaluate import _contrasts
from forethought.experiments.evaluation.plan import Episode
from forethought.experiments.evaluation.report import compare, contrasts_table
from forethought.experiments.evaluation.statistics import wilson_interval
from forethought.experiments.evaluation.store import EpisodeResult
from forethought.interfaces import ForethoughtError

WHERE = ("task_id", "task", "init_state", "seed")


def result(success, *, overridden=0, search=()):
    latency = {"policy": [10.0] * 4, "guard": [0.1] * 4}
    if search:
        latency["search"] = list(search)
    return EpisodeResult(success, 32, 4, overridden, 1, {}, latency, {"total": 1.0})


def results():
    """Two tasks of two init states: the arm gains one episode in the first task and loses one in the
    second."""
    outcomes = {
        (0, 30): (False, True),
        (0, 31): (True, True),
        (1, 30): (True, False),
        (1, 31): (False, False),
    }
    found = {}
    for (task, state), (alone, searched) in outcomes.items():
        found[Episode("policy", "p", task, f"t{task}", state, 7)] = result(alone)
        search = [1.0, 2.0, 3.0, 4.0 + task]
        found[Episode("search", "s", task, f"t{task}", state, 7)] = result(
            searched, overridden=2, search=search
        )
    return found


def test_summary_has_exactly_the_promised_keys():
    numbers = compare(results(), ["policy", "search"])
    assert set(numbers) == {"arms", "paired", "contrasts", "tasks"}
    assert set(numbers["arms"]) == {"policy", "search"}
    for arm in numbers["arms"].values():
        assert set(arm) == {
            "successes",
            "episodes",
            "wilson95",
            "overridden",
            "decisions",
            "fallbacks",
            "latency_ms",
        }
        assert set(arm["latency_ms"]) == {"policy", "encode", "search", "guard"}
        assert all(set(ms) == {"p50", "p95"} for ms in arm["latency_ms"].values())
    assert set(numbers["paired"]) == {"search"}
    assert set(numbers["paired"]["search"]) == {"gained", "lost", "difference", "mcnemar_p"}
    assert set(numbers["tasks"]) == {"t0", "t1"}
    assert all(set(task) == {"arms", "paired"} for task in numbers["tasks"].values())


def test_counts_and_pairs_add_up():
    numbers = compare(results(), ["policy", "search"])
    arm = numbers["arms"]["search"]
    assert (arm["successes"], arm["episodes"]) == (2, 4)
    assert arm["wilson95"] == pytest.approx(wilson_interval(2, 4))
    assert (arm["overridden"], arm["decisions"], arm["fallbacks"]) == (8, 16, 4)
    assert numbers["paired"]["search"] == {"gained": 1, "lost": 1, "difference": 0.0, "mcnemar_p": 1.0}
    first = numbers["tasks"]["t0"]
    assert first["arms"]["policy"]["successes"] == 1
    assert first["paired"]["search"] == {"gained": 1, "lost": 0, "difference": 0.5, "mcnemar_p": 1.0}


def test_percentiles_are_of_all_decisions_not_of_episodes():
    numbers = compare(results(), ["policy", "search"])
    decisions = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3, 5]
    assert numbers["arms"]["search"]["latency_ms"]["search"] == {
        "p50": pytest.approx(np.percentile(decisions, 50)),
        "p95": pytest.approx(np.percentile(decisions, 95)),
    }
    assert numbers["arms"]["policy"]["latency_ms"]["search"] == {"p50": None, "p95": None}


def test_an_unfinished_pair_counts_for_the_arm_but_not_for_the_comparison():
    found = results()
    del found[Episode("policy", "p", 0, "t0", 30, 7)]
    numbers = compare(found, ["policy", "search"])
    assert numbers["arms"]["search"]["episodes"] == 4
    assert numbers["paired"]["search"]["gained"] == 0
    assert numbers["paired"]["search"]["difference"] == pytest.approx(-1 / 3)


def test_episodes_of_one_init_state_with_different_seeds_are_pairs_of_their_own():
    found = results()
    found |= {
        Episode(e.arm, e.key, e.task_id, e.task, e.init_state, 8): result(e.arm == "search") for e in found
    }
    numbers = compare(found, ["policy", "search"])
    assert numbers["arms"]["policy"]["episodes"] == 8
    assert numbers["paired"]["search"]["gained"] == 1 + 4
    assert numbers["paired"]["search"]["lost"] == 1


def test_arms_are_compared_with_one_another_where_asked():
    found = results()
    for episode in [e for e in found if e.arm == "search"]:
        other = Episode("other", "o", *(getattr(episode, name) for name in WHERE))
        found[other] = result(True)
    numbers = compare(found, ["policy", "search", "other"], {"other": ["search"]})
    assert numbers["contrasts"] == {
        "other": {"against": "search", "gained": 2, "lost": 0, "difference": 0.5, "mcnemar_p": 0.5}
    }
    shown = Console(width=100, record=True)
    shown.print(contrasts_table(numbers))
    assert "+50.0" in shown.export_text()
    both = compare(found, ["policy", "search", "other"], {"other": ["search", "policy"]})["contrasts"]
    assert both["other"] == numbers["contrasts"]["other"]
    assert both["other, policy"]["against"] == "policy"


@pytest.mark.parametrize(
    "contrasts", [{"other": "nobody"}, {"other": ["search", "other"]}, {"nobody": ["search"]}]
)
def test_a_comparison_with_an_arm_that_is_not_there_or_with_itself_is_refused(contrasts):
    with pytest.raises(ForethoughtError, match="must name different arms"):
        _contrasts(OmegaConf.create({"contrasts": contrasts}), ["policy", "search", "other"])
