"""Gumbel's inner rule, and the selection rules by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..interfaces import ForethoughtError
from .selection import Puct, SelectionRule, SequentialHalving, Siblings, improved_logits, shortfall


@dataclass(frozen=True)
class ImprovedPolicy:
    """Gumbel's rule below the root: visits follow the improved policy, without noise or a constant to tune.

    π′ = softmax(log prior + σ(completed Q)), and the child is taken whose visits fall furthest short of it
    (Danihelka et al. 2022, "Policy improvement by planning with Gumbel", sections 4 and 5).

    Attributes:
        visit_offset, value_scale: σ(q) = (visit_offset + max n)·value_scale·q with q rescaled to [0, 1].
    """

    visit_offset: float = 50.0
    value_scale: float = 0.1

    def __call__(self, siblings: Siblings) -> np.ndarray:
        return shortfall(improved_logits(siblings, self.visit_offset, self.value_scale), siblings)


ROOT_RULES: dict[str, Callable[[int, float], SelectionRule]] = {
    "sequential_halving": lambda simulations, exploration: SequentialHalving(simulations),
    "gumbel": lambda simulations, exploration: SequentialHalving(simulations, gumbel_scale=1.0),
    "puct": lambda simulations, exploration: Puct(exploration),
}
"""Rules for the root by name, from the simulations of a decision and PUCT's constant."""

INNER_RULES: dict[str, Callable[[float], SelectionRule]] = {
    "puct": Puct,
    "gumbel": lambda exploration: ImprovedPolicy(),
}
"""Rules for every other node by name, from PUCT's constant."""


def root_rule(
    name: str, *, children: int, simulations: int | None = None, exploration: float = 1.25
) -> SelectionRule:
    """The root's rule of this name. Sequential halving plans for ``simulations``; for four times the children
    where only time limits the search.

    Raises:
        ForethoughtError: There is no such rule.
    """
    if name not in ROOT_RULES:
        raise ForethoughtError(f"Unknown root rule {name!r}; choose one of {', '.join(sorted(ROOT_RULES))}.")
    return ROOT_RULES[name](4 * children if simulations is None else simulations, exploration)


def inner_rule(name: str, *, exploration: float = 1.25) -> SelectionRule:
    """The rule of this name for nodes below the root.

    Raises:
        ForethoughtError: There is no such rule.
    """
    if name not in INNER_RULES:
        raise ForethoughtError(
            f"Unknown inner rule {name!r}; choose one of {', '.join(sorted(INNER_RULES))}."
        )
    return INNER_RULES[name](exploration)
