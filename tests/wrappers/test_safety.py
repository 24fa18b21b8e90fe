"""A chunk that leaves the guard is within the robot's limits, whoever wrote it, and says what changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import forethought
from forethought.interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation
from forethought.wrappers.controller import Controller
from forethought.wrappers.limits import Limits
from forethought.wrappers.safety import DryRun, RobotGuard

HZ = 20.0
SPEC = ActionSpec(
    -np.ones(7), np.ones(7), (0, 1, 2), (3, 4, 5), (6,), position_scale=0.05, rotation_scale=0.5
)


def at(*places: tuple[float, float, float], image: int = 0) -> Observation:
    body = np.zeros((len(places), 8), np.float32)
    body[:, :3] = places
    pictures = np.full((len(places), 4, 4, 3), image, np.uint8)
    return Observation({"front": pictures}, body, ("push",) * len(places))


def chunk(**numbers: float) -> np.ndarray:
    """One chunk of four equal steps; x, y, z, turn and gripper."""
    made = np.zeros((1, 4, 7), np.float32)
    for index, name in ((0, "x"), (1, "y"), (2, "z"), (3, "turn")):
        made[..., index] = numbers.get(name, 0.0)
    made[..., 6] = numbers.get("gripper", -1.0)
    return made


def guarded(limits: Limits, chunks: np.ndarray, observation=None, executed=None, milliseconds=1.0):
    guard = RobotGuard(SPEC, limits)
    guard.notice(observation or at((0.0, 0.0, 0.0)), executed, milliseconds)
    return guard.check(chunks)


def path(report, start=0.0) -> np.ndarray:
    """Places ``[4, 3]`` that a chunk of displacements leads to."""
    return start + 0.05 * np.cumsum(report.chunk[0, :, :3], axis=0)


class TestEachLimit:
    def test_what_is_within_passes_to_the_bit(self):
        limits = Limits(
            HZ, (-1, -1, -1), (1, 1, 1), speed=2, acceleration=50, turn_speed=20, turn_acceleration=500,
            gripper_rate=5, frozen=3, late_ms=500,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        chunks = rng.uniform(-0.5, 0.5, (3, 4, 7)).astype(np.float32)
        chunks[..., 6] = 1.0
        guard = RobotGuard(SPEC, limits)
        guard.notice(at((0, 0, 0), (0.1, 0, 0), (0, 0.2, 0)), None, 1.0)
        report = guard.check(chunks)
        assert np.array_equal(report.chunk, chunks)
        assert report.reason == ("", "", "") and not report.clipped.any() and not report.rejected.any()

    def test_the_end_effector_stops_at_the_wall_and_slides_along_it(self):
        report = guarded(Limits(HZ, (-0.1, -1, -1), (0.1, 1, 1)), chunk(x=1.0, y=0.5))
        assert np.allclose(path(report)[:, 0], [0.05, 0.1, 0.1, 0.1])
        assert np.allclose(path(report)[:, 1], 0.025 * np.arange(1, 5))
        assert report.reason == ("workspace limited",)

    def test_outside_the_box_it_may_only_come_back(self):
        limits = Limits(HZ, (-0.1, -1, -1), (0.1, 1, 1))
        outside = at((0.3, 0.0, 0.0))
        assert np.allclose(guarded(limits, chunk(x=1.0), outside).chunk[..., 0], 0.0)
        assert np.allclose(guarded(limits, chunk(x=-1.0), outside).chunk[..., 0], -1.0)
        beyond = at((-0.3, 0.0, 0.0))
        assert np.allclose(guarded(limits, chunk(x=-1.0), beyond).chunk[..., 0], 0.0)
        assert np.allclose(guarded(limits, chunk(x=0.5), beyond).chunk[..., 0], 0.5)

    def test_without_a_position_there_is_no_workspace_and_no_motion(self):
        guard = RobotGuard(SPEC, Limits(HZ, (-1, -1, -1), (1, 1, 1)))
        guard.notice(None, None, 1.0)
        report = guard.check(chunk(x=0.1))
        assert report.rejected.all() and "position" in report.reason[0]

    def test_a_lost_position_is_reckoned_from_what_was_executed(self):
        guard = RobotGuard(SPEC, Limits(HZ, (-1, -1, -1), (0.5, 1, 1)))
        guard.notice(at((0.25, 0, 0)), None, 1.0)
        guard.notice(at((np.nan, 0, 0)), chunk(x=1.0), 1.0)
        assert np.allclose(path(guard.check(chunk(x=1.0)), 0.45)[:, 0], 0.5)

    def test_speed_is_shortened_in_its_direction(self):
        report = guarded(Limits(HZ, speed=0.5), chunk(x=0.8, y=0.6))  # 1 m/s
        assert np.allclose(report.chunk[0, :, :2], [[0.4, 0.3]] * 4)
        assert report.reason == ("speed limited",)

    def test_turning_has_a_speed_of_its_own(self):
        report = guarded(Limits(HZ, turn_speed=5.0), chunk(x=1.0, turn=1.0))  # 10 rad/s
        assert np.allclose(report.chunk[0, :, 3], 0.5)
        assert np.allclose(report.chunk[0, :, 0], 1.0)

    def test_it_starts_from_rest_and_brakes_from_what_was_executed(self):
        limits = Limits(HZ, acceleration=5.0)  # 0.25 m/s a step, a quarter of the command
        assert np.allclose(guarded(limits, chunk(x=1.0)).chunk[0, :, 0], [0.25, 0.5, 0.75, 1.0])
        braking = guarded(limits, chunk(x=0.0), executed=chunk(x=1.0))
        assert np.allclose(braking.chunk[0, :, 0], [0.75, 0.5, 0.25, 0.0])
        assert braking.reason == ("acceleration limited",)

    def test_a_binary_gripper_keeps_what_it_was_told_for_a_while(self):
        flutter = chunk()
        flutter[0, :, 6] = [1.0, -1.0, 1.0, -1.0]
        limits = Limits(HZ, gripper_rate=10.0)  # two steps
        held = guarded(limits, flutter, executed=chunk(gripper=-1.0)).chunk[0, :, 6]
        assert held.tolist() == [1.0, 1.0, 1.0, -1.0]

    def test_the_gripper_waits_across_decisions(self):
        guard = RobotGuard(SPEC, Limits(HZ, gripper_rate=4.0))  # five steps
        guard.notice(None, chunk(gripper=-1.0), 1.0)
        closing = guard.check(chunk(gripper=1.0)).chunk
        guard.notice(None, closing, 1.0)
        assert guard.check(chunk(gripper=-1.0)).chunk[0, :, 6].tolist() == [1.0, -1.0, -1.0, -1.0]

    def test_another_gripper_is_slowed(self):
        spec = ActionSpec(-np.ones(2), np.ones(2), gripper=(1,), gripper_is_binary=False)
        guard = RobotGuard(spec, Limits(HZ, gripper_rate=4.0))
        closed = np.full((1, 3, 2), [[0.0, -1.0]], np.float32)
        guard.notice(None, closed, 1.0)
        assert np.allclose(guard.check(-closed).chunk[0, :, 1], [-0.8, -0.6, -0.4])

    def test_places_instead_of_displacements(self):
        spec = ActionSpec(-np.ones(3) * 2, np.ones(3) * 2, (0, 1, 2))
        guard = RobotGuard(spec, Limits(HZ, (-1, -1, -1), (0.6, 1, 1), speed=2.0, absolute=True))
        guard.notice(at((0.4, 0, 0)), None, 1.0)
        wanted = np.zeros((1, 4, 3), np.float32)
        wanted[..., 0] = 1.5
        assert np.allclose(guard.check(wanted).chunk[0, :, 0], [0.5, 0.6, 0.6, 0.6])
        slow = RobotGuard(spec, Limits(HZ, acceleration=20.0, absolute=True))
        slow.notice(at((0.4, 0, 0)), None, 1.0)
        assert np.allclose(slow.check(wanted).chunk[0, :, 0], [0.45, 0.55, 0.7, 0.9])
        wanted[..., 0] = 0.45
        assert np.array_equal(guard.check(wanted).chunk, wanted)

    def test_eyes_that_see_the_same_while_the_robot_moves_stop_it(self):
        guard = RobotGuard(SPEC, Limits(HZ, frozen=2))
        for _ in range(2):
            guard.notice(at((0, 0, 0)), chunk(x=0.5), 1.0)
            assert not guard.check(chunk(x=0.5)).rejected.any()
        guard.notice(at((0, 0, 0)), chunk(x=0.5), 1.0)
        report = guard.check(chunk(x=0.5))
        assert report.rejected.all() and "did not change for 2 decisions" in report.reason[0]
        guard.notice(at((0, 0, 0), image=1), chunk(x=0.5), 1.0)
        assert not guard.check(chunk(x=0.5)).rejected.any()

    def test_a_robot_that_was_told_to_stand_may_see_the_same(self):
        guard = RobotGuard(SPEC, Limits(HZ, frozen=1))
        for _ in range(5):
            guard.notice(at((0, 0, 0)), chunk(), 1.0)
        assert not guard.check(chunk(x=0.5)).rejected.any()

    def test_a_decision_that_took_too_long_is_not_executed(self):
        report = guarded(Limits(HZ, late_ms=50), chunk(x=0.5), milliseconds=80.0)
        assert report.rejected.all() and "80 ms of 50" in report.reason[0]

    def test_nan_is_rejected_and_its_neighbour_is_not(self):
        guard = RobotGuard(SPEC, Limits(HZ, speed=0.5, acceleration=5.0))
        guard.notice(at((0, 0, 0), (0, 0, 0)), None, 1.0)
        both = np.concatenate([chunk(x=np.nan), chunk(x=1.0)])
        report = guard.check(both)
        assert report.rejected.tolist() == [True, False]
        assert np.isfinite(report.chunk[1]).all()

    def test_reset_forgets(self):
        guard = RobotGuard(SPEC, Limits(HZ, acceleration=5.0))
        guard.notice(at((0, 0, 0)), chunk(x=1.0), 1.0)
        guard.reset()
        guard.notice(at((0, 0, 0)), None, 1.0)
        assert np.allclose(guard.check(chunk(x=1.0)).chunk[0, 0, 0], 0.25)


@given(st.integers(0, 10_000))
def test_whatever_comes_what_leaves_is_within_all_limits(seed):
    rng = np.random.default_rng(seed)
    limits = Limits(HZ, (-0.1, -0.1, 0.0), (0.1, 0.1, 0.2), speed=0.4, acceleration=4.0, turn_speed=3.0)
    guard, place = RobotGuard(SPEC, limits), np.array([0.0, 0.0, 0.1])
    velocity, executed = np.zeros(3), None
    for _ in range(6):
        guard.notice(at(tuple(place)), executed, 1.0)
        executed = guard.check(rng.normal(0, 1.5, (1, 4, 7)).astype(np.float32)).chunk
        for action in executed[0]:
            place = place + 0.05 * action[:3].astype(np.float64)
            now = 0.05 * HZ * action[:3].astype(np.float64)
            assert (place >= np.array([-0.1, -0.1, 0.0]) - 1e-5).all()
            assert (place <= np.array([0.1, 0.1, 0.2]) + 1e-5).all()
            assert np.linalg.norm(now) <= 0.4 + 1e-5
            assert np.linalg.norm(0.5 * HZ * action[3:6]) <= 3.0 + 1e-4
            near_wall = (np.abs(place - [0.0, 0.0, 0.1]) > 0.1 - 1e-4).any()
            assert near_wall or np.linalg.norm(now - velocity) <= 4.0 / HZ + 1e-4
            velocity = now


class TestInTheLoop:
    """The controller tells the guard what it needs, and the decision says what the guard did."""

    class Far:
        action_spec, horizon = SPEC, 4

        def propose(self, observation, n, seeds):
            chunks = np.zeros((len(seeds), n, 4, 7), np.float32)
            chunks[..., 0], chunks[..., 6] = 1.0, -1.0
            return ActionSamples(chunks)

    def decide(self, controller, image=0):
        return controller.decide(at((0.0, 0.0, 0.0), image=image), np.array([1]))

    def test_what_was_changed_is_in_the_decision(self):
        controller = Controller(self.Far(), None, guard=Limits(HZ, acceleration=5.0))
        first = self.decide(controller)
        assert np.allclose(first.chunk[0, :, 0], [0.25, 0.5, 0.75, 1.0])
        assert first.guard == ("acceleration limited",)
        second = self.decide(controller)
        assert np.allclose(second.chunk[0, :, 0], 1.0) and second.guard == ("",)
        controller.reset()
        assert self.decide(controller).guard == ("acceleration limited",)

    def test_a_stopped_robot_stands_and_is_counted(self):
        controller = Controller(self.Far(), None, guard=Limits(HZ, frozen=1))
        self.decide(controller)
        stopped = self.decide(controller)
        assert np.array_equal(stopped.chunk[0, :, :6], np.zeros((4, 6)))
        assert "did not change" in stopped.guard[0]
        assert controller.counters == {"guard": 1}
        assert not np.array_equal(self.decide(controller, image=1).chunk, stopped.chunk)

    def test_single_actions_accelerate_step_by_step(self):
        def policy(observation):
            return np.array([1.0, 0, 0, 0, 0, 0, -1.0])

        wrapped = forethought.wrap(
            policy, planner=Keep(), action_spec=SPEC, horizon=4, guard=Limits(HZ, acceleration=5.0)
        )
        assert np.allclose([wrapped(at((0.0, 0.0, 0.0)))[0] for _ in range(5)], [0.25, 0.5, 0.75, 1.0, 1.0])
        wrapped.reset()
        assert wrapped(at((0.0, 0.0, 0.0)))[0] == pytest.approx(0.25)

    def test_what_was_queued_counts_as_executed(self, planner):
        wrapped = forethought.wrap(
            lambda observation: np.array([0.1, 0, 0, 0, 0, 0, -1.0]), planner=planner(), action_spec=SPEC,
            horizon=4, guard=Limits(HZ, acceleration=2.0),
        )  # fmt: skip
        # 0.1, 0.2, 0.3, 0.4, and from there it brakes to 0.1 by a tenth a step
        given = [wrapped(at((0.0, 0.0, 0.0)))[0] for _ in range(6)]
        assert np.allclose(given, [0.1, 0.2, 0.3, 0.4, 0.3, 0.2])

    def test_a_dry_run_of_the_guard_changes_nothing_and_says_what_it_would(self):
        limits = Limits(HZ, speed=0.5, late_ms=1e-6, dry_run=True)
        controller = Controller(self.Far(), None, guard=limits)
        assert isinstance(controller.guard, DryRun)
        decision = self.decide(controller)
        assert np.allclose(decision.chunk[0, :, 0], 1.0)
        assert decision.guard[0].startswith("would: late") and decision.guard[0].endswith("held still")
        assert not controller.counters

    def test_a_dry_run_of_everything_lets_the_policy_act(self, planner):
        calls = []

        def policy(observation):
            calls.append(1)
            if len(calls) == 3:
                raise KeyError("as if it were not wrapped")
            return np.full((4, 7), 2.0)  # out of bounds, as only an unwrapped policy may be

        wrapped = forethought.wrap(policy, planner=planner(), action_spec=SPEC, horizon=4, dry_run=True)
        for _ in range(2):
            assert np.array_equal(wrapped(at((0.0, 0.0, 0.0))), np.full((4, 7), 2.0))
        assert wrapped.forethought.last.overridden.all()
        assert np.allclose(wrapped.forethought.last.chunk[0, :, 0], [0.1, 0.2, 0.3, 0.4])
        with pytest.raises(KeyError, match="not wrapped"):
            wrapped(at((0.0, 0.0, 0.0)))

    def test_a_dry_run_of_a_policy_of_ours(self, planner, policy, observe):
        wrapped = forethought.wrap(policy, planner=planner(), dry_run=True)
        assert np.allclose(wrapped.act(observe())[..., 0], 0.25)
        assert np.allclose(wrapped.propose(observe(), 2, np.array([1])).chunks[..., 0], 0.25)
        assert np.allclose(wrapped.forethought.last.chunk[0, :, 0], [0.1, 0.2, 0.3, 0.4])


class Keep:
    """A planner that keeps the policy's chunk."""

    def plan(self, observation, samples, seeds):
        from forethought.interfaces import Decision

        batch = len(seeds)
        return Decision(
            samples.chunks[:, 0], np.zeros(batch, np.int32), np.zeros(batch), np.zeros(batch),
            np.zeros(batch, bool), np.zeros(batch, bool), ("kept",) * batch, np.zeros(batch, np.int32),
        )  # fmt: skip


