"""Intervals and tests of success counts, exact, by scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a success rate; (0, 1) without an episode."""
    if episodes == 0:
        return 0.0, 1.0
    interval = binomtest(successes, episodes).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Paired:
    """An arm against the policy alone, over the episodes that both have finished.

    Attributes:
        gained: Episodes that failed with the policy alone and succeeded with the arm.
        lost: Episodes that succeeded with the policy alone and failed with the arm.
        difference: Success rate of the arm minus that of the policy, a fraction.
        mcnemar_p: Two-sided exact p of McNemar's test.
    """

    gained: int
    lost: int
    difference: float
    mcnemar_p: float


def paired_comparison(baseline: Sequence[bool], arm: Sequence[bool]) -> Paired:
    """Compares outcomes of the same episodes, in the same order."""
    before, after = np.asarray(baseline, bool), np.asarray(arm, bool)
    gained, lost = int((~before & after).sum()), int((before & ~after).sum())
    p = binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    difference = float(after.mean() - before.mean()) if before.size else 0.0
    return Paired(gained, lost, difference, float(p))
