"""From measurements to words: what limits you now.

Each rule looks at one measurement and says which part it speaks against, how badly (0 to 1) and what to do.
The worst finding is the verdict; among findings nearly as bad the part that the others are built on comes
first. Thresholds are where healthy and broken set-ups of the tests and of LIBERO parted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .budget import BudgetReport
from .dynamics import DynamicsReport
from .losses import DecisionsReport
from .readout import ReadoutReport
from .value import ValueReport

PARTS = ("encoder", "model", "value", "proposals", "budget")
"""In the order in which they are built on each other."""

CLOSE = 0.1
"""Findings this near to the worst one count as equally bad."""

QUIET = 0.25
"""Findings below are not worth a verdict."""

NOTHING = "nothing stands out"


@dataclass(frozen=True)
class Evidence:
    """Everything that was measured; None where it was not.

    Attributes:
        value, dynamics, readout, decisions, budget: See their modules.
        unknown_instructions: Share of the episodes whose instruction was not among those that the value was
            trained with; None where its folder does not say.
        learns_from_failures: Whether the value's label scheme uses failures; None where unknown.
    """

    value: ValueReport
    dynamics: DynamicsReport
    readout: ReadoutReport | None = None
    decisions: DecisionsReport | None = None
    budget: BudgetReport | None = None
    unknown_instructions: float | None = None
    learns_from_failures: bool | None = None


@dataclass(frozen=True)
class Finding:
    """What one measurement says against one part, and what to do about it where that goes without the
    measurement."""

    part: str
    severity: float
    words: str
    remedy: str = ""


@dataclass(frozen=True)
class Verdict:
    """What limits you now: one of ``PARTS``, or ``nothing stands out``; in words; and every finding."""

    limit: str
    words: str
    findings: tuple[Finding, ...]


def judge(evidence: Evidence) -> Verdict:
    """The verdict, worst finding first."""
    findings = sorted(
        (finding for rule in RULES for finding in rule(evidence) if finding.severity > 0),
        key=lambda finding: -finding.severity,
    )
    serious = [finding for finding in findings if finding.severity >= QUIET]
    if not serious:
        words = "What was measured is healthy."
        if findings:
            words += f" The largest finding speaks against the {findings[0].part}: {findings[0].words}"
        if evidence.decisions is None:
            words += " simulator=true measures decisions themselves."
        return Verdict(NOTHING, words, tuple(findings))
    near = [finding for finding in serious if finding.severity >= serious[0].severity - CLOSE]
    first = min(near, key=lambda finding: (PARTS.index(finding.part), -finding.severity))
    same = [first, *(one for one in serious if one is not first and one.part == first.part)]
    said = [f"What limits you now: {first.part}.", *(one.words for one in same)]
    words = " ".join([*said, *dict.fromkeys(one.remedy for one in same if one.remedy)])
    return Verdict(first.part, words, tuple(findings))


def _ramp(number: float, fine: float, bad: float) -> float:
    """0 at ``fine``, 1 at ``bad``, straight between; 0 for NaN."""
    if not math.isfinite(number):
        return 0.0
    return min(max((number - fine) / (bad - fine), 0.0), 1.0)


def _encoder(evidence: Evidence) -> Iterable[Finding]:
    seen = evidence.readout
    if seen is None:
        return
    severity = min(_ramp(seen.skill, 0.5, 0.1), _ramp(seen.position, 8.0, 25.0))
    yield Finding(
        "encoder",
        severity,
        f"A linear read-out of the latent misses the object by {seen.position:.0f} mm (median; "
        f"{seen.near:.0f} mm near it), proprioception and task alone by {seen.blind:.0f} mm. Train the "
        "encoder longer or on more frames, give it the wrist camera, or supervise it with poses.",
    )


def _model(evidence: Evidence) -> Iterable[Finding]:
    seen = evidence.dynamics
    yield Finding(
        "model",
        _ramp(seen.action_effect, 0.15, 0.02),
        f"The world model hardly listens to the actions: with another chunk of the same task its error is "
        f"{seen.error_shuffled:.2f}, with the right one {seen.error:.2f} (action effect "
        f"{seen.action_effect:.2f}). Check that actions and states of the training data belong together, "
        "then train it longer.",
    )
    ratio = seen.error / max(seen.error_standing, 1e-9)
    yield Finding(
        "model",
        0.9 * _ramp(ratio, 0.9, 1.2),
        f"Its error over a chunk is {100 * ratio:.0f} % of what predicting no change would give: train it "
        "longer, on data of these tasks.",
    )


def _value(evidence: Evidence) -> Iterable[Finding]:
    seen = evidence.value
    auc = max((seen.auc[50] + seen.auc[75]) / 2, seen.auc[75])
    if evidence.learns_from_failures is False:
        remedy = "Its labels leave failures out: train it with a scheme that uses them."
    elif evidence.unknown_instructions:
        remedy = "It was trained on other tasks: train it on rollouts of these."
    elif seen.rank_successes < 0.3:
        remedy = "It may have been trained on other tasks: train it on rollouts of these."
    else:
        remedy = "Train it on more rollouts of this policy, failures included."
    yield Finding(
        "value",
        _ramp(auc, 0.75, 0.6),
        f"The value does not tell success from failure: AUC {seen.auc[25]:.2f}, {seen.auc[50]:.2f}, "
        f"{seen.auc[75]:.2f} at 25, 50, 75 % of the episode.",
        remedy,
    )
    yield Finding(
        "value",
        0.9 * _ramp(seen.rank_successes, 0.5, 0.1),
        f"It does not rise where episodes succeed: rank correlation with time {seen.rank_successes:+.2f}, "
        f"calibration error {seen.calibration_error:.2f}.",
        remedy,
    )
    gap = seen.mean_failures / max(seen.mean_successes, 1e-6)
    yield Finding(
        "value",
        min(_ramp(seen.rank_failures, 0.15, 0.5), _ramp(gap, 0.5, 0.8)),
        f"It rises while episodes fail (rank correlation with time {seen.rank_failures:+.2f}) and thinks "
        f"{100 * gap:.0f} % as well of them as of successes.",
        remedy,
    )
    if evidence.unknown_instructions:
        share = 100 * evidence.unknown_instructions
        words = f"It never saw the instruction of {share:.0f} % of these episodes."
        yield Finding("value", 0.6 * evidence.unknown_instructions, words, remedy)


def _decisions(evidence: Evidence) -> Iterable[Finding]:
    seen = evidence.decisions
    if seen is None:
        return
    best = max(seen.returns["best"], seen.returns["wide"])
    scale = max(best - seen.returns["chosen"], 0.25 * best, 0.02)
    remedies = {
        "proposals": "Candidates far from the policy's reach more than its own do: retrieve from a memory, "
        f"widen bandwidths (the candidates spread by {seen.spread:.3f} of the half range) or add primitives.",
        "encoder": "The value chooses better in states that it knows exactly than in those that it sees.",
        "model": f"Imagined next states are ranked otherwise than real ones (rank correlation "
        f"{seen.rank_model:.2f}).",
        "value": f"The value prefers other next states than those that succeed (rank correlation "
        f"{seen.rank_value:.2f}).",
        "budget": "A larger budget chooses better: raise simulations.",
    }
    for part, loss in seen.losses.items():
        words = f"Of the return it costs {loss.mean:+.3f} ({loss.low:+.3f} to {loss.high:+.3f}). "
        severity = 0.8 * min(loss.mean / scale, 1.0) if loss.low > 0 else 0.0
        yield Finding(part, severity, words + remedies[part])
    yield Finding(
        "proposals",
        0.7 * (seen.promise.low > 0) * _ramp(seen.choice, 0.3, 0.1),
        f"The candidates leave hardly anything to choose: the worth of where they lead spreads "
        f"{100 * seen.choice:.0f} % as far as that of wider ones, the best of which lead to "
        f"{seen.promise.mean:+.3f} more value.",
        "Retrieve from a memory, widen bandwidths or add primitives.",
    )


def _budget(evidence: Evidence) -> Iterable[Finding]:
    seen = evidence.budget
    if seen is None:
        return
    most = seen.points[-1].simulations
    yield Finding(
        "budget",
        0.7 * (seen.rise_p < 0.05) * _ramp(seen.rise, 0.0, 0.1) * (seen.fall == 0),
        f"Success still rises by {100 * seen.rise:.0f} points up to {most} simulations (p = "
        f"{seen.rise_p:.2g}): raise them.",
    )
    yield Finding(
        "value",
        0.7 * (seen.fall_p < 0.05) * _ramp(seen.fall, 0.0, 0.1),
        f"Success falls by {100 * seen.fall:.0f} points from its best to {most} simulations (p = "
        f"{seen.fall_p:.2g}): the search finds what the value overrates. Train it on episodes in which the "
        "search acted (`forethought improve`).",
    )


RULES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (_encoder, _model, _value, _decisions, _budget)
"""A new measurement is one more rule."""
