"""A worker process: one environment at a time, the controllers of all arms, one episode after another."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ...interfaces import ForethoughtError
from . import checks
from .arms import Arm
from .episode import run_episode
from .parts import Workshop, build
from .plan import Episode
from .store import EpisodeResult


@dataclass(frozen=True)
class Setup:
    """What every worker needs.

    Attributes:
        benchmark: Config of the benchmark, plain containers.
        arms: The arms.
        log: File for warnings, and for what libraries print.
        environment: Variables set before anything is imported.
    """

    benchmark: Mapping[str, Any]
    arms: tuple[Arm, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """The worker has loaded everything, and everything fits. ``facts`` is what each arm's parts say of
    themselves."""

    facts: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Refused:
    """Something the user has to mend: no episode can be run."""

    message: str
    trace: str


@dataclass(frozen=True)
class Done:
    """An episode has ended."""

    episode: Episode
    result: EpisodeResult


@dataclass(frozen=True)
class Failed:
    """An episode raised."""

    episode: Episode
    message: str


Message = Started | Refused | Done | Failed


def work(connection: Connection, setup: Setup, hired: float) -> None:
    """Runs the episodes that come through the connection until None comes.

    Args:
        connection: Episodes come in, messages go out.
        setup: What to load.
        hired: ``time.monotonic()`` when the process was asked for; loading counts from there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    _print_to(setup.log)
    bench = Bench(setup)
    started = False
    while (episode := connection.recv()) is not None:
        since = time.monotonic() if started else hired
        try:
            environment = bench.environment(episode.task_id)
            if not started:
                connection.send(Started(bench.prepare(environment, episode.init_state)))
                started = True
        except ForethoughtError as error:
            connection.send(Refused(str(error), traceback.format_exc()))
            continue
        except Exception as error:
            logging.exception("before an episode of task %s", episode.task)
            connection.send(Failed(episode, f"{type(error).__name__}: {error}"))
            bench.drop_environment()
            continue
        try:
            controller = bench.controllers[episode.arm]
            loading = time.monotonic() - since
            result = run_episode(environment, controller, init_state=episode.init_state, seed=episode.seed)
            connection.send(Done(episode, replace(result, seconds={**result.seconds, "loading": loading})))
        except Exception as error:
            logging.exception("in %s", episode)
            connection.send(Failed(episode, f"{type(error).__name__}: {error}"))
            bench.drop_environment()  # whatever state it is in, the next episode starts from a new one
    logging.shutdown()
    os._exit(
        0
    )  # the environment goes with the process; GL libraries print tracebacks when the interpreter ends


class Bench:
    """The one environment of this process, and the controllers that drive it."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._benchmark: Any = None
        self._environment: Any = None
        self._task: int | None = None
        self._workshop = Workshop()
        self.controllers: dict[str, Any] = {}

    def benchmark(self, changes: Mapping[str, Any]) -> Any:
        """The benchmark, with some options changed."""
        return build("benchmark", {**self._setup.benchmark, **changes})

    def environment(self, task: int) -> Any:
        """The environment of a task, made when it is not the last one asked for."""
        if self._task != task:
            self.drop_environment()
            if self._benchmark is None:
                self._benchmark = self.benchmark({})
            self._environment, self._task = self._benchmark.make(task), task
            self._workshop.attach(self._environment)
        return self._environment

    def drop_environment(self) -> None:
        """Closes the environment, if there is one."""
        environment, self._environment, self._task = self._environment, None, None
        if environment is not None:
            try:
                environment.close()
            except Exception:
                logging.exception("closing an environment")

    def prepare(self, environment: Any, init_state: int) -> dict[str, dict[str, Any]]:
        """Builds every arm and lets it take one decision that is not executed. Facts by arm."""
        arms = self._setup.arms
        self.controllers = {arm.name: self._workshop.controller(arm) for arm in arms}
        self._workshop.attach(environment)
        observation, _ = environment.reset(options={"init_state": init_state})
        for arm in arms:
            controller = self.controllers[arm.name]
            policy = controller.policy
            checks.check_action(f"Arm {arm.name}: the policy", policy.action_spec, environment.action_spec)
            for group in ("policy", "world_model"):
                part = self._workshop.part(group, arm)
                checks.check_cameras(f"Arm {arm.name}: the {group.replace('_', ' ')}", part, observation)
            model = self._workshop.part("world_model", arm)
            size = policy.action_spec.size
            checks.check_chunks(
                f"Arm {arm.name}: the world model", model, horizon=policy.horizon, action_size=size
            )
            checks.rehearse(arm.name, controller, observation)
        return {arm.name: self._workshop.facts(arm) for arm in arms}


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, however the parent went."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def _print_to(log: Path) -> None:
    """Sends what this process and its libraries print to the log file, a crash's traceback included."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.enable()
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(process)d %(name)s %(levelname)s: %(message)s",
        force=True,
    )
