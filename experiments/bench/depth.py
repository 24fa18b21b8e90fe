"""Where depth pays, and where width does: planners of depth 1 to 4 at equal numbers of distinct evaluations.

Planners are those of the preset. With N simulations, depth 1 compares N chunks, and deeper ones have N/2 at
the root (the preset's own choice) or √N at every node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...interfaces import Observation, Planner
from ...planner import forethought
from ..evaluation.statistics import paired_comparison, wilson_interval
from .courses import COURSES, DISCOUNT, Course

DEPTHS = (1, 2, 3, 4)
"""Lengths of the imagined sequences; the first is what the others are compared with."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a planner, or the policy alone, did on all instances.

    Attributes:
        success: Whether the goal was reached within the limit of decisions, ``bool [B]``.
        regret: Value that the first decision lost, ``float64 [B]``.
        evaluated: Distinct evaluations of the first decision, mean over the rows.
    """

    success: np.ndarray
    regret: np.ndarray
    evaluated: float


def measure(
    simulations: Sequence[int],
    *,
    rows: int,
    depths: Sequence[int] = DEPTHS,
    courses: Sequence[Course] = COURSES,
) -> list[dict[str, Any]]:
    """Success of whole episodes and regret of their first decision, by problem, budget, depth and shape.

    Each is compared with depth 1 at the same budget, paired by instance: episodes gained and lost with
    McNemar's exact p, and the difference of regrets with half the width of its 95 % interval.
    """
    found: list[dict[str, Any]] = []
    for course in courses:
        alone = play(course, None, rows)
        found.append({"problem": course.name, "simulations": 0, "depth": 0, "children": 1, **_facts(alone)})
        for number in simulations:
            wide: Outcome | None = None
            for depth in depths:
                for children, inner in shapes(number, depth):
                    planner = forethought(
                        course,
                        course,
                        action_spec=course.spec,
                        simulations=number,
                        depth=depth,
                        children=children,
                        inner_children=inner,
                        bandwidths=course.bandwidths,
                        discount=DISCOUNT,
                    )
                    outcome = play(course, planner, rows)
                    wide = outcome if wide is None else wide
                    found.append(
                        {"problem": course.name, "simulations": number, "depth": depth, "children": children}
                        | _facts(outcome)
                        | _against(wide, outcome)
                    )
    return found


def shapes(simulations: int, depth: int) -> list[tuple[int, int]]:
    """Candidates of the root and of every other node."""
    if depth == 1:
        return [(simulations, 1)]
    root = math.ceil(math.sqrt(simulations))
    return [(max(1, simulations // 2), 8), (root, root)]


def play(course: Course, planner: Planner | None, rows: int) -> Outcome:
    """Episodes of all instances to their goal or the limit of decisions; None: the policy alone."""
    state = course.start(rows)
    reached, regret, evaluated = course.reached(state), np.zeros(rows), 0.0
    for index in range(course.limit):
        going = np.flatnonzero(~reached)
        if not going.size:
            break
        here, seeds = state[going], 1000 * going + index
        samples = course.samples(here, seeds)
        chunk, spent = samples.chunks[:, 0], np.zeros(1)
        if planner is not None:
            decision = planner.plan(Observation({}, here, ("",) * going.size), samples, seeds)
            chunk, spent = decision.chunk, decision.simulations
        state[going] = course.after(here, chunk)
        reached[going] = course.reached(state[going])
        if index == 0:
            regret[going] = course.optimum(here) - DISCOUNT * course.optimum(state[going])
            evaluated = float(spent.mean())
    return Outcome(reached, regret, evaluated)


def _facts(outcome: Outcome) -> dict[str, Any]:
    low, high = wilson_interval(int(outcome.success.sum()), outcome.success.size)
    return {
        "evaluated": outcome.evaluated,
        "success": float(outcome.success.mean()),
        "success_interval": [low, high],
        "regret": float(outcome.regret.mean()),
        "rows": outcome.success.size,
    }


def _against(wide: Outcome, outcome: Outcome) -> dict[str, Any]:
    paired = paired_comparison(wide.success.tolist(), outcome.success.tolist())
    difference = outcome.regret - wide.regret
    return {
        "gained": paired.gained,
        "lost": paired.lost,
        "p": paired.mcnemar_p,
        "regret_difference": float(difference.mean()),
        "regret_margin": float(1.96 * difference.std(ddof=1) / math.sqrt(difference.size)),
    }
