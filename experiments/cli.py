"""The ``forethought`` command: ``collect | train | eval | improve | diagnose | serve | bench | doctor``. All
but the last are Hydra applications."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..interfaces import ForethoughtError

CONFIGS = Path(__file__).resolve().parent / "configs"

USAGE = """\
Forethought: test-time search for robot policies.

  forethought collect          record episodes of a benchmark: a scripted expert, or a policy with noise
  forethought train policy     train the reference policy from demonstrations
  forethought train models     train what search needs: world model, values, retrieval memory
  forethought train video      the same with a world model that imagines pictures (on a GPU)
  forethought eval             compare the policy alone with planners, paired, with intervals
  forethought improve          collect, train, evaluate, and again, until success rises no more
  forethought diagnose         what limits you now: proposals, encoder, model, value or budget
  forethought serve            serve a policy that looks ahead, or stand in front of somebody's server
  forethought bench planner    measure the search itself: speed, memory, regret
  forethought bench imagination  compare what world models imagine with what the simulator does
  forethought bench gpu        time a decision with a large model on a GPU, beside the hardware's limits
  forethought bench serve      measure the server: added latency, broken frames, hours of bad clients
  forethought doctor           say what works on this machine, and what mends the rest; with --policy, what
                               is wrong between a policy and its robot

Each of them tells its options with --help. Options are written name=value, groups of options by the name of
a file:

  forethought eval planner=best_of_n planner.simulations=64 tasks=0-4 init_states=0-9 workers=2
  forethought eval -m planner.simulations=8,32,128        a sweep, ends in one joined table
  forethought eval --cfg job --resolve                    show the whole configuration and stop
  forethought eval --config-dir my_configs policy=mine    my_configs/policy/mine.yaml joins the group `policy`

FORETHOUGHT_DEBUG=1 shows the traceback of an error.
"""

USER_ERROR = 2
"""Exit code when the user can mend it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line (``sys.argv`` by default) and returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = os.environ.get("FORETHOUGHT_DEBUG", "") not in ("", "0")
    try:
        return _dispatch(arguments)
    except ForethoughtError as error:
        if debug:
            raise
        show_error(str(error))
        return USER_ERROR
    except KeyboardInterrupt:
        if debug:
            raise
        show_error(
            "Interrupted. What was finished is kept: the same command goes on from there.", title="stopped"
        )
        return 130


