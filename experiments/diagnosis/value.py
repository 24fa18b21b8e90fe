"""How well a value tells, on recorded episodes, what came of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from .recorded import Recorded

FRACTIONS = (25, 50, 75)
FEWEST = 3
"""Successes and failures that a task needs for an AUC of its own."""
BINS = 10


@dataclass(frozen=True)
class ValueReport:
    """What a value is worth.

    Attributes:
        auc: Percent of the episode to the area under the curve of success against failure at that moment:
            mean over tasks with both outcomes, over all episodes together where no task has enough.
        calibration_error: Expected distance between value and 1[success]·γ^(T−t), ten bins.
        reliability: For each bin that is not empty: mean value, mean outcome, share of the frames.
        rank_successes: Mean over successful episodes of the rank correlation of value and time.
        rank_failures: The same over failed ones, where it should not be positive.
        mean_successes, mean_failures: Mean value of all frames of each kind.
        curves: Outcome to the mean value at 0, 5, …, 100 % of the episode.
    """

    auc: dict[int, float]
    calibration_error: float
    reliability: tuple[tuple[float, float, float], ...]
    rank_successes: float
    rank_failures: float
    mean_successes: float
    mean_failures: float
    curves: dict[str, tuple[float, ...]]


def judge_value(recorded: Recorded, discount: float) -> ValueReport:
    """Measures the value at the recorded frames; γ is ``discount`` per control step."""
    data, value = recorded.data, recorded.value
    success = data.success[recorded.episode]
    remaining = data.length[recorded.episode] - recorded.step
    outcome = success * discount**remaining
    error, reliability = calibration(value, outcome)
    ranks = _ranks_in_time(recorded)
    return ValueReport(
        auc={percent: _auc(recorded, percent) for percent in FRACTIONS},
        calibration_error=error,
        reliability=reliability,
        rank_successes=mean(ranks[data.success]),
        rank_failures=mean(ranks[~data.success]),
        mean_successes=mean(value[success]),
        mean_failures=mean(value[~success]),
        curves={"success": _curve(recorded, True), "failure": _curve(recorded, False)},
    )


def calibration(
    value: np.ndarray, outcome: np.ndarray
) -> tuple[float, tuple[tuple[float, float, float], ...]]:
    """Expected calibration error, and mean value, mean outcome and share of each of ten equal bins."""
    bins = np.clip((value * BINS).astype(int), 0, BINS - 1)
    rows = [
        (float(value[inside].mean()), float(outcome[inside].mean()), float(inside.mean()))
        for index in range(BINS)
        if (inside := bins == index).any()
    ]
    return float(sum(share * abs(said - was) for said, was, share in rows)), tuple(rows)


def mean(numbers: Any) -> float:
    """Mean of the finite ones; NaN where there is none."""
    finite = np.asarray(numbers, float)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if finite.size else float("nan")


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's; NaN for fewer than three pairs or a constant side."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second)[0])  # type: ignore[arg-type]


def _frames_at(recorded: Recorded, percent: float) -> np.ndarray:
    """The frame of each episode that is nearest to so many percent of it, ``int64 [E]``."""
    wanted = recorded.data.length * percent / 100
    distance = np.abs(recorded.step - wanted[recorded.episode])
    order = np.lexsort((distance, recorded.episode))
    return order[np.searchsorted(recorded.episode[order], np.arange(len(recorded.data.length)))]


def _auc(recorded: Recorded, percent: int) -> float:
    value, data = recorded.value[_frames_at(recorded, percent)], recorded.data
    areas = []
    for task in range(len(data.instructions)):
        mine = data.instruction == task
        successes = int(data.success[mine].sum())
        if min(successes, int(mine.sum()) - successes) >= FEWEST:
            areas.append(roc_auc_score(data.success[mine], value[mine]))
    return float(np.mean(areas)) if areas else float(roc_auc_score(data.success, value))


def _ranks_in_time(recorded: Recorded) -> np.ndarray:
    order = np.argsort(recorded.episode, kind="stable")
    edges = np.searchsorted(recorded.episode[order], np.arange(len(recorded.data.length) + 1))
    return np.array(
        [
            rank_correlation(recorded.value[order[a:b]], recorded.step[order[a:b]])
            for a, b in itertools.pairwise(edges)
        ]
    )


def _curve(recorded: Recorded, outcome: bool) -> tuple[float, ...]:
    mine = recorded.data.success == outcome
    return tuple(
        float(recorded.value[_frames_at(recorded, percent)[mine]].mean()) for percent in range(0, 101, 5)
    )
