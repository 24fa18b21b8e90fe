"""What each part costs a decision, in units of the return, from candidates whose returns are known.

The losses telescope: from the best of wider candidates (proposals), to the best of the planner's own (value),
to the one that the value prefers in exact states (encoder), in seen states (model), to the one that it
prefers in imagined ones. The best of noisy returns is too good: it is chosen by one half of the rollouts and
counted by the other (double estimation, van Hasselt 2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .decisions import BIGGER, OWN, POLICY, WIDE, Tried, only
from .value import mean, rank_correlation

DRAWS = 1000


@dataclass(frozen=True)
class Loss:
    """A mean over decisions with its bootstrapped 90 % interval, units of the return."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class DecisionsReport:
    """What tested decisions say.

    Attributes:
        decisions: How many.
        returns: Mean return of ``policy``, ``chosen``, ``best`` and ``random`` among the planner's own
            candidates, ``wide`` (the best of the wider ones and the policy's) and, where there is one,
            ``bigger`` (what a larger budget chooses).
        regret: best − chosen.
        rank_model: Rank correlation, within a decision, of imagined values and those of the true next states.
        rank_value: Of the values of the true next states and the returns.
        rank: Of imagined values and returns: what the search really relies on.
        optimism: Imagined value of the chosen − its return; ``optimism_policy`` the same of the policy's.
        losses: ``proposals``, ``encoder``, ``model``, ``value`` and ``budget`` (see the module).
        spread: Standard deviation of the planner's own candidates, units of half the range of the bounds.
        choice: Spread of the worth of the true next states among the planner's own candidates, as a share of
            that among the wider ones.
        promise: Worth of the best true next state among the wider candidates − among the planner's own.
    """

    decisions: int
    returns: dict[str, float]
    regret: float
    rank_model: float
    rank_value: float
    rank: float
    optimism: float
    optimism_policy: float
    losses: dict[str, Loss]
    spread: float
    choice: float
    promise: Loss


def judge_decisions(tested: Tried, seed: int = 0) -> DecisionsReport:
    """Reads the losses from tested decisions."""
    rows = np.arange(len(tested.chosen))
    own = tested.kind <= OWN
    outcome = tested.returns.mean(axis=2)
    wide = (tested.kind == POLICY) | (tested.kind == WIDE)
    best = _best(tested.returns, own)
    returns = {
        "policy": float(outcome[:, 0].mean()),
        "chosen": float(outcome[rows, tested.chosen].mean()),
        "best": float(best.mean()),
        "random": float(outcome[:, own].mean()),
        "wide": float(_best(tested.returns, wide).mean()),
    }
    if (tested.kind == BIGGER).any():
        returns["bigger"] = float(outcome[:, tested.kind == BIGGER].mean())

    generator = np.random.default_rng(seed)
    draws = [only(tested, generator.integers(0, len(rows), len(rows))) for _ in range(DRAWS)]
    drawn = [_losses(draw) for draw in draws]
    losses = {name: _interval(loss, [draw[name] for draw in drawn]) for name, loss in _losses(tested).items()}
    further = tested.kind == WIDE
    worth = tested.seen if np.isnan(tested.exact).any() else tested.exact
    promise = worth[:, wide].max(axis=1) - worth[:, own].max(axis=1)
    resampled = generator.integers(0, len(rows), (DRAWS, len(rows)))

    def within(first: np.ndarray, second: np.ndarray) -> float:
        return mean([rank_correlation(first[row], second[row]) for row in rows])

    return DecisionsReport(
        decisions=len(rows),
        returns=returns,
        regret=returns["best"] - returns["chosen"],
        rank_model=within(tested.imagined, tested.seen),
        rank_value=within(tested.seen, outcome),
        rank=within(tested.imagined, outcome),
        optimism=float((tested.imagined[rows, tested.chosen] - outcome[rows, tested.chosen]).mean()),
        optimism_policy=float((tested.imagined[:, 0] - outcome[:, 0]).mean()),
        losses=losses,
        spread=float(tested.spread.mean()),
        choice=float(worth[:, own].std(axis=1).mean() / max(worth[:, further].std(axis=1).mean(), 1e-9)),
        promise=_interval(float(promise.mean()), promise[resampled].mean(axis=1)),
    )


def _interval(measured: float, drawn: Any) -> Loss:
    low, high = np.quantile(drawn, (0.05, 0.95))
    return Loss(measured, float(low), float(high))


def _losses(tested: Tried) -> dict[str, float]:
    rows = np.arange(len(tested.chosen))
    own = np.flatnonzero(tested.kind <= OWN)
    outcome = tested.returns.mean(axis=2)

    def picked(judged: np.ndarray) -> float:
        return float(outcome[rows, own[judged[:, own].argmax(axis=1)]].mean())

    best = float(_best(tested.returns, tested.kind <= OWN).mean())
    wide = float(_best(tested.returns, (tested.kind == POLICY) | (tested.kind == WIDE)).mean())
    seen, imagined = picked(tested.seen), picked(tested.imagined)
    known = not np.isnan(tested.exact).any()
    exact = picked(tested.exact) if known else seen
    losses = {
        "proposals": wide - best,
        "value": best - exact,
        "encoder": exact - seen,
        "model": seen - imagined,
    }
    if (tested.kind == BIGGER).any():
        bigger = float(outcome[:, tested.kind == BIGGER].mean())
        losses["budget"] = bigger - float(outcome[rows, tested.chosen].mean())
    return losses


def _best(returns: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return of the best of some candidates, for each decision ``[D]``."""
    those = returns[:, among]
    rows = np.arange(len(those))
    half = those.shape[2] // 2
    if not half:
        return those[:, :, 0].max(axis=1)
    first, second = those[:, :, :half].mean(axis=2), those[:, :, half:].mean(axis=2)
    return 0.5 * (second[rows, first.argmax(axis=1)] + first[rows, second.argmax(axis=1)])
