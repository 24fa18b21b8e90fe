"""The measurements on a device: skipped in words where there is none, and all else tried on the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from forethought.experiments.bench import gpu
from forethought.interfaces import ForethoughtError
from forethought.world_models.device import DeviceModels

SMALL = {
    "features": 4,
    "hidden": 8,
    "blocks": 1,
    "members": 2,
    "horizon": 2,
    "simulations": 40,
    "depth": 3,
    "children": 8,
    "wave": 8,
    "decisions": 3,
    "copy_mib": 1,
    "matrix": 32,
}


def run(folder, **options):
    with open(gpu.bench_gpu(out=str(folder), **(SMALL | options))) as file:
        return json.load(file)


def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(tmp_path) == {"skipped": "torch sees no CUDA device here"}
    assert "skipped, torch sees no CUDA device here" in capsys.readouterr().out


def test_a_run_measures_decisions_agreement_and_waves(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "BUCKETS", (4, 8))
    found = run(tmp_path, device="cpu", batch=[1, 2])
    ways = ["plain, float32"]
    ways += [f"{kind}, {name}" for name in ("float32", "bfloat16") for kind in ("slots", "graphs")]
    assert [(row["way"], row["batch"]) for row in found["decisions"]] == [
        (w, b) for b in (1, 2) for w in ways
    ]
    for row in found["decisions"]:
        assert row["evaluated"] == 40 * row["batch"]
        assert row["depth"] == 3
        assert 0.0 < row["p50"] <= row["p95"] <= row["p99"]
    exact = [row for row in found["agreement"] if "float32" in row["way"]]
    assert len(exact) == 4
    assert all(row["same"] == 1.0 and row["value_off"] < 1e-4 for row in exact)
    assert [(row["precision"], row["leaves"]) for row in found["roofline"]] == [
        (name, size) for name in ("float32", "bfloat16") for size in (4, 8)
    ]
    for row in found["roofline"]:
        assert row["times_floor"] == pytest.approx(row["graph_us"] / row["floor_us"])
    printed = capsys.readouterr().out
    assert "A decision on the device" in printed and "…" not in printed


def test_what_a_wave_cannot_do_without_is_counted_from_the_weights():
    world, value = gpu.large_models(4, 8, 1, 2, 2, torch.device("cpu"))
    weights = sum(p.numel() for net in (world.dynamics, value.network) for p in net.parameters())
    size = world.encode(gpu.question(1, 2)[0]).numel()
    for precision, each in ((torch.float32, 4), (torch.bfloat16, 2)):
        models = DeviceModels(world, value, precision=precision)
        moved, operations = gpu.work(models, 32)
        assert operations == 2 * 32 * weights
        assert moved == each * weights + 32 * (2 * 4 * size + 4 * 2 * 7)


def test_the_models_of_the_measurement_have_fifty_million_parameters():
    defaults = {"features": 256, "hidden": 1536, "blocks": 4, "members": 5, "horizon": 8}
    with torch.device("meta"):
        size = gpu.ObservationEncoder((), features=256).latent_size + gpu.CONTEXT_SIZE
        dynamics = gpu.ChunkDynamics(size, gpu.CONTEXT_SIZE, 8, 7, 5, 1536, 4)
        value = gpu.ValueEnsemble(size, members=5)
    count = sum(p.numel() for net in (dynamics, value) for p in net.parameters())
    assert 50e6 < count < 55e6
    arguments = gpu.bench_gpu.__kwdefaults__
    assert defaults == {name: arguments[name] for name in defaults}


def test_calls_are_counted_by_kind():
    events = [
        ("aten::mm", False),
        ("cudaLaunchKernel", False),
        ("cuLaunchKernelEx", False),
        ("cudaGraphLaunch", False),
        ("cudaMemcpyAsync", False),
        ("cudaStreamSynchronize", False),
        ("cudaMemsetAsync", False),
        ("ampere_sgemm", True),
        ("Memcpy HtoD (Pinned -> Device)", True),
        ("vectorized_elementwise_kernel", True),
    ]
    assert gpu.counted(events) == {
        "kernel_launches": 2,
        "graph_launches": 1,
        "copies": 1,
        "waits": 1,
        "kernels_run": 2,
    }


def test_questions_differ_by_seed_alone():
    for one, other in zip(gpu.question(2, 2, 3)[1].chunks, gpu.question(2, 2, 3)[1].chunks):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(gpu.question(2, 2, 3)[1].chunks, gpu.question(2, 2, 4)[1].chunks)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"precisions": ["float8"]}, "precisions knows float32, bfloat16"), ({"wave": 0}, "integers >= 1")],
)
def test_what_cannot_be_measured_is_refused(tmp_path, options, words):
    with pytest.raises(ForethoughtError, match=words):
        run(tmp_path, **options)
