"""Rounds go on until the gain stops, and from wherever they were stopped."""

from __future__ import annotations

import json

import pytest

from forethought.experiments.improvement.rounds import Round, best, fruitless, improve
from forethought.interfaces import ForethoughtError


class Script:
    """Steps whose outcomes are given; optionally dies in one of them."""

    def __init__(self, successes, alone=40, die_in=None):
        self.successes, self.alone, self.die_in, self.did = successes, alone, die_in, []

    def _do(self, step, round_, found):
        self.did.append((round_.number, step))
        if (round_.number, step) == self.die_in:
            raise KeyboardInterrupt
        return found

    def collect(self, round_):
        return self._do("collect", round_, {"rounds_before": len(round_.before)})

    def train(self, round_):
        return self._do("train", round_, {})

    def evaluate(self, round_):
        found = {"successes": self.successes[round_.number], "episodes": 100, "alone": self.alone}
        return self._do("evaluate", round_, found)


def run(out, steps, **options):
    settings = {"rounds": 6, "patience": 1, "least_gain": 0.02, "settings": {"seed": 0}} | options
    return improve(out, steps, **settings)


def test_it_stops_when_the_gain_does(tmp_path):
    rounds = run(tmp_path, Script([50, 60, 61, 90]))
    assert [one.number for one in rounds] == [0, 1, 2]
    assert best(rounds).number == 2
    overview = json.loads((tmp_path / "improve.json").read_text())
    assert overview["best"] == {"round": 2, "models": "round02/models", "rate": 0.61}
    assert overview["rounds_without_gain"] == 1


def test_it_does_not_end_before_the_round_it_must_reach(tmp_path):
    assert len(run(tmp_path / "a", Script([10, 99]))) == 1
    assert len(run(tmp_path / "b", Script([10, 11, 99]), not_before=1)) == 2
    assert len(run(tmp_path / "c", Script([10, 60, 61, 99]), not_before=1)) == 3


def test_patience_outlasts_a_bad_round(tmp_path):
    rounds = run(tmp_path, Script([30, 55, 54, 53, 99]), patience=2)
    assert len(rounds) == 4
    assert best(rounds).number == 1


def test_a_round_that_loses_to_the_policy_alone_is_no_gain(tmp_path):
    assert len(run(tmp_path, Script([39, 90]))) == 1


def test_slow_growth_counts_against_the_best_not_the_last(tmp_path):
    rounds = run(tmp_path, Script([50, 45, 51, 70]), patience=3, rounds=4)
    assert fruitless(rounds[:3], 0.02) == 2
    assert fruitless(rounds, 0.02) == 0


@pytest.mark.parametrize("die_in", [(0, "collect"), (1, "train"), (1, "evaluate"), (2, "collect")])
def test_a_second_start_goes_on_with_the_step_that_was_interrupted(tmp_path, die_in):
    outcomes = [50, 60, 60]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Script(outcomes, die_in=die_in))
    again = Script(outcomes)
    rounds = run(tmp_path, again)
    assert again.did[0] == die_in
    whole = [(number, step) for number in range(3) for step in ("collect", "train", "evaluate")]
    assert again.did == whole[whole.index(die_in) :]
    assert [one.rate for one in rounds] == [0.5, 0.6, 0.6]


def test_a_finished_improvement_does_nothing_again(tmp_path):
    run(tmp_path, Script([50, 50]))
    again = Script([50, 50])
    assert len(run(tmp_path, again)) == 2
    assert not again.did


def test_more_rounds_may_be_asked_for_later(tmp_path):
    run(tmp_path, Script([50]), rounds=1)
    more = Script([50, 60])
    assert len(run(tmp_path, more, rounds=2)) == 2
    assert more.did[0] == (1, "collect")


def test_other_settings_are_refused(tmp_path):
    run(tmp_path, Script([50, 50]))
    with pytest.raises(ForethoughtError, match="seed was 0, is now 1"):
        run(tmp_path, Script([50, 50]), settings={"seed": 1})


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "round00").mkdir()
    (tmp_path / "round00/round.json").write_text("{")
    with pytest.raises(ForethoughtError, match=r"round\.json is not readable"):
        run(tmp_path, Script([50]))


def test_nonsense_is_refused_before_anything_is_done(tmp_path):
    steps = Script([50])
    with pytest.raises(ForethoughtError, match="patience=0"):
        run(tmp_path, steps, patience=0)
    assert not steps.did


def test_two_processes_do_not_share_a_folder(tmp_path):
    class Nested(Script):
        def collect(self, round_: Round):
            with pytest.raises(ForethoughtError, match="Another process"):
                run(tmp_path, Script([1]))
            return super().collect(round_)

    run(tmp_path, Nested([50]), rounds=1)
