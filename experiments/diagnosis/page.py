"""One page of plots."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError
from .value import FRACTIONS
from .verdict import PARTS, Evidence, Verdict

GOOD, BAD, INK = "#2a7f4f", "#b03a2e", "#333333"


def draw_page(evidence: Evidence, verdict: Verdict, title: str, path: Path) -> Path:
    """Writes the page as PNG.

    Raises:
        ForethoughtError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ForethoughtError(
            "The page of plots needs matplotlib. Install the extra `viz` (pip install 'forethought[viz]'), "
            "or set page=false: the numbers and the verdict need nothing."
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 3, figsize=(13, 11.5))
    panels = (_time, _auc, _reliability, _jumps, _disagreement, _readout, _gap, _losses, _budget)
    for panel, axis in zip(panels, axes.flat, strict=True):
        panel(axis, evidence)
        axis.title.set_fontsize(10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}: {verdict.limit}", fontsize=14, x=0.02, ha="left", weight="bold")
    figure.text(0.02, 0.955, textwrap.fill(verdict.words, 165), va="top", fontsize=9, color=INK)
    figure.tight_layout(rect=(0, 0, 1, 0.9))
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=110)
    pyplot.close(figure)
    partial.replace(path)
    return path


def _time(axis: Any, evidence: Evidence) -> None:
    value = evidence.value
    percent = np.arange(0, 101, 5)
    axis.plot(percent, value.curves["success"], color=GOOD, label=f"succeeds (ρ {value.rank_successes:+.2f})")
    axis.plot(percent, value.curves["failure"], color=BAD, label=f"fails (ρ {value.rank_failures:+.2f})")
    axis.set(title="Value over the episode", xlabel="% of the episode", ylabel="value", ylim=(0, 1))
    axis.legend(frameon=False, fontsize=8)


def _auc(axis: Any, evidence: Evidence) -> None:
    axis.bar([f"{p} %" for p in FRACTIONS], [evidence.value.auc[p] for p in FRACTIONS], color=INK)
    axis.axhline(0.5, color=BAD, linewidth=1)
    axis.set(title="Value tells success from failure", ylabel="AUC", ylim=(0, 1))


def _reliability(axis: Any, evidence: Evidence) -> None:
    said, was, share = np.array(evidence.value.reliability).T
    axis.plot([0, 1], [0, 1], color="#bbbbbb")
    axis.scatter(said, was, s=20 + 400 * share, color=INK, alpha=0.7)
    error = evidence.value.calibration_error
    axis.set(title=f"Calibration (error {error:.3f})", xlabel="value", ylabel="discounted success")


def _jumps(axis: Any, evidence: Evidence) -> None:
    seen = evidence.dynamics
    names = ["model", "no change", "another\nchunk"]
    axis.bar(names, [seen.error, seen.error_standing, seen.error_shuffled], color=[GOOD, INK, BAD])
    axis.set(
        title=f"Error over a chunk (action effect {seen.action_effect:.2f})", ylabel="share of the spread"
    )


def _disagreement(axis: Any, evidence: Evidence) -> None:
    axis.scatter(*evidence.dynamics.points, s=6, color=INK, alpha=0.4)
    rank = evidence.dynamics.disagreement
    axis.set(title=f"Disagreement against error (ρ {rank:.2f})", xlabel="disagreement", ylabel="error")


def _readout(axis: Any, evidence: Evidence) -> None:
    seen = evidence.readout
    axis.set(title="Where is the object? (linear read-out)", ylabel="median error, mm")
    if seen is None:
        _absent(axis, "no object poses recorded")
        return
    names = ["position", "near", "distance", "without\nimages"]
    axis.bar(names, [seen.position, seen.near, seen.distance, seen.blind], color=[GOOD, GOOD, GOOD, INK])


def _gap(axis: Any, evidence: Evidence) -> None:
    seen = evidence.decisions
    axis.set(title="Return of the same candidates", ylabel="discounted success")
    if seen is None:
        _absent(axis, "simulator=false")
        return
    axis.bar(list(seen.returns), list(seen.returns.values()), color=INK)
    axis.set_xlabel(
        f"rank correlation: model {seen.rank_model:.2f}, value {seen.rank_value:.2f}, both {seen.rank:.2f}\n"
        f"optimism of the chosen {seen.optimism:+.2f}, of the policy's {seen.optimism_policy:+.2f}",
        fontsize=8,
    )


def _losses(axis: Any, evidence: Evidence) -> None:
    seen = evidence.decisions
    axis.set(title="What each part costs a decision", ylabel="return")
    if seen is None:
        _absent(axis, "simulator=false")
        return
    names = [part for part in PARTS if part in seen.losses]
    means = np.array([seen.losses[name].mean for name in names])
    bounds = np.array([[seen.losses[name].low, seen.losses[name].high] for name in names])
    axis.bar(names, means, color=BAD)
    axis.errorbar(names, means, np.abs(bounds - means[:, None]).T, fmt="none", ecolor=INK)
    axis.axhline(0, color=INK, linewidth=0.8)
    axis.tick_params(axis="x", labelsize=8)


def _budget(axis: Any, evidence: Evidence) -> None:
    seen = evidence.budget
    axis.set(title="Success against simulations", xlabel="simulations", ylabel="success", ylim=(0, 1))
    if seen is None:
        _absent(axis, "no results given")
        return
    rate = np.array([point.successes / max(point.episodes, 1) for point in seen.points])
    bounds = np.array([[point.low, point.high] for point in seen.points])
    places = np.arange(len(rate))
    axis.errorbar(places, rate, np.abs(bounds - rate[:, None]).T, fmt="o-", color=INK, capsize=3)
    axis.set_xticks(
        places, [str(point.simulations) if point.simulations else "alone" for point in seen.points]
    )


def _absent(axis: Any, why: str) -> None:
    axis.text(0.5, 0.5, why, ha="center", va="center", transform=axis.transAxes, color="#888888")