def show_error(message: str, title: str = "forethought cannot go on") -> None:
    """Prints a message for the user to stderr."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    Console(stderr=True).print(Panel(Text(message), title=title, border_style="red", title_align="left"))


def _dispatch(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if command == "--version":
        from .. import __version__

        print(f"forethought {__version__}")
        return 0
    if command == "doctor":
        from .doctor import main as doctor

        return doctor(rest) or 0
    if command in FAMILIES and (not rest or rest[0] in ("--help", "-h")):
        print(USAGE, end="")
        return 0
    if command in FAMILIES:
        command, rest = f"{command} {rest[0]}", rest[1:]
    if command not in APPLICATIONS:
        known = ", ".join([*APPLICATIONS, "doctor"])
        raise ForethoughtError(f"There is no command `forethought {command}`; there are {known}.")
    config_name, task = APPLICATIONS[command]
    return _run_hydra(f"forethought {command}", config_name, task, rest)


def _run_hydra(program: str, config_name: str, task: Callable[..., Any], arguments: list[str]) -> int:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from .evaluation.sweep import JoinSweep

    register_resolvers()
    JoinSweep.failed = ()
    # These are free mappings, which Hydra only extends when told so.
    arguments = [f"++{text}" if text.startswith(("arms.", "train.")) else text for text in arguments]
    problems: list[Exception] = []
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [program, *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here, not to Hydra's own printer
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(
            _quietly(task, problems)
        )()
        if problems:
            raise problems[0]
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__
        if isinstance(cause, ForethoughtError):
            raise cause from error
        raise ForethoughtError(f"{error}\n`{program} --help` lists the options.") from error
    finally:
        sys.argv = before[0]
        os.environ.pop("HYDRA_FULL_ERROR") if before[1] is None else os.environ.update(
            HYDRA_FULL_ERROR=before[1]
        )
    return USER_ERROR if JoinSweep.failed else 0


def _quietly(task: Callable[..., Any], problems: list[Exception]) -> Callable[..., Any]:
    """The task of a single run, its errors put aside: Hydra announces those that it sees."""

    @functools.wraps(task)
    def run(config: Any) -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        try:
            task(config)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            problems.append(error)

    return run


def register_resolvers() -> None:
    """Makes ``${checkpoint:name}`` in configs the folder of that name, or the shipped one."""
    from omegaconf import OmegaConf

    from ..wrappers.models import find_folder

    OmegaConf.register_new_resolver("checkpoint", lambda name: str(find_folder(str(name))), replace=True)


def _evaluate(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from .evaluation.evaluate import Invocation, evaluate
    from .evaluation.sweep import ERROR

    register_resolvers()
    hydra_config = HydraConfig.get()
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    invocation = Invocation(
        choices=dict(hydra_config.runtime.choices),
        load_option=_load_option,
        overrides=list(hydra_config.overrides.task),
        command=["forethought", "eval", *_flags(hydra_config), *hydra_config.overrides.task],
        summary_folder=Path(hydra_config.runtime.output_dir if sweeping else str(config.out)),
    )
    try:
        evaluate(config, invocation)
    except ForethoughtError as error:
        if not sweeping:
            raise
        show_error(str(error))  # the other jobs of the sweep go on
        (invocation.summary_folder / ERROR).write_text(str(error))


def _load_option(group: str, option: str) -> Any:
    """Another option of a group than the one that the run chose."""
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException

    try:
        return compose(HydraConfig.get().job.config_name, overrides=[f"{group}={option}"])[group]
    except HydraException as error:
        raise ForethoughtError(f"arms: {error}") from error


def _diagnose(config: Any) -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from .diagnosis.decisions import Trial
    from .diagnosis.diagnose import Request, Simulation, diagnose
    from .evaluation.arms import compose_arms

    register_resolvers()
    arms = compose_arms(config, dict(HydraConfig.get().runtime.choices), _load_option)
    if len(arms) < 2:
        raise ForethoughtError("diagnose looks at a search; planner=none has none. Choose a planner.")
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    names = ("name", "episodes", "episode_states", "per_task", "discount", "results", "page")
    request = Request(out=Path(settings["out"]), **{name: settings[name] for name in names})
    simulation = Simulation(
        settings["benchmark"], settings["tasks"], settings["init_states"], Trial(**settings["trial"])
    )
    diagnose(arms[1], request, simulation if settings["simulator"] else None)


def _improve(config: Any) -> None:
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig

    from .evaluation.evaluate import Invocation
    from .improvement.improve import run

    register_resolvers()
    hydra_config = HydraConfig.get()
    invocation = Invocation(
        choices=dict(hydra_config.runtime.choices),
        load_option=_load_option,
        overrides=list(hydra_config.overrides.task),
        command=["forethought", "improve", *_flags(hydra_config), *hydra_config.overrides.task],
        summary_folder=Path(str(config.out)),
    )
    run(config, invocation, compose("train_models"))


def _flags(hydra_config: Any) -> list[str]:
    """What of the command line is not an override."""
    name = str(hydra_config.job.config_name)
    flags = [] if name in {default for default, _ in APPLICATIONS.values()} else ["--config-name", name]
    for source in hydra_config.runtime.config_sources:
        if source.provider == "command-line":
            flags += ["--config-dir", os.path.relpath(source.path)]
    return flags


def _collect(config: Any) -> None:
    from omegaconf import OmegaConf
    from rich.console import Console

    from .data.collect import collect
    from .evaluation.parts import build
    from .evaluation.plan import parse_indices

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    tasks, states = settings.pop("tasks"), settings.pop("init_states")
    source = build("source", {**settings.pop("source"), "_recursive_": False})
    collection = collect(
        settings.pop("benchmark"),
        source,
        tasks=None if tasks == "all" else parse_indices(tasks, "tasks", MOST_INDICES),
        init_states=parse_indices(states, "init_states", MOST_INDICES),
        **settings,
    )
    Console().print(
        f"{collection.episodes} episodes into {collection.folder} ({collection.successes} of "
        f"{collection.played} played succeeded, {collection.steps} steps, {collection.seconds:.0f} s).",
        markup=False,
        highlight=False,
    )


MOST_INDICES = 100_000
"""Collecting checks indices against the benchmark itself."""


def _write(config: Any) -> None:
    """Calls what the config describes, which returns the path of what it wrote."""
    from omegaconf import OmegaConf
    from rich.console import Console

    from .evaluation.parts import build

    written = build("command", OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
    Console().print(f"Written: {written}", markup=False, highlight=False)


def _call(config: Any) -> None:
    """Calls what the config describes."""
    from omegaconf import OmegaConf

    from .evaluation.parts import build

    build("command", OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]


APPLICATIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "collect": ("collect", _collect),
    "train policy": ("train_policy", _write),
    "train models": ("train_models", _write),
    "train video": ("train_video", _write),
    "eval": ("eval", _evaluate),
    "improve": ("improve", _improve),
    "diagnose": ("diagnose", _diagnose),
    "serve": ("serve", _call),
    "bench planner": ("bench_planner", _write),
    "bench imagination": ("bench_imagination", _write),
    "bench gpu": ("bench_gpu", _write),
    "bench serve": ("bench_serve", _write),
}
"""Command to its config and what it runs."""

FAMILIES = ("train", "bench")
"""Commands of two words begin with these."""


if __name__ == "__main__":
    sys.exit(main())
