"""``forethought bench planner``: how fast the search is, beside mctx, and what its speed costs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...interfaces import ForethoughtError
from . import depth, regret, table, timing
from .peer import Peer
from .problem import CLOCKS, NETWORKS, Sizes
from .throughput import PROPOSALS, Setting, grid, linearity, measure, memory

WIDTH = 120
"""Columns of the tables where they go to a file."""

SECTIONS = ("throughput", "memory", "regret", "depth", "milliseconds", "density", "gpu")
"""What can be measured, in this order."""


def bench_planner(
    *,
    out: str,
    sections: Sequence[str] = SECTIONS,
    actions: Sequence[str] = ("shared", "sampled"),
    batch: Sequence[int] = (1, 16),
    simulations: Sequence[int] = (64, 256, 1024, 4096),
    wave: Sequence[int] = (8, 32),
    threads: Sequence[int | str] = (1, "all"),
    networks: Sequence[str] = ("numpy", "torch"),
    latent: int = 128,
    hidden: int = 256,
    horizon: int = 8,
    candidates: int = 16,
    repeats: int = 15,
    seconds: float = 4.0,
    regret_rows: int = 400,
    regret_simulations: Sequence[int] = (64, 256),
    regret_candidates: Sequence[int] = (8, 16),
    depth_rows: int = 400,
    depth_simulations: Sequence[int] = (64, 256),
    decisions: int = 1000,
    budget_milliseconds: float = 50.0,
    wave_milliseconds: float = 5.0,
    clock: str = "wall",
    peer: str | None = None,
) -> str:
    """Measures, prints tables and writes ``bench.json``; returns its path.

    Args:
        out: Folder for ``bench.json``.
        sections: What to measure, of ``SECTIONS``.
        actions: ``shared``: a node chooses among the policy's samples; ``sampled``: every node draws its own
            from kernels, with exact densities.
        batch: Numbers of trees side by side.
        simulations: Distinct evaluations of a decision and row.
        wave: Leaves of a row that are evaluated together.
        threads: Threads of the networks; ``all`` is every core.
        networks: What multiplies their matrices: ``numpy``, ``torch``.
        latent, hidden, horizon, candidates: Sizes of the networks, of a chunk, and chunks of a node.
        repeats: Rounds of a setting at most.
        seconds: After which a cell of settings ends, once it has 3 rounds.
        regret_rows: Instances of every problem with a known optimum.
        regret_simulations: Their budgets.
        regret_candidates: Chunks that a node of theirs chooses from.
        depth_rows: Instances of every problem on which depth and width are compared.
        depth_simulations: Their budgets.
        decisions: How many are made against the clock.
        budget_milliseconds: Budget of each.
        wave_milliseconds: What the model takes for a wave.
        clock: ``wall``, or ``cpu``: what the process computes, for a machine that others use. With several
            threads only ``wall`` means anything.
        peer: Interpreter of the environment that has mctx, or None.

    Raises:
        ForethoughtError: A name is unknown, a number is not positive, or the peer is not there.
    """
    check(
        sections,
        actions,
        networks,
        clock,
        [*batch, *simulations, *wave, repeats, decisions, regret_rows, depth_rows, *depth_simulations],
    )
    console, sizes = Console(), Sizes(latent, hidden, horizon, candidates)
    if not console.is_terminal:
        console = Console(width=WIDTH)
    numbers = sorted({(os.cpu_count() or 1) if count == "all" else int(count) for count in threads})
    if clock == "cpu":
        numbers = [1]
    found: dict[str, Any] = {"machine": machine(clock), "sizes": asdict(sizes)}
    if warning := timing.quiet(clock):
        console.print(f"[yellow]{warning}[/]")

    if "throughput" in sections:
        found["throughput"] = throughput(
            console,
            sizes,
            actions,
            batch,
            simulations,
            wave,
            numbers,
            networks,
            repeats,
            seconds,
            clock,
            peer,
        )
        found["linearity"] = linearity(found["throughput"])
        console.print(table.speed(found["throughput"], found["linearity"]))
    if "memory" in sections:
        found["memory"] = {
            name: memory(Setting(name, 1, max(simulations), max(wave), 1), sizes) for name in actions
        }
        console.print(table.memory(found["memory"]))
    if "regret" in sections:
        found["regret"] = [
            row
            for count in regret_candidates
            for row in regret.measure(regret_simulations, wave, rows=regret_rows, candidates=count)
        ]
        console.print(table.regret(found["regret"]))
    if "depth" in sections:
        found["depth"] = depth.measure(depth_simulations, rows=depth_rows)
        console.print(table.depth(found["depth"]))
    if "milliseconds" in sections:
        found["milliseconds"] = timing.milliseconds_kept(
            sizes, decisions=decisions, budget=budget_milliseconds, wave_takes=wave_milliseconds, clock=clock
        )
        console.print(table.facts("Milliseconds kept", found["milliseconds"]))
    if "density" in sections:
        found["density"] = timing.density_microseconds(sizes, clock=clock)
        console.print(table.facts("Density of one node's candidates, µs", found["density"]))
    if "gpu" in sections:
        found["gpu"] = on_gpu(sizes, actions, batch, simulations, wave, repeats, seconds)
        if "skipped" in found["gpu"]:
            console.print(f"GPU: skipped, {found['gpu']['skipped']}")
        else:
            console.print(table.speed(found["gpu"]["throughput"], None, title="On the GPU"))

    path = Path(out) / "bench.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return str(path)


def check(
    sections: Sequence[str],
    actions: Sequence[str],
    networks: Sequence[str],
    clock: str,
    counts: Sequence[int],
) -> None:
    """Refuses what cannot be measured."""
    for what, given, known in (
        ("sections", sections, SECTIONS),
        ("actions", actions, PROPOSALS),
        ("networks", networks, NETWORKS),
        ("clock", [clock], CLOCKS),
    ):
        if unknown := [name for name in given if name not in known]:
            raise ForethoughtError(
                f"bench planner: {what} knows {', '.join(known)}; got {', '.join(map(str, unknown))}."
            )
    if any(count != int(count) or count < 1 for count in counts):
        raise ForethoughtError(f"bench planner: sizes and numbers must be integers >= 1; got {list(counts)}.")


def machine(clock: str) -> dict[str, Any]:
    """What the numbers belong to."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "clock": clock,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def throughput(
    console: Console,
    sizes: Sizes,
    actions: Sequence[str],
    batch: Sequence[int],
    simulations: Sequence[int],
    wave: Sequence[int],
    threads: Sequence[int],
    networks: Sequence[str],
    repeats: int,
    seconds: float,
    clock: str,
    peer: str | None,
) -> list[dict[str, Any]]:
    """One row per setting; those of a cell that the peer also ran carry the ratio to it."""
    rows: list[dict[str, Any]] = []
    for count in threads:
        with contextlib.ExitStack() as stack:
            other = stack.enter_context(Peer(peer, clock, count)) if peer else None
            settings = grid(actions, batch, simulations, wave, [count], networks, other is not None)
            with console.status("measuring") as status:
                for setting, measured in measure(
                    settings, sizes=sizes, repeats=repeats, seconds=seconds, clock=clock, peer=other
                ):
                    rows.append(
                        asdict(setting)
                        | {
                            "per_second": measured.rate(),
                            "rounds": len(measured.seconds),
                            "seconds": measured.seconds,
                            "evaluated": measured.evaluated[0],
                            "shares": measured.shares(),
                        }
                    )
                    status.update(f"{len(rows)} of {len(settings) * len(threads)} settings measured")
    peers = {_cell(row): row["per_second"] for row in rows if row["wave"] is None}
    for row in rows:
        row["to_peer"] = row["per_second"] / peers[_cell(row)] if _cell(row) in peers else None
    return rows


def _cell(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["threads"], row["actions"], row["batch"], row["simulations"]


def on_gpu(
    sizes: Sizes,
    actions: Sequence[str],
    batch: Sequence[int],
    simulations: Sequence[int],
    wave: Sequence[int],
    repeats: int,
    seconds: float,
) -> dict[str, Any]:
    """The same grid with the networks and the latents on a GPU, or why it was skipped."""
    if not torch.cuda.is_available():
        return {"skipped": "torch sees no CUDA device here"}
    rows = [
        asdict(setting)
        | {
            "per_second": measured.rate(),
            "rounds": len(measured.seconds),
            "evaluated": measured.evaluated[0],
            "shares": measured.shares(),
            "to_peer": None,
        }
        for setting, measured in measure(
            grid(actions, batch, simulations, wave, [1], ["torch"], False),
            sizes=sizes,
            repeats=repeats,
            seconds=seconds,
            clock="wall",
            device="cuda",
        )
    ]
    return {"device": torch.cuda.get_device_name(0), "throughput": rows}
