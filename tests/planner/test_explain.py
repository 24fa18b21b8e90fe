"""A decision explains itself in plain text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_fakes import ARM, arm_planner, observe, policy_samples

from forethought.interfaces import Candidates, Decision, ForethoughtError
from forethought.planner import explain


def decision_of(value, slot=0, visits=None, fallback=False, times=None) -> Decision:
    value = np.asarray(value, np.float32)[None]
    count = value.shape[1]
    candidates = Candidates(
        chunks=np.zeros((1, count, 2, 7), np.float32),
        source=np.minimum(np.arange(count), 2).astype(np.int8)[None],
        source_names=("policy", "policy_kernels", "averaged"),
        prior=np.full((1, count), 1 / count, np.float32),
        value=value,
        visits=np.ones((1, count), np.int32) if visits is None else np.asarray(visits, np.int32)[None],
    )
    return Decision(
        chunk=np.zeros((1, 2, 7), np.float32),
        slot=np.array([slot], np.int32),
        value=value[:, slot],
        policy_value=value[:, 0],
        overridden=np.array([slot != 0]),
        fallback=np.array([fallback]),
        reason=("search: averaged is better by 0.250",),
        simulations=np.array([count], np.int32),
        milliseconds=times or {},
        candidates=candidates,
    )


def test_it_says_what_is_executed_why_and_what_else_there_was():
    text = explain(decision_of([0.5, 0.4, 0.75, np.nan, -np.inf], 2, [3, 1, 4, 0, 0], times={"search": 2.34}))
    assert (
        text
        == """\
executes candidate 2: search: averaged is better by 0.250
value 0.750, the policy's own 0.500, 5 simulations
milliseconds: search 2.3

source          offered   best   mean  visits
policy                1  0.500  0.500       3
policy_kernels        1  0.400  0.400       1
averaged              3  0.750  0.750       4

candidate  source          value  over policy  visits  prior
        2  averaged        0.750       +0.250       4  0.200  executed
        0  policy          0.500       +0.000       3  0.200
        1  policy_kernels  0.400       -0.100       1  0.200
        3  averaged            -            -       0  0.200
        4  averaged          out            -       0  0.200"""
    )


def test_the_policys_own_and_the_chosen_candidate_are_always_shown():
    value = [0.1, *np.linspace(0.9, 0.2, 20)]
    text = explain(decision_of(value, slot=20), most=3)
    table = text.split("candidate  ")[1].splitlines()[1:]
    assert [int(line.split()[0]) for line in table[:-1]] == [1, 2, 3, 20, 0]
    assert table[-1] == "and 16 more"


def test_a_policy_that_is_kept_and_a_fallback_say_so():
    assert explain(decision_of([0.5, 0.4])).startswith("executes the policy's own chunk: ")
    failed = replace(decision_of([0.5, 0.4], fallback=True), candidates=None)
    text = explain(failed)
    assert text.startswith("executes the policy's own chunk, as a fallback: ")
    assert text.endswith("no candidates were compared")


def test_a_row_that_is_not_there_is_refused():
    with pytest.raises(ForethoughtError, match="rows 0..0; got row=1"):
        explain(decision_of([0.5]), 1)


@pytest.mark.parametrize("name", ["forethought", "vla_reasoner", "best_of_n"])
def test_every_planners_decisions_can_be_explained(name):
    decision = arm_planner(name, simulations=16).plan(
        observe(np.zeros((2, 7))), policy_samples(ARM, 2, 6, 8), np.arange(2)
    )
    for row in range(2):
        text = explain(decision, row)
        assert decision.reason[row] in text
        assert all(
            decision.candidates.source_names[source] in text
            for source in np.unique(decision.candidates.source[row])
        )


@settings(max_examples=60, deadline=None)
@given(
    value=st.lists(
        st.one_of(st.floats(0, 1, width=32), st.sampled_from([np.nan, -np.inf])), min_size=1, max_size=12
    ),
    slot=st.integers(0, 11),
    most=st.integers(0, 15),
)
def test_any_candidates_give_a_text_with_straight_columns(value, slot, most):
    text = explain(decision_of(value, slot % len(value)), most=most)
    assert "nan" not in text and "inf" not in text
    assert not any(line != line.rstrip() for line in text.splitlines())
