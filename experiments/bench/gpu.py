"""``forethought bench gpu``: how long a decision takes with a large latent model on a GPU, what it launches,
and how far a wave is from what the hardware could do.

Networks have random weights; what is measured does not depend on them. Nothing is measured where torch sees
no GPU; ``device=cpu`` tries the script itself.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from ...interfaces import ActionSamples, ForethoughtError, Observation
from ...planner import Budget, KernelProposals, PolicyKernels, TreeSearch
from ...reward.value import ValueEnsemble, ValueModel
from ...world_models.captured import BUCKETS
from ...world_models.device import DeviceModels
from ...world_models.dynamics import ChunkDynamics
from ...world_models.encoder import CONTEXT_SIZE, ObservationEncoder
from ...world_models.latent import LatentWorldModel
from . import table
from .problem import ARM

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Types in which matrices are multiplied, by name."""

GOAL_MILLISECONDS = 10.0
"""Median that a decision should take."""


def bench_gpu(
    *,
    out: str,
    device: str = "cuda",
    features: int = 256,
    hidden: int = 1536,
    blocks: int = 4,
    members: int = 5,
    horizon: int = 8,
    simulations: int = 256,
    depth: int = 4,
    children: int = 64,
    wave: int = 32,
    batch: Sequence[int] = (1,),
    decisions: int = 200,
    precisions: Sequence[str] = ("float32", "bfloat16"),
    copy_mib: int = 1024,
    matrix: int = 8192,
) -> str:
    """Measures, prints tables and writes ``bench_gpu.json``; returns its path.

    Args:
        out: Folder for ``bench_gpu.json``.
        device: ``cuda``, or ``cpu`` to try the script.
        features, hidden, blocks, members: Learned numbers of a latent, and the ensemble's width, residual
            blocks and members: 52 million parameters by default.
        horizon: Steps of a chunk.
        simulations, depth, children, wave: Distinct evaluations of a decision, longest sequence of chunks,
            candidates of the root, and leaves that are evaluated together.
        batch: Numbers of trees side by side.
        decisions: How many are timed.
        precisions: Of ``PRECISIONS``.
        copy_mib, matrix: Sizes of the copy and of the product that bandwidth and peak are measured with.

    Raises:
        ForethoughtError: A precision is unknown, or a number is not positive.
    """
    if unknown := [name for name in precisions if name not in PRECISIONS]:
        raise ForethoughtError(f"bench gpu: precisions knows {', '.join(PRECISIONS)}; got {unknown}.")
    counts = [features, hidden, blocks, members, horizon, simulations, depth, children, wave, decisions]
    if any(count != int(count) or count < 1 for count in [*counts, *batch, copy_mib, matrix]):
        raise ForethoughtError(f"bench gpu: sizes and numbers must be integers >= 1; got {counts}, {batch}.")
    console, found = Console(), {}
    if not console.is_terminal:
        console = Console(width=120)
    if device == "cuda" and not torch.cuda.is_available():
        found = {"skipped": "torch sees no CUDA device here"}
        console.print(f"GPU: skipped, {found['skipped']}.")
        return _write(out, found)

    place = torch.device(device)
    world, value = large_models(features, hidden, blocks, members, horizon, place)
    networks = world.dynamics, value.network
    found["device"] = torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"
    found["parameters"] = sum(parameter.numel() for net in networks for parameter in net.parameters())
    found["goal_milliseconds"] = GOAL_MILLISECONDS
    console.print(f"{found['device']}, {found['parameters'] / 1e6:.1f} million parameters")

    slots = max(2 * (1 + simulations) * max(batch), 64 * BUCKETS[-1])
    ways: dict[str, Any] = {"plain, float32": (world, value)}
    for name in precisions:
        for kind, capture in (("slots", _as_it_is), ("graphs", None)):
            models = DeviceModels(
                world, value, precision=PRECISIONS[name], slots=slots, buckets=BUCKETS, capture=capture
            )
            models.prepare(question(1, horizon)[0])
            ways[f"{kind}, {name}"] = models, models

    settings = {"simulations": simulations, "depth": depth, "children": children, "wave": wave}
    found["settings"] = settings
    found["decisions"] = []
    for rows in batch:
        planners = {way: planner(*pair, horizon=horizon, **settings) for way, pair in ways.items()}
        for way, search in planners.items():
            timed = latency(search, rows, horizon, decisions)
            calls = launches(search, rows, horizon) if place.type == "cuda" else {}
            found["decisions"].append({"way": way, "batch": rows, **timed, "launches": calls})
        found.setdefault("agreement", []).extend(agreement(planners, rows, horizon, min(decisions, 50)))
    console.print(table.gpu_decisions(found["decisions"], GOAL_MILLISECONDS))
    console.print(table.gpu_agreement(found["agreement"]))

    found["bandwidth"] = bandwidth(place, copy_mib)
    found["roofline"] = []
    for name in precisions:
        models = ways[f"graphs, {name}"][0]
        peak = matrix_peak(place, PRECISIONS[name], matrix)
        for size in models.wave.sizes:
            row = roofline(models, size, found["bandwidth"], peak)
            found["roofline"].append({"precision": name, "peak": peak, **row})
    console.print(table.gpu_roofline(found["roofline"], found["bandwidth"]))
    return _write(out, found)


