"""A decision in words: its candidates by source, their values and visits, and why it switched or did not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..interfaces import Candidates, Decision, ForethoughtError


def explain(decision: Decision, row: int = 0, *, most: int = 8) -> str:
    """Plain text about one row of a decision.

    First what was decided and why; then a line for each source of candidates, with how many it offered, its
    best and mean value and its visits; then the ``most`` best candidates, the policy's own and the chosen one
    always among them. Values are success probabilities discounted by time; "out" marks a candidate whose
    future was not finite, "-" one that was never evaluated.

    Raises:
        ForethoughtError: There is no such row.
    """
    batch = len(decision.slot)
    if not 0 <= row < batch:
        raise ForethoughtError(f"This decision has rows 0..{batch - 1}; got row={row}.")
    if decision.fallback[row]:
        action = "executes the policy's own chunk, as a fallback"
    elif decision.overridden[row]:
        action = f"executes candidate {int(decision.slot[row])}"
    else:
        action = "executes the policy's own chunk"
    lines = [
        f"{action}: {decision.reason[row]}",
        f"value {_number(decision.value[row])}, the policy's own {_number(decision.policy_value[row])}, "
        f"{int(decision.simulations[row])} simulations",
    ]
    if decision.milliseconds:
        times = ", ".join(f"{name} {spent:.1f}" for name, spent in decision.milliseconds.items())
        lines.append(f"milliseconds: {times}")
    if decision.candidates is None:
        return "\n".join([*lines, "no candidates were compared"])
    lines += ["", *_sources(decision.candidates, row), "", *_best(decision, decision.candidates, row, most)]
    return "\n".join(lines)


def _sources(candidates: Candidates, row: int) -> list[str]:
    table = [("source", "offered", "best", "mean", "visits")]
    for index, name in enumerate(candidates.source_names):
        mine = candidates.source[row] == index
        if not mine.any():
            continue
        value = candidates.value[row, mine].astype(np.float64)
        finite = value[np.isfinite(value)]
        best, mean = (finite.max(), finite.mean()) if finite.size else (np.nan, np.nan)
        visits = int(candidates.visits[row, mine].sum())
        table.append((name, str(int(mine.sum())), _number(best), _number(mean), str(visits)))
    return _aligned(table)


def _best(decision: Decision, candidates: Candidates, row: int, most: int) -> list[str]:
    value = candidates.value[row].astype(np.float64)
    ranked = np.argsort(-np.where(np.isnan(value), -np.inf, value), kind="stable")
    chosen = int(decision.slot[row])
    shown = {int(slot) for slot in ranked[: max(most, 0)]} | {0, chosen}
    table = [("candidate", "source", "value", "over policy", "visits", "prior", "")]
    for slot in (int(slot) for slot in ranked if int(slot) in shown):
        gain = value[slot] - value[0] if np.isfinite(value[slot]) and np.isfinite(value[0]) else np.nan
        table.append(
            (
                str(slot),
                candidates.source_names[int(candidates.source[row, slot])],
                _number(value[slot]),
                _number(gain, "+.3f"),
                str(int(candidates.visits[row, slot])),
                _number(candidates.prior[row, slot]),
                "executed" if slot == chosen else "",
            )
        )
    left = candidates.value.shape[1] - len(shown)
    return _aligned(table) + ([f"and {left} more"] if left else [])


def _number(value: float, style: str = ".3f") -> str:
    if np.isnan(value):
        return "-"
    return format(float(value), style) if np.isfinite(value) else "out"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to one width; numbers to the right, the second column of words too."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    rows = []
    for line in table:
        cells = [
            cell.ljust(width) if _is_word(table, column) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths))
        ]
        rows.append("  ".join(cells).rstrip())
    return rows


def _is_word(table: Sequence[Sequence[str]], column: int) -> bool:
    return any(line[column][:1].isalpha() and line[column] != "out" for line in table[1:])
