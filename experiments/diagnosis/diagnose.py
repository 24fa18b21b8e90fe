"""``forethought diagnose``: measures the models on recorded episodes and in the simulator, and says what
limits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ...interfaces import ForethoughtError
from ...reward.labels import SCHEMES
from ...world_models import retrieval
from ..evaluation.arms import Arm
from ..evaluation.evaluate import ENVIRONMENT
from ..evaluation.parts import Workshop, build
from ..evaluation.plan import parse_indices
from ..evaluation.runner import environment_variables
from ..evaluation.store import prepare_folder
from ..training.dataset import EpisodeSet, load_episodes
from .budget import read_budget
from .decisions import Parts, Trial, try_decisions
from .dynamics import judge_dynamics
from .losses import DecisionsReport, judge_decisions
from .page import draw_page
from .readout import read_out
from .recorded import look
from .value import judge_value
from .verdict import Evidence, Verdict, judge

MOST_INDICES = 100_000
BIGGER = 4
"""Factor on the planner's simulations of the larger budget."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        name: Title of the page.
        out: Folder for ``diagnose.json`` and ``diagnose.png``.
        episodes: Folders of recorded episodes, failures among them; best those that nobody trained on.
        episode_states: Only episodes that started there, such as ``22-29``.
        per_task: At most so many episodes of each instruction; None takes all.
        discount: γ per control step; None: that of the models.
        results: Folder of an evaluation or sweep for success against simulations, or None.
        page: Whether the page of plots is drawn.
    """

    name: str
    out: Path
    episodes: Sequence[str]
    episode_states: object = "all"
    per_task: int | None = 40
    discount: float | None = None
    results: str | None = None
    page: bool = True


@dataclass(frozen=True)
class Simulation:
    """Where decisions are tried: a benchmark's config, tasks and initial states as in ``parse_indices``."""

    benchmark: Mapping[str, Any]
    tasks: object
    init_states: object
    trial: Trial


def diagnose(
    arm: Arm, request: Request, simulation: Simulation | None, console: Console | None = None
) -> Verdict:
    """Measures, writes ``diagnose.json`` and ``diagnose.png``, and returns the verdict.

    Raises:
        ForethoughtError: Parts or episodes do not fit, before anything is measured.
    """
    console = console or Console()
    prepare_folder(request.out)
    world_model = build("world_model", arm.parts["world_model"])
    reward = build("reward", arm.parts["reward"])
    budget = read_budget(request.results) if request.results else None
    horizon = getattr(world_model, "horizon", None)
    if horizon is None:
        raise ForethoughtError(
            f"{type(world_model).__name__} does not say over how many steps it jumps (`horizon`); diagnose a "
            "learned model, such as world_model=latent."
        )
    data = _load(request, tuple(getattr(world_model, "cameras", ())))
    recorded = look(data, world_model, reward, int(horizon))
    gamma = request.discount or float(_lineage(arm).get("discount", 0.99))
    scheme = SCHEMES.get(str(getattr(reward, "scheme", "")))
    evidence = Evidence(
        value=judge_value(recorded, gamma),
        dynamics=judge_dynamics(recorded, world_model, reward),
        readout=read_out(recorded),
        decisions=_simulate(arm, simulation, gamma, console) if simulation is not None else None,
        budget=budget,
        unknown_instructions=_unknown(data, arm),
        learns_from_failures=None if scheme is None else scheme.uses_failures,
    )
    verdict = judge(evidence)
    found = {
        "name": request.name,
        "verdict": {"limit": verdict.limit, "words": verdict.words},
        "findings": [asdict(finding) for finding in verdict.findings],
        **{name: _plain(getattr(evidence, name)) for name in evidence.__dataclass_fields__},
        "episodes": data.summary(),
        "discount": gamma,
        "settings": {"choices": dict(arm.choices)},
    }
    found["dynamics"].pop("points")
    path = request.out / "diagnose.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
    for line in _lines(evidence):
        console.print(line, markup=False, highlight=False)
    console.print(f"\n{verdict.words}\n", style="bold", markup=False, highlight=False)
    console.print(str(path), style="dim", markup=False, highlight=False)
    if request.page:
        page = draw_page(evidence, verdict, request.name, request.out / "diagnose.png")
        console.print(str(page), style="dim", markup=False, highlight=False)
    return verdict


def _load(request: Request, cameras: tuple[str, ...]) -> EpisodeSet:
    states = request.episode_states
    kept = None if states == "all" else parse_indices(states, "episode_states", MOST_INDICES)
    return load_episodes(
        request.episodes, cameras, executed=True, per_task=request.per_task, init_states=kept
    )


def _lineage(arm: Arm) -> Mapping[str, Any]:
    """What the models' folder says of its training; empty where it says nothing."""
    folder = arm.parts["reward"].get("folder")
    config = Path(str(folder)) / "config.json"
    if folder is None or not config.is_file():
        return {}
    try:
        return json.loads(config.read_text(encoding="utf-8")).get("lineage", {})
    except ValueError:
        return {}


