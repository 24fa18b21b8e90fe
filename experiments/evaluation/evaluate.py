"""Runs an evaluation from its config: arms, episodes, workers, tables."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from ...interfaces import ForethoughtError
from ...wrappers.models import SHIPPED
from .arms import Arm, OptionLoader, arm_key, compose_arms
from .fingerprint import with_weights
from .live import LiveDisplay
from .pace import Pace, measure_pace
from .parts import build
from .plan import Episode, parse_indices, plan_episodes
from .report import compare, final_report, report_console
from .runner import Runner
from .store import EpisodeStore, prepare_folder
from .worker import Setup

DATABASE = "episodes.sqlite"
SUMMARY = "summary.json"
VERSIONED = ("forethought", "torch", "numpy", "scipy", "numba", "scikit-learn", "hydra-core")

ENVIRONMENT: dict[str, str] = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "LP_NUM_THREADS",
    ),
    "1",
)
"""One thread a worker: processes share the cores already, and software rendering fights over them
otherwise."""


@dataclass(frozen=True)
class Invocation:
    """How an evaluation was asked for.

    Attributes:
        choices: Group to the name of the option that the run chose.
        load_option: Reads another option of a group.
        overrides: What the command line changed.
        command: The command line.
        summary_folder: Where ``summary.json`` goes; the episodes go into the config's ``out``.
    """

    choices: Mapping[str, str]
    load_option: OptionLoader
    overrides: Sequence[str]
    command: Sequence[str]
    summary_folder: Path


def evaluate(config: DictConfig, invocation: Invocation, console: Console | None = None) -> dict[str, Any]:
    """Runs what is missing of an evaluation and returns its summary.

    Raises:
        ForethoughtError: Something does not fit, before any episode; or episodes failed at every attempt,
            after all others have been written and tabled.
    """
    console = console or report_console()
    out = Path(str(config.out))
    prepare_folder(out)
    prepare_folder(invocation.summary_folder)
    arms = compose_arms(config, invocation.choices, invocation.load_option)
    benchmark_config = _container(config.benchmark)
    benchmark = build("benchmark", benchmark_config)
    described = benchmark.describe()
    tasks = [benchmark.tasks[index] for index in parse_indices(config.tasks, "tasks", len(benchmark.tasks))]
    surroundings = {"benchmark": described, "benchmark_config": benchmark_config, "seed": int(config.seed)}
    keys = {arm.name: arm_key(_weighed(arm), surroundings) for arm in arms}
    episodes = plan_episodes(
        tasks=tasks,
        init_states=config.init_states,
        arms=[(arm, keys[arm.name]) for arm in arms],
        seed=int(config.seed),
        benchmark=benchmark.name,
        repeats=int(config.get("repeats", 1)),
    )
    contrasts = _contrasts(config, [arm.name for arm in arms])
    with EpisodeStore(out / DATABASE) as store:
        setup = Setup(benchmark_config, arms, out / "workers.log", ENVIRONMENT)
        failures, pace = _run_missing(episodes, setup, config, store, console)
        results = store.finished(episodes)
        facts = {arm.name: store.facts(keys[arm.name], arm.name) for arm in arms}
    summary = {
        "name": str(config.name),
        "command": shlex.join(shareable(invocation.command)),
        "overrides": shareable(invocation.overrides),
        "date": time.strftime("%Y-%m-%d"),
        "benchmark": described,
        "init_states": str(config.init_states),
        "seed": int(config.seed),
        "repeats": int(config.get("repeats", 1)),
        "versions": _versions(),
        "settings": {
            arm.name: {
                "key": keys[arm.name],
                "choices": dict(arm.choices),
                "parts": _without_machine({group: part for group, part in arm.parts.items() if part}),
                "facts": facts[arm.name],
            }
            for arm in arms
        },
        "missing": len(episodes) - len(results),
        **compare(results, [arm.name for arm in arms], contrasts),
        "pace": asdict(pace),
    }
    _write_json(invocation.summary_folder / SUMMARY, summary)
    console.print(final_report(summary))
    console.print(f"{invocation.summary_folder / SUMMARY}", style="dim", markup=False, highlight=False)
    if failures:
        raise _failure(failures, setup.log)
    if config.filmstrips:
        from .filmstrip import make_filmstrips

        for path in make_filmstrips(
            results,
            setup,
            count=int(config.filmstrips),
            folder=out / "filmstrips",
            film=_container(config.film),
        ):
            console.print(f"{path}", style="dim", markup=False, highlight=False)
    return summary


def _run_missing(
    episodes: Sequence[Episode], setup: Setup, config: DictConfig, store: EpisodeStore, console: Console
) -> tuple[dict[Episode, str], Pace]:
    keys = {episode.arm: episode.key for episode in episodes}
    for arm in setup.arms:
        store.describe_arm(keys[arm.name], arm.name, arm.parts)
    finished = store.finished(episodes)
    missing = [episode for episode in episodes if episode not in finished]
    if finished:
        console.print(
            f"{len(finished)} of {len(episodes)} episodes are in {store.path} already; {len(missing)} to "
            "run.",
            markup=False,
            highlight=False,
        )
    workers = min(int(config.workers), len(missing)) if missing else 1
    ran = []
    start = last = time.monotonic()
    with LiveDisplay(episodes, finished, [arm.name for arm in setup.arms], workers, console) as display:

        def started(facts: Mapping[str, Mapping[str, Any]]) -> None:
            for arm, said in facts.items():
                store.add_facts(keys[arm], arm, said)

        def done(episode: Episode, result: Any) -> None:
            nonlocal last
            last = time.monotonic()
            store.add(episode, result)
            display.add(episode, result)
            ran.append(result)

        runner = Runner(
            setup,
            workers=int(config.workers),
            attempts=int(config.attempts),
            timeout=float(config.timeout),
            started=started,
            done=done,
        )
        failures = runner.run(missing)
    return failures, measure_pace(ran, workers, last - start)


def _contrasts(config: DictConfig, arms: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Arm to the arms that it is compared with besides the policy alone."""
    chosen: dict[str, tuple[str, ...]] = {}
    for arm, given in (config.get("contrasts") or {}).items():
        others = (given,) if isinstance(given, str) else tuple(given)
        for other in others:
            if arm not in arms or other not in arms or arm == other:
                raise ForethoughtError(
                    f"contrasts.{arm}={given} must name different arms of this evaluation; there are "
                    f"{', '.join(arms)}."
                )
        chosen[str(arm)] = tuple(map(str, others))
    return chosen


