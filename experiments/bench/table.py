"""What was measured, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def speed(rows: Sequence[Mapping[str, Any]], linearity: float | None, title: str = "Speed") -> Table:
    """Distinct evaluations per second by setting, with the shares of the time and the ratio to the peer."""
    table = Table(title=title, caption=_caption(linearity))
    for name in ("threads", "actions", "B", "simulations", "wave", "by"):
        table.add_column(name, justify="left" if name in ("actions", "by") else "right")
    for name in ("evaluations/s", "µs each", "to mctx", "network", "gather", "sampling", "tree"):
        table.add_column(name, justify="right")
    before = None
    for row in rows:
        cell = (row["threads"], row["actions"], row["batch"])
        if before not in (None, cell):
            table.add_section()
        before = cell
        wave, ratio = row["wave"], row["to_peer"]
        table.add_row(
            str(row["threads"]),
            row["actions"],
            str(row["batch"]),
            str(row["simulations"]),
            "" if wave is None else str(wave),
            row["network"] or "mctx",
            f"{row['per_second']:,.0f}",
            f"{1e6 / row['per_second']:.1f}",
            "" if ratio is None or wave is None else f"{ratio:.2f}x",
            *(f"{row['shares'][n]:.2f}" if row["shares"] else "" for n in PARTS),
        )
    return table


PARTS = ("network", "gather", "sampling", "tree")


def _caption(linearity: float | None) -> str:
    if linearity is None:
        return ""
    return f"Time of a simulation, at the most of them over at the second fewest, worst: {linearity:.2f}"


def memory(found: Mapping[str, Mapping[str, float]]) -> Table:
    """Bytes by what they hold."""
    table = Table(title="Memory")
    for name in ("actions", "bytes a node", "bytes a latent", "nodes a simulation", "bytes a simulation"):
        table.add_column(name, justify="left" if name == "actions" else "right")
    for name, row in found.items():
        table.add_row(
            name,
            f"{row['node_bytes']:.0f}",
            f"{row['latent_bytes']:.0f}",
            f"{row['nodes_per_simulation']:.1f}",
            f"{row['bytes_per_simulation']:,.0f}",
        )
    return table


def regret(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Mean regret at equal distinct evaluations, and relative to waves of one."""
    table = Table(title="Regret of the decision at equal distinct evaluations")
    numbers = ("chunks", "simulations", "wave", "evaluated", "regret", "to wave 1", "± standard error")
    for name in ("problem", *numbers):
        table.add_column(name, justify="left" if name == "problem" else "right")
    for row in rows:
        table.add_row(
            row["problem"],
            str(row["candidates"]),
            str(row["simulations"]),
            str(row["wave"]),
            f"{row['evaluated']:.0f}",
            f"{row['regret']:.4f}",
            f"{row['ratio']:.3f}",
            f"{row['error']:.3f}",
        )
    return table


def depth(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Success and regret by depth and candidates of the root, and paired with depth 1 at the same budget;
    intervals are those of 95 %."""
    table = Table(title="Depth and width at equal distinct evaluations")
    names = ("problem", "evaluated", "depth", "root", "success", "95 %", "gained/lost", "p")
    for name in (*names, "regret", "to depth 1", "±"):
        table.add_column(name, justify="left" if name == "problem" else "right", no_wrap=True)
    before: tuple[Any, ...] = ()
    for row in rows:
        cell = row["problem"], row["simulations"]
        if before and before != cell:
            table.add_section()
        alone, first = not row["depth"], row["depth"] <= 1
        low, high = row["success_interval"]
        table.add_row(
            "" if before == cell else row["problem"],
            f"{row['evaluated']:.0f}",
            "policy" if alone else str(row["depth"]),
            "" if alone else str(row["children"]),
            f"{100 * row['success']:.0f} %",
            f"{100 * low:.0f}-{100 * high:.0f}",
            "" if first else f"{row['gained']}/{row['lost']}",
            "" if first else f"{row['p']:.0e}",
            f"{row['regret']:.4f}",
            "" if first else f"{row['regret_difference']:+.4f}",
            "" if first else f"{row['regret_margin']:.4f}",
        )
        before = cell
    return table


def facts(title: str, found: Mapping[str, float]) -> Table:
    """Names and numbers."""
    table = Table(title=title)
    for name in found:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_row(*(f"{value:.1f}".removesuffix(".0") for value in found.values()))
    return table


LAUNCHES = {
    "kernel_launches": "kernels",
    "graph_launches": "graphs",
    "copies": "copies",
    "waits": "waits",
    "kernels_run": "run",
}
"""What a decision asks of the device, and the heads of the columns."""


def gpu_decisions(rows: Sequence[Mapping[str, Any]], goal: float) -> Table:
    """Milliseconds of a decision, and what it launches, by how the models are run."""
    caption = f"The median is to stay below {goal:g} ms. Kernels and graphs launched; run: all kernels."
    table = Table(title="A decision on the device", caption=caption)
    for name in ("way", "B", "evaluated", "depth", "p50 ms", "p95", "p99", *LAUNCHES.values()):
        table.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["way"],
            str(row["batch"]),
            str(row["evaluated"]),
            f"{row['depth']:.0f}",
            *(f"{row[quantile]:.2f}" for quantile in ("p50", "p95", "p99")),
            *(str(row["launches"].get(name, "")) for name in LAUNCHES),
        )
    return table


def gpu_agreement(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Decisions and values beside those of the plain models."""
    table = Table(title="Beside the plain models in float32")
    for name in ("way", "B", "same decision", "value off by, most"):
        table.add_column(name, justify="left" if name == "way" else "right")
    for row in rows:
        table.add_row(row["way"], str(row["batch"]), f"{100 * row['same']:.0f} %", f"{row['value_off']:.1e}")
    return table


def gpu_roofline(rows: Sequence[Mapping[str, Any]], bandwidth: float) -> Table:
    """Time of a wave against the least that bandwidth and peak allow."""
    table = Table(title="One wave against the roofline", caption=f"Copies move {bandwidth / 1e9:,.0f} GB/s.")
    for name in (
        "precision",
        "leaves",
        "call µs",
        "graph µs",
        "floor µs",
        "times floor",
        "bound by",
        "TFLOP/s",
    ):
        table.add_column(name, justify="left" if name in ("precision", "bound by") else "right")
    for row in rows:
        table.add_row(
            row["precision"],
            str(row["leaves"]),
            f"{row['call_us']:,.0f}",
            f"{row['graph_us']:,.0f}",
            f"{row['floor_us']:,.1f}",
            f"{row['times_floor']:.1f}",
            "memory" if row["bound_by_memory"] else "arithmetic",
            f"{row['peak'] / 1e12:,.1f}",
        )
    return table
