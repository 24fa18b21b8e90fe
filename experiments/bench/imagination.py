"""Imagined against real, for any world models: the same candidates imagined and carried out in the simulator.

At some moments of episodes the simulator carries out every candidate of a decision and goes back; each world
model imagines the same ones. What counts is whether the model's own value orders imagined states as it orders
the real ones that the cameras then show: that separates the model's mistakes from those of value and encoder.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError, Observation, Policy
from ...wrappers.models import Models, load_models
from ..benchmarks.base import Benchmark, Environment
from ..evaluation.plan import parse_indices
from ..training.video_report import milliseconds_a_candidate, psnr, side_by_side

REPORT = "imagination.json"


@dataclass(frozen=True, eq=False)
class Branching:
    """One decision, every candidate carried out.

    Attributes:
        before: What the robot saw, B = 1.
        chunks: Candidates ``float32 [K, H, A]``, the policy's own first.
        after: What it saw after each of them, B = K.
    """

    before: Observation
    chunks: np.ndarray
    after: Observation


def branchings(
    environment: Environment,
    policy: Policy,
    init_state: int,
    *,
    candidates: int = 16,
    every: int = 4,
    noise: float = 0.2,
    seed: int = 0,
) -> list[Branching]:
    """Decisions of one episode that the policy plays.

    Args:
        environment: Is reset here.
        policy: Plays, and offers half of the candidates.
        init_state: Index of the initial state.
        candidates: K.
        every: Decisions between two that branch.
        noise: Deviation of the other candidates from the policy's chunk, the same for all steps of a chunk,
            units of half the range of the bounds.
        seed: Of policy and noise.
    """
    rng = np.random.default_rng(seed)
    observation, _ = environment.reset(options={"init_state": init_state})
    spec, found, decision = environment.action_spec, [], 0
    while True:
        seeds = np.array([seed + decision], np.int64)
        own = policy.propose(observation, -(-candidates // 2), seeds).chunks[0]
        if decision % every == 0:
            push = (
                noise * 0.5 * (spec.high - spec.low) * rng.normal(size=(candidates - len(own), 1, spec.size))
            )
            chunks = spec.clip(np.concatenate([own, own[0] + push.astype(np.float32)]))
            found.append(Branching(observation, chunks, _carry_out(environment, chunks)))
        outcome = environment.execute(own[0])
        decision += 1
        if outcome.success or outcome.truncated or outcome.steps < 1:
            return found
        observation = environment.observe()


def _carry_out(environment: Environment, chunks: np.ndarray) -> Observation:
    home, seen = environment.save(), []
    try:
        for chunk in chunks:
            environment.restore(home)
            environment.execute(chunk)
            seen.append(environment.observe())
    finally:
        environment.restore(home)
    return Observation.stack(seen)


@dataclass(frozen=True)
class Fidelity:
    """How well a world model sees what comes.

    Attributes:
        decisions: How many say something about order; where all outcomes are worth the same, none does.
        rank_correlation: Spearman's, within a decision, mean.
        chosen: Mean value, in reality, of the candidate that looked best in imagination.
        policy: Mean value, in reality, of the policy's own chunk.
        best: Mean value, in reality, of the best candidate.
        milliseconds: Wall time of a candidate, all candidates of a decision in one wave.
        psnr: Of imagined pictures against real ones, decibels, where the model can decode; else None.
        psnr_repeating: Of the present picture in their place.
    """

    decisions: int
    rank_correlation: float
    chosen: float
    policy: float
    best: float
    milliseconds: float
    psnr: float | None = None
    psnr_repeating: float | None = None


def fidelity(models: Models, decisions: Sequence[Branching]) -> tuple[Fidelity, list[np.ndarray]]:
    """Compares what is imagined with what was carried out.

    Returns:
        The numbers, and rows of pictures (before, real, imagined) for people, empty where nothing decodes.
    """
    from scipy.stats import spearmanr

    order, gains, shown = [], [], []
    world, value = models.world_model, models.reward_model
    for item in decisions:
        count = len(item.chunks)
        start = world.encode(item.before)[np.zeros(count, np.int64)]
        imagined = world.step(start, item.chunks).latent
        text = item.before.instruction * count
        guess, real = (value.score(part, text).value for part in (imagined, world.encode(item.after)))
        if np.ptp(real) > 1e-6 and np.ptp(guess) > 0:
            order.append(float(spearmanr(guess, real)[0]))  # type: ignore[arg-type]
        gains.append([real[guess.argmax()], real[0], real.max()])
        decode: Any = getattr(world, "decode", None)
        if decode is not None:
            shown.append(_pictures(decode(imagined), item))
    chosen, policy, best = np.mean(gains, axis=0)
    rows = [np.concatenate(parts) for parts in zip(*shown, strict=True)]
    return Fidelity(
        decisions=len(order),
        rank_correlation=float(np.mean(order)) if order else float("nan"),
        chosen=float(chosen),
        policy=float(policy),
        best=float(best),
        milliseconds=_milliseconds(world, decisions[0]),
        psnr=psnr(rows[2], rows[1]) if rows else None,
        psnr_repeating=psnr(rows[0], rows[1]) if rows else None,
    ), rows


def _milliseconds(world: Any, item: Branching) -> float:
    return milliseconds_a_candidate(_Sized(world, item.chunks.shape), item.before, len(item.chunks))


class _Sized:
    """A world model that says how long its chunks are."""

    def __init__(self, world: Any, shape: tuple[int, ...]) -> None:
        self.encode, self.step = world.encode, world.step
        self.horizon, self.action_size = shape[1:]


def _pictures(imagined: Mapping[str, np.ndarray], item: Branching) -> list[np.ndarray]:
    """Before, real and imagined, the cameras side by side, in the size of the imagined ones."""
    from PIL import Image

    def sized(image: np.ndarray, like: np.ndarray) -> np.ndarray:
        size = (like.shape[2], like.shape[1])
        return np.stack(
            [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BOX)) for one in image]
        )

    names, count = list(imagined), len(item.chunks)
    before = [sized(item.before.images[name].repeat(count, axis=0), imagined[name]) for name in names]
    real = [sized(item.after.images[name], imagined[name]) for name in names]
    guess = [imagined[name] for name in names]
    return [np.concatenate(parts, axis=2) for parts in (before, real, guess)]


def bench_imagination(
    *,
    benchmark: Benchmark,
    policy: Policy,
    compare: Sequence[str],
    models: str = "",
    tasks: str = "0",
    init_states: str = "22-29",
    candidates: int = 16,
    every: int = 4,
    noise: float = 0.2,
    seed: int = 0,
    out: str = "runs/bench/imagination",
) -> Path:
    """Compares the world models of several folders on the same decisions.

    Args:
        benchmark: Where the candidates are carried out; needs exact snapshots.
        policy: Plays the episodes.
        compare: Models folders, or names of shipped ones.
        models: Where ``policy`` was loaded from; said in the report only.
        tasks: Tasks, such as ``0-4``.
        init_states: Initial states of the episodes.
        candidates: Candidates of a decision.
        every: Decisions between two that are compared.
        noise: See ``branchings``.
        seed: Of policy and noise.
        out: Folder for ``imagination.json`` and a picture of every model that decodes.

    Returns:
        The report.
    """
    if candidates < 2 or not compare:
        raise ForethoughtError(
            f"Two candidates and a models folder are the least to compare; got candidates={candidates}, "
            f"compare={list(compare)}."
        )
    parts = {str(name): load_models(name) for name in compare}
    decisions: list[Branching] = []
    for task in parse_indices(tasks, "tasks", len(benchmark.tasks)):
        environment = benchmark.make(task)
        try:
            for state in parse_indices(init_states, "init_states", sys.maxsize):
                options: dict[str, Any] = {"candidates": candidates, "every": every, "noise": noise}
                decisions += branchings(environment, policy, state, seed=seed, **options)
        finally:
            environment.close()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, loaded in parts.items():
        numbers, rows = fidelity(loaded, decisions)
        found[name] = {key: getattr(numbers, key) for key in numbers.__dataclass_fields__}
        if rows:
            side_by_side(folder / f"{Path(name).name}.png", rows)
    report = {
        "command": shlex.join(["forethought", "bench", "imagination", *sys.argv[1:]]),
        "policy": models,
        "benchmark": benchmark.describe(),
        "tasks": tasks,
        "init_states": init_states,
        "decisions": len(decisions),
        "candidates": candidates,
        "world_models": found,
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2, default=str) + "\n")
    show(found)
    return folder / REPORT


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints one row a world model."""
    from rich.console import Console
    from rich.table import Table

    columns = ("rank_correlation", "chosen", "policy", "best", "psnr", "psnr_repeating", "milliseconds")
    table = Table("world model", *columns)
    for name, row in found.items():
        cells = ["" if row[key] is None else f"{row[key]:.3f}" for key in columns]
        table.add_row(name, *cells)
    Console().print(table)