def _memory(arm: Arm, group: str = "world_model") -> retrieval.RetrievalMemory | None:
    """The memory that was trained beside a part, whether the planner uses it or not."""
    folder = arm.parts[group].get("folder")
    if folder is None or not (Path(str(folder)) / retrieval.FILE).is_file():
        return None
    return retrieval.load(str(folder))


def _unknown(data: EpisodeSet, arm: Arm) -> float | None:
    """What share of the episodes has an instruction that the memory beside the value does not know."""
    memory = _memory(arm, "reward")
    if memory is None:
        return None
    known = memory.instructions
    return float(np.mean([data.instructions[index] not in known for index in data.instruction]))


def _simulate(arm: Arm, simulation: Simulation, discount: float, console: Console) -> DecisionsReport:
    with environment_variables({"MUJOCO_GL": "egl", **ENVIRONMENT}):
        benchmark = build("benchmark", simulation.benchmark)
        tasks = [
            benchmark.tasks[index] for index in parse_indices(simulation.tasks, "tasks", len(benchmark.tasks))
        ]
        states = parse_indices(simulation.init_states, "init_states", min(t.init_states for t in tasks))
        workshop = Workshop()
        controller = workshop.controller(arm)
        if controller.execution_horizon is not None:
            raise ForethoughtError(
                "diagnose judges whole chunks, as the world model imagines them; got "
                f"controller.execution_horizon={controller.execution_horizon}. Leave it null."
            )
        trial = Trial(**{**asdict(simulation.trial), "discount": discount})
        trial = Trial(
            **{
                **asdict(trial),
                "samples": controller.samples,
                "pessimism": float(arm.parts["planner"].get("pessimism", 1.0)),
            }
        )
        parts = Parts(
            policy=controller.policy,
            planner=controller.planner,
            world_model=_built(workshop, "world_model", arm),
            reward=_built(workshop, "reward", arm),
            memory=_memory(arm),
            bigger=_bigger(arm),
        )
        with Progress(console=console) as progress:
            line = progress.add_task("decisions", total=trial.decisions)
            tested = try_decisions(
                benchmark.make,
                tasks,
                states,
                parts,
                trial,
                report=lambda count: progress.update(line, completed=count),
            )
    return judge_decisions(tested)


def _built(workshop: Workshop, group: str, arm: Arm) -> Any:
    """A part of the controller that the workshop has just built."""
    return workshop.part(group, arm)


def _bigger(arm: Arm) -> Any:
    """The arm's planner with a larger budget, or None where it counts no simulations."""
    simulations = arm.parts["planner"].get("simulations")
    if not isinstance(simulations, int):
        return None
    planner = {**arm.parts["planner"], "simulations": BIGGER * simulations}
    return Workshop().controller(Arm(arm.name, arm.choices, {**arm.parts, "planner": planner})).planner


def _lines(evidence: Evidence) -> list[str]:
    value, model, seen = evidence.value, evidence.dynamics, evidence.decisions
    lines = [
        f"value      AUC {' / '.join(f'{area:.2f}' for area in value.auc.values())} at 25 / 50 / 75 %, "
        f"calibration error {value.calibration_error:.3f}, rank correlation with time "
        f"{value.rank_successes:+.2f} on successes, {value.rank_failures:+.2f} on failures",
        f"model      error {model.error:.2f}, no change {model.error_standing:.2f}, another chunk "
        f"{model.error_shuffled:.2f}; action effect {model.action_effect:.2f}, change of value "
        f"{model.value_change:.2f}, disagreement against error {model.disagreement:.2f}",
    ]
    if evidence.readout is not None:
        read = evidence.readout
        lines.append(
            f"encoder    object read out to {read.position:.1f} mm ({read.near:.1f} near it, distance "
            f"{read.distance:.1f}), without images {read.blind:.1f}"
        )
    if seen is not None:
        lines += [
            "return     " + ", ".join(f"{name} {number:.3f}" for name, number in seen.returns.items()),
            f"decisions  {seen.decisions}: regret {seen.regret:.3f}, rank correlation model "
            f"{seen.rank_model:.2f}, value {seen.rank_value:.2f}, both {seen.rank:.2f}, optimism of the "
            f"chosen {seen.optimism:+.2f} (policy's {seen.optimism_policy:+.2f})",
            "losses     "
            + ", ".join(
                f"{name} {loss.mean:+.3f} ({loss.low:+.3f} to {loss.high:+.3f})"
                for name, loss in seen.losses.items()
            ),
        ]
    if evidence.budget is not None:
        points = (f"{p.simulations}: {p.successes}/{p.episodes}" for p in evidence.budget.points)
        lines.append("budget     " + ", ".join(points))
    return lines


def _plain(report: Any) -> Any:
    """A report as JSON can hold it; numbers that are not finite become null."""
    if is_dataclass(report) and not isinstance(report, type):
        return {name: _plain(getattr(report, name)) for name in report.__dataclass_fields__}
    if isinstance(report, Mapping):
        return {str(name): _plain(value) for name, value in report.items()}
    if isinstance(report, list | tuple):
        return [_plain(value) for value in report]
    if isinstance(report, np.ndarray):
        return _plain(report.tolist())
    if isinstance(report, float) and not math.isfinite(report):
        return None
    return report