def _failure(failures: Mapping[Episode, str], log: Path) -> ForethoughtError:
    shown = [
        f"  arm {episode.arm}, task {episode.task_id} ({episode.task}), init state {episode.init_state}: "
        f"{reason}"
        for episode, reason in list(failures.items())[:10]
    ]
    more = [f"  … and {len(failures) - 10} more"] if len(failures) > 10 else []
    return ForethoughtError(
        "\n".join([f"{len(failures)} episodes failed at every attempt; all others are kept.", *shown, *more])
        + f"\nThe workers' log is {log}. The same command tries the missing ones again."
    )


def _weighed(arm: Arm) -> Arm:
    return Arm(arm.name, arm.choices, with_weights(arm.parts))


def _container(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def shareable(words: Sequence[str]) -> list[str]:
    """A command line without where its results went and without this machine's folders: shipped weights go
    by their names, also within a value."""
    shipped = re.compile(re.escape(str(SHIPPED)) + r"/([\w-]+)")
    split = [word.partition("=") for word in words if not word.startswith("out=")]
    named = ((name, sign, shipped.sub(r"${checkpoint:\1}", value)) for name, sign, value in split)
    return [name + sign + _without_machine(value) for name, sign, value in named]


def _without_machine(settings: Any) -> Any:
    """Settings with this machine's folders cut from paths, so that results can be shared."""
    if isinstance(settings, Mapping):
        return {name: _without_machine(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [_without_machine(value) for value in settings]
    if not isinstance(settings, str) or not os.path.isabs(settings):
        return settings
    package = Path(__file__).resolve().parents[2]
    for root, name in ((package, "forethought"), (Path.cwd(), "")):
        if Path(settings).is_relative_to(root):
            return str(Path(name, Path(settings).relative_to(root)))
    return Path(settings).name


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