def large_models(
    features: int, hidden: int, blocks: int, members: int, horizon: int, device: torch.device
) -> tuple[LatentWorldModel, ValueModel]:
    """A latent world model that reads proprioception alone, and a value, with random weights."""
    torch.manual_seed(0)
    encoder = ObservationEncoder((), features=features)
    size = encoder.latent_size + CONTEXT_SIZE
    dynamics = ChunkDynamics(size, CONTEXT_SIZE, horizon, ARM.size, members, hidden, blocks)
    dynamics.step_scale.fill_(0.1)
    network = ValueEnsemble(size, members=members).to(device)
    world = LatentWorldModel(encoder, dynamics, privileged_supervision=False, device=device)
    return world, ValueModel(network, "random")


def question(rows: int, horizon: int, seed: int = 0) -> tuple[Observation, ActionSamples, np.ndarray]:
    """What a planner is asked."""
    draw = np.random.default_rng([seed, rows])
    observation = Observation({}, draw.normal(size=(rows, 8)).astype(np.float32), ("measure",) * rows)
    chunks = ARM.clip(draw.uniform(-0.8, 0.8, (rows, 16, horizon, ARM.size)).astype(np.float32))
    return observation, ActionSamples(chunks), np.arange(rows, dtype=np.int64) + 1000 * seed


def planner(
    world: Any, value: Any, *, horizon: int, simulations: int, depth: int, children: int, wave: int
) -> TreeSearch:
    """The search that is timed: every node draws its own chunks from kernels, with their densities."""
    return TreeSearch(
        world,
        value,
        KernelProposals(ARM, (PolicyKernels(bandwidths=(0.08,)),), flip_probability=0.0),
        ARM,
        budget=Budget(simulations=simulations),
        children=children,
        depth=depth,
        wave=wave,
    )


def latency(search: TreeSearch, rows: int, horizon: int, decisions: int) -> dict[str, Any]:
    """Quantiles of the milliseconds of a decision, and how deep its trees grew."""
    took, deepest, evaluated = [], [], 0
    for number in range(-5, decisions):
        asked = question(rows, horizon, abs(number))
        start = time.perf_counter()
        decision, run = search.imagine(*asked)
        took.append(1e3 * (time.perf_counter() - start))
        assert run is not None
        deepest.append(int(run.tree.depth[run.tree.known()].max()))
        evaluated = int(decision.simulations.sum())
    return {
        "p50": float(np.quantile(took[5:], 0.5)),
        "p95": float(np.quantile(took[5:], 0.95)),
        "p99": float(np.quantile(took[5:], 0.99)),
        "depth": float(np.median(deepest[5:])),
        "evaluated": evaluated,
        "decisions": decisions,
    }


def agreement(
    planners: dict[str, TreeSearch], rows: int, horizon: int, decisions: int
) -> list[dict[str, Any]]:
    """How often the decision is that of the plain models, and how far the candidates' values are off."""
    plain, *others = planners
    same, off = {way: [] for way in others}, {way: [] for way in others}
    for number in range(decisions):
        asked = question(rows, horizon, number)
        expected = planners[plain].plan(*asked)
        assert expected.candidates is not None
        for way in others:
            found = planners[way].plan(*asked)
            assert found.candidates is not None
            same[way] += (found.chunk == expected.chunk).all(axis=(1, 2)).tolist()
            off[way].append(np.abs(found.candidates.value - expected.candidates.value).max())
    return [
        {"way": way, "batch": rows, "same": float(np.mean(same[way])), "value_off": float(max(off[way]))}
        for way in others
    ]


