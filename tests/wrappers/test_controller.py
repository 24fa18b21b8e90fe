"""The controller drives a robot: whatever breaks, an action comes back, and it is the right one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from controller_fakes import SEEDS, Raising, own_chunk
from hypothesis import given
from hypothesis import strategies as st

from forethought.interfaces import ActionSamples, ActionSpec, Decision, ForethoughtError, Observation
from forethought.wrappers.controller import PROBLEMS, Controller
from forethought.wrappers.guard import Guard


def test_without_a_planner_the_policys_own_chunk_is_executed(policy, observe):
    decision = Controller(policy, None).decide(observe(2), np.array([1, 2]))
    assert np.array_equal(decision.chunk, own_chunk(2))
    assert not decision.overridden.any()
    assert not decision.fallback.any()
    assert policy.asked == [1]


def test_a_good_plan_is_executed_and_timed(policy, planner, observe):
    controller = Controller(policy, planner(), samples=5)
    decision = controller.decide(observe(), SEEDS)
    assert np.allclose(decision.chunk[0, :, 0], [0.1, 0.2, 0.3, 0.4])
    assert decision.overridden.all()
    assert policy.asked == [5]
    assert {"policy", "encode", "search", "guard"} <= set(decision.milliseconds)
    assert decision.milliseconds["search"] == 2.0
    assert not controller.counters


@pytest.mark.parametrize("steps", [1, 3, 4, None])
def test_only_the_first_steps_are_executed_before_the_next_look(policy, planner, observe, steps):
    told = []

    class Notices(Guard):
        def notice(self, observation, executed, milliseconds):
            told.append(executed)

    plans = planner()
    plans.executed = lambda actions, rows: told.append(actions)
    controller = Controller(policy, plans, guard=Notices(policy.action_spec), execution_horizon=steps)
    whole = Controller(policy, planner()).decide(observe(2), np.array([1, 2])).chunk
    for _ in range(2):
        decision = controller.decide(observe(2), np.array([1, 2]))
        np.testing.assert_array_equal(decision.chunk, whole[:, :steps])
    # In the second decision planner and guard hear what was executed after the first.
    for executed in told[2:]:
        np.testing.assert_array_equal(executed, whole[:, :steps])
    assert len(told) == 4
    np.testing.assert_array_equal(controller._last, whole[:, :steps][:, -1])
    controller._propose = None
    assert controller.decide(observe(2), np.array([1, 2])).chunk.shape == whole[:, :steps].shape


@pytest.mark.parametrize("steps", [0, 5, -1, 2.0, True, "2"])
def test_more_steps_than_a_chunk_has_are_refused(policy, steps):
    with pytest.raises(ForethoughtError, match="1 to 4"):
        Controller(policy, None, execution_horizon=steps)


def nan_chunk(decision: Decision) -> Decision:
    chunk = decision.chunk.copy()
    chunk[0, 1, 2] = np.nan
    return replace(decision, chunk=chunk)


BROKEN_PLANS: dict[str, Callable[[Decision], Any]] = {
    "NaN in the chunk": nan_chunk,
    "infinity in the chunk": lambda d: replace(d, chunk=d.chunk + np.inf),
    "NaN in the value": lambda d: replace(d, value=d.value * np.nan),
    "NaN in the policy's value": lambda d: replace(d, policy_value=d.policy_value * np.nan),
    "a chunk too short": lambda d: replace(d, chunk=d.chunk[:, :2]),
    "an action too small": lambda d: replace(d, chunk=d.chunk[..., :3]),
    "a row too many": lambda d: replace(d, chunk=np.concatenate([d.chunk, d.chunk])),
    "a slot of a wrong shape": lambda d: replace(d, slot=np.zeros((1, 2))),
    "nothing": lambda d: None,
    "an array": lambda d: d.chunk,
    "words": lambda d: replace(d, chunk=np.full((1, 4, 7), "left")),
    "timings that are no mapping": lambda d: replace(d, milliseconds=3.0),
}


@pytest.mark.parametrize("change", BROKEN_PLANS.values(), ids=BROKEN_PLANS)
def test_a_plan_that_is_nonsense_gives_the_policys_own_chunk(policy, planner, observe, change):
    controller = Controller(policy, planner(change))
    decision = controller.decide(observe(), SEEDS)
    assert np.array_equal(decision.chunk, own_chunk())
    assert decision.fallback.all()
    assert not decision.overridden.any()
    assert np.isnan(decision.value).all()
    assert decision.reason[0].startswith("fallback")
    assert controller.counters == {"planner": 1}


def test_each_row_of_a_plan_is_judged_by_itself(policy, planner, observe):
    def two_troubles(decision: Decision) -> Decision:
        value = decision.value.copy()
        value[2] = np.nan
        return replace(nan_chunk(decision), value=value)

    decision = Controller(policy, planner(two_troubles)).decide(observe(3), np.arange(3))
    assert decision.fallback.tolist() == [True, False, True]
    assert decision.overridden.tolist() == [False, True, False]


def test_a_planner_that_gives_up_by_itself_is_counted_and_the_policys_chunk_taken(policy, planner, observe):
    def give_up(decision: Decision) -> Decision:
        return replace(decision, fallback=np.array([True]), value=np.array([np.nan]), reason=("no memory",))

    controller = Controller(policy, planner(give_up))
    decision = controller.decide(observe(), SEEDS)
    assert np.array_equal(decision.chunk, own_chunk())
    assert decision.reason == ("no memory",)
    assert controller.counters == {"planner": 1}


def test_a_planner_that_raises_gives_the_policys_own_chunk(policy, observe):
    controller = Controller(policy, Raising())
    decision = controller.decide(observe(3), np.arange(3))
    assert np.array_equal(decision.chunk, own_chunk(3))
    assert decision.fallback.all()
    assert "out of memory" in decision.reason[0]
    assert controller.counters == {"planner": 3}


def test_a_planner_that_writes_into_the_samples_does_not_change_the_policys_chunk(policy, observe):
    class Vandal:
        def plan(self, observation, samples, seeds):
            samples.chunks[...] = -1.0
            raise ValueError

    assert np.array_equal(Controller(policy, Vandal()).decide(observe(), SEEDS).chunk, own_chunk())


def test_rows_with_a_nan_observation_are_not_planned_on_and_their_neighbours_are(policy, planner, observe):
    plans = planner()
    controller = Controller(policy, plans)
    decision = controller.decide(observe(3, broken=[1]), np.array([10, 11, 12]))
    assert decision.overridden.tolist() == [True, False, True]
    assert decision.fallback.tolist() == [False, True, False]
    assert np.array_equal(decision.chunk[1], own_chunk()[0])
    assert plans.calls[0].tolist() == [10, 12]
    assert controller.counters == {"observation": 1}


@pytest.mark.parametrize(
    "observation",
    [
        None,
        "a string",
        Observation({}, np.zeros(8, np.float32), ("one",)),
        Observation({"c": np.zeros((2, 4, 4, 3), np.uint8)}, np.zeros((1, 8), np.float32), ("one",)),
        Observation({}, np.array([["x"]], dtype=object), ("one",)),
    ],
)
def test_a_malformed_observation_gives_the_policys_own_chunk(policy, planner, observation):
    controller = Controller(policy, planner())
    decision = controller.decide(observation, SEEDS)
    assert np.array_equal(decision.chunk, own_chunk())
    assert controller.counters == {"observation": 1}


def test_a_late_planner_is_given_up_and_the_next_decision_does_not_wait_for_it(policy, planner, observe):
    end = threading.Event()

    def stuck(decision: Decision) -> Decision:
        end.wait(60)
        return decision

    plans = planner(stuck)
    controller = Controller(policy, plans, deadline_ms=40)
    start = time.perf_counter()
    for _ in range(3):
        decision = controller.decide(observe(), SEEDS)
        assert np.array_equal(decision.chunk, own_chunk())
        assert decision.fallback.all()
    assert time.perf_counter() - start < 30
    assert controller.counters == {"deadline": 3}
    end.set()
    controller.deadline_ms = 60_000
    while controller.decide(observe(), np.array([7])).fallback.all():
        time.sleep(0.01)
    assert [int(seeds[0]) for seeds in plans.calls] == [1, 7]  # nothing piled up meanwhile


def test_a_planner_is_followed_again_once_the_late_call_is_over(policy, planner, observe):
    end = threading.Event()

    def late_at_first(decision: Decision) -> Decision:
        end.wait(60)
        return decision

    controller = Controller(policy, planner(late_at_first), deadline_ms=20)
    assert controller.decide(observe(), SEEDS).fallback.all()
    end.set()
    controller.deadline_ms = 60_000
    for _ in range(200):
        if not (decision := controller.decide(observe(), SEEDS)).fallback.all():
            break
        time.sleep(0.05)
    assert decision.overridden.all()


def test_a_reasoner_that_raises_leaves_the_observation_as_it_came(policy, planner, observe):
    controller = Controller(policy, planner(), reasoner=Raising())
    assert controller.decide(observe(), SEEDS).overridden.all()
    assert controller.counters == {"reasoner": 1}


def test_a_reasoner_changes_what_policy_and_planner_see(policy, planner, observe):
    class Rephrase:
        def consider(self, observation):
            return replace(observation, instruction=("open the drawer",))

    seen = []
    plans = planner()
    original = plans.plan
    plans.plan = lambda observation, *rest: (seen.append(observation), original(observation, *rest))[1]
    Controller(policy, plans, reasoner=Rephrase()).decide(observe(), SEEDS)
    assert seen[0].instruction == ("open the drawer",)


def test_a_guard_that_raises_does_not_stop_the_robot(policy, planner, observe):
    controller = Controller(policy, planner(), guard=Raising())
    assert controller.decide(observe(), SEEDS).overridden.all()
    assert controller.counters == {"guard": 1}


def test_a_plan_that_the_guard_rejects_gives_the_policys_own_chunk(policy, planner, observe, spec):
    far = planner(lambda decision: replace(decision, chunk=decision.chunk + 5.0))
    controller = Controller(policy, far, guard=Guard(spec, clip=False))
    decision = controller.decide(observe(), SEEDS)
    assert np.array_equal(decision.chunk, own_chunk())
    assert decision.reason[0].startswith("guard")
    assert controller.counters == {"guard": 1}


def test_chunks_are_clipped_to_the_bounds_by_default(observe, spec):
    class Far:
        action_spec, horizon = spec, 4

        def propose(self, observation, n, seeds):
            return ActionSamples(np.full((1, n, 4, 7), 9.0, np.float32))

    assert np.array_equal(Controller(Far(), None).decide(observe(), SEEDS).chunk, np.ones((1, 4, 7)))


@pytest.mark.parametrize("seeds", [None, np.array([1.5]), np.array([1, 2]), "x"])
def test_seeds_that_do_not_fit_are_replaced_and_counted(policy, planner, observe, seeds):
    controller = Controller(policy, planner())
    assert controller.decide(observe(), seeds).overridden.all()
    assert controller.counters == {"seeds": 1}


def test_each_kind_of_problem_is_logged_once_and_counted_every_time(policy, observe, caplog):
    controller = Controller(policy, Raising())
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            controller.decide(observe(), SEEDS)
    assert len(caplog.records) == 1
    assert "out of memory" in caplog.text
    assert controller.counters["planner"] == 5


@given(
    batch=st.integers(1, 3),
    fails=st.sets(st.sampled_from(["policy", "planner", "reasoner", "guard", "observation"])),
)
def test_an_action_inside_the_bounds_comes_back_whatever_fails(batch, fails):
    spec = ActionSpec(np.full(7, -1.0), np.ones(7), (0, 1, 2), (3, 4, 5), (6,))

    class Wild:
        action_spec, horizon = spec, 4

        def propose(self, observation, n, seeds):
            return ActionSamples(
                np.random.default_rng(0).normal(0, 9, (len(seeds), n, 4, 7)).astype(np.float32)
            )

    policy = Wild()
    controller = Controller(
        policy,
        Raising() if "planner" in fails else None,
        reasoner=Raising() if "reasoner" in fails else None,
        guard=Raising() if "guard" in fails else None,
    )
    if "policy" in fails:
        controller.policy = Raising()
    proprioception = np.full((batch, 8), np.nan if "observation" in fails else 0.0, np.float32)
    decision = controller.decide(Observation({}, proprioception, ("a",) * batch), np.arange(batch))
    assert decision.chunk.shape == (batch, 4, 7)
    assert np.isfinite(decision.chunk).all()
    assert (np.abs(decision.chunk) <= 1).all()
    assert set(controller.counters) <= set(PROBLEMS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"samples": 0}, "samples"),
        ({"deadline_ms": 0}, "deadline_ms"),
        ({"deadline_ms": float("nan")}, "deadline_ms"),
        ({"reasoner": object()}, "consider"),
        ({"guard": object()}, "check"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_the_episode(policy, arguments, words):
    with pytest.raises(ForethoughtError, match=words):
        Controller(policy, None, **arguments)


def test_a_policy_without_the_protocol_is_refused_before_the_episode():
    with pytest.raises(ForethoughtError, match="wrap"):
        Controller(lambda observation: 0, None)


def test_reset_reaches_policy_and_planner_and_forget_spares_the_policy(policy, planner):
    plans = planner()
    controller = Controller(policy, plans)
    controller.reset()
    controller.forget()
    assert (policy.resets, plans.resets) == (1, 2)