class TestLimits:
    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"hz": 0}, "hz"),
            ({"hz": 20, "speed": -1}, "speed"),
            ({"hz": 20, "workspace_low": (0, 0, 0)}, "box"),
            ({"hz": 20, "workspace_low": (0, 0, 0), "workspace_high": (1, 1, 0)}, "box"),
            ({"hz": 20, "workspace_low": (0, 0), "workspace_high": (1, 1)}, "three numbers"),
            ({"hz": 20, "absolute": True, "turn_speed": 1.0}, "displacements"),
        ],
    )
    def test_limits_that_make_no_sense_are_refused(self, wrong, words):
        with pytest.raises(ForethoughtError, match=words):
            Limits(**wrong)

    def test_limits_that_the_action_cannot_keep_are_refused(self):
        joints = ActionSpec(-np.ones(7), np.ones(7))
        with pytest.raises(ForethoughtError, match="position command"):
            RobotGuard(joints, Limits(HZ, speed=1.0))
        with pytest.raises(ForethoughtError, match="rotation command"):
            RobotGuard(joints, Limits(HZ, turn_speed=1.0))

    def test_they_come_from_a_file(self, tmp_path):
        file = tmp_path / "arm.json"
        file.write_text(json.dumps({"hz": 10, "workspace_low": [0, 0, 0], "workspace_high": [1, 1, 1]}))
        assert Limits.load(file) == Limits(10, (0, 0, 0), (1, 1, 1))
        file.write_text(json.dumps({"hz": 10, "sped": 1}))
        with pytest.raises(ForethoughtError, match="sped"):
            Limits.load(file)
        with pytest.raises(ForethoughtError, match="JSON"):
            Limits.load(tmp_path / "none.json")