def launches(search: TreeSearch, rows: int, horizon: int) -> dict[str, int]:
    """What one decision asks of the device, counted by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    asked = question(rows, horizon)
    search.plan(*asked)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        search.plan(*asked)
        torch.cuda.synchronize()
    events: Any = profiler.events()
    return counted((event.name, str(event.device_type).endswith("CUDA")) for event in events)


def counted(events: Iterable[tuple[str, bool]]) -> dict[str, int]:
    """Calls by kind, from the names of a profile's events and whether they are of the device: single kernels
    and graphs launched, copies, waits, and kernels that ran, those of graphs included."""
    found: Counter[str] = Counter(kernel_launches=0, graph_launches=0, copies=0, waits=0, kernels_run=0)
    for name, on_device in events:
        if on_device:
            found["kernels_run"] += not name.startswith(("Memcpy", "Memset"))
        elif "LaunchKernel" in name:
            found["kernel_launches"] += 1
        elif "GraphLaunch" in name:
            found["graph_launches"] += 1
        elif name.startswith(("cudaMemcpy", "cuMemcpy")):
            found["copies"] += 1
        elif name.startswith(("cuda", "cu")) and "Synchronize" in name:
            found["waits"] += 1
    return dict(found)


def roofline(models: DeviceModels, size: int, bytes_per_second: float, peak: float) -> dict[str, float]:
    """Of one wave of so many leaves: microseconds of the graph alone and of the whole call, the least they
    could take, and by what factor the graph misses it."""
    observation, _, _ = question(1, models.horizon)
    names = models.encode(observation)[np.zeros(size, np.int64)]
    chunks = np.zeros((size, models.horizon, ARM.size), np.float32)
    whole = best_seconds(lambda: models.step(names, chunks), models.device)
    graph = best_seconds(models.wave.captured[size].run, models.device)
    moved, operations = work(models, size)
    floor = max(moved / bytes_per_second, operations / peak)
    return {
        "leaves": size,
        "graph_us": 1e6 * graph,
        "call_us": 1e6 * whole,
        "bytes": moved,
        "operations": operations,
        "floor_us": 1e6 * floor,
        "bound_by_memory": float(moved / bytes_per_second >= operations / peak),
        "times_floor": graph / floor,
    }


def work(models: DeviceModels, size: int) -> tuple[float, float]:
    """Bytes and floating-point operations that a wave of so many leaves cannot do without: every weight is
    read once, every latent read and written once; every weight multiplies every leaf."""
    networks: tuple[nn.Module, ...] = models.world_model.dynamics, models.reward_model.network
    weights = [parameter for network in networks for parameter in network.parameters()]
    stored = sum(weight.numel() * weight.element_size() for weight in weights)
    observation, _, _ = question(1, models.horizon)
    latent = models.latents(models.encode(observation))
    moved = stored + size * (2 * latent.numel() * latent.element_size() + 4 * models.horizon * ARM.size)
    operations = 2 * size * sum(weight.numel() for weight in weights)
    return float(moved), float(operations)


def best_seconds(function: Callable[[], Any], device: torch.device, repeats: int = 30) -> float:
    """The least that one of several calls took, from start to the device being done."""
    took = []
    with torch.inference_mode():
        for _ in range(repeats + 3):
            _wait(device)
            start = time.perf_counter()
            function()
            _wait(device)
            took.append(time.perf_counter() - start)
    return min(took[3:])


def bandwidth(device: torch.device, mib: int) -> float:
    """Bytes read and written per second by a large copy."""
    source = torch.empty(mib << 20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * source.numel() / best_seconds(lambda: target.copy_(source), device, 10)


def matrix_peak(device: torch.device, precision: torch.dtype, size: int) -> float:
    """Floating-point operations per second of a large product of matrices."""
    left, right = (torch.randn(size, size, device=device).to(precision) for _ in range(2))
    return 2.0 * size**3 / best_seconds(lambda: left @ right, device, 10)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _as_it_is(function: Callable[[], None]) -> Callable[[], None]:
    """No capture: slots without graphs."""
    return function


def _write(out: str, found: dict[str, Any]) -> str:
    path = Path(out) / "bench_gpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return str(path)
