"""Which child to look at next: one function of the siblings' statistics per rule."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError
from .noise import gumbels, stream_keys
from .tree import Tree


class Siblings:
    """The children of one node in each of R rows, as a rule sees them. Visits include virtual ones.

    Attributes:
        value: Backed-up values, ``float64 [R, C]``; NaN where not evaluated, −inf where disqualified.
        prior: ``float64 [R, C]``.
        visits: ``int32 [R, C]``.
        parent_value: The parents' own scores V(s), ``float64 [R]``; NaN at the root.
        parent_visits: Visits of all children together, ``int64 [R]``.
        seeds: ``int64 [R]``.
    """

    def __init__(self, tree: Tree, rows: np.ndarray, nodes: np.ndarray, seeds: np.ndarray) -> None:
        self._tree, self._rows = tree, rows
        self.index = tree.children(rows, nodes)
        block = rows[:, None], self.index
        self.value = tree.value[block]
        self.prior = tree.prior[block]
        self.visits = tree.visits[block] + tree.pending[block]
        self.parent_value = tree.own[rows, nodes]
        self.parent_visits = self.visits.sum(axis=1)
        self.seeds = seeds

    @property
    def chunks(self) -> np.ndarray:
        """Action chunks, ``float32 [R, C, H, A]``."""
        return self._tree.chunk[self._rows[:, None], self.index]


class SelectionRule(Protocol):
    """Scores siblings; the search takes the highest that is not closed."""

    def __call__(self, siblings: Siblings) -> np.ndarray:
        """Scores ``float64 [R, C]``."""
        ...


def completed_value(siblings: Siblings) -> np.ndarray:
    """Values ``[R, C]`` with the gaps filled (Gumbel MuZero, Danihelka et al. 2022, appendix D, eq. 33).

    A child without a value receives the mean of the parent's own score and the prior-weighted mean of its
    evaluated siblings, the latter weighing as much as their visits. Disqualified children keep −inf.
    """
    value, visits = siblings.value, siblings.visits
    seen = np.isfinite(value)
    weight = np.where(seen, siblings.prior, 0.0)
    total = weight.sum(axis=1)
    mean = np.where(seen, value, 0.0)
    average = (weight * mean).sum(axis=1) / np.where(total > 0.0, total, 1.0)
    evaluated = np.where(seen, visits, 0).sum(axis=1)
    own = np.where(np.isfinite(siblings.parent_value), siblings.parent_value, average)
    mixed = np.where(total > 0.0, (own + evaluated * average) / (1.0 + evaluated), own)
    return np.where(np.isnan(value), mixed[:, None], value)


def rescaled(value: np.ndarray) -> np.ndarray:
    """Values mapped to [0, 1] among finite siblings, so that a rule's constants do not depend on the reward's
    scale."""
    finite = np.isfinite(value)
    low = np.where(finite, value, np.inf).min(axis=1, keepdims=True)
    high = np.where(finite, value, -np.inf).max(axis=1, keepdims=True)
    span = np.where(np.isfinite(high - low), np.maximum(high - low, 1e-8), 1.0)
    return np.where(finite, (value - np.where(np.isfinite(low), low, 0.0)) / span, -np.inf)


def improved_logits(siblings: Siblings, visit_offset: float, value_scale: float) -> np.ndarray:
    """Logits ``[R, C]`` of the improved policy: log prior + σ(completed Q) (Danihelka et al. 2022, section
    4).

    σ(q) = (visit_offset + max n)·value_scale·q with q rescaled to [0, 1] among siblings;
    −inf where disqualified.
    """
    value = rescaled(completed_value(siblings))
    most = siblings.visits.max(axis=1, keepdims=True)
    logits = np.log(np.maximum(siblings.prior, 1e-30))
    return logits + (visit_offset + most) * value_scale * value


def shortfall(logits: np.ndarray, siblings: Siblings) -> np.ndarray:
    """How far each child's share of the visits lies below the policy of these logits, ``[R, C]``.

    π′(a) − N(a) / (1 + ΣN): taking the largest makes visit shares follow π′ without drawing (Danihelka et al.
    2022, section 5).
    """
    best = logits.max(axis=1, keepdims=True)
    weight = np.exp(logits - np.where(np.isfinite(best), best, 0.0))
    policy = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)
    return policy - siblings.visits / (1.0 + siblings.parent_visits[:, None])


@dataclass(frozen=True)
class Puct:
    """Q + c·P·√N / (1 + n) (AlphaZero), Q rescaled to [0, 1] among siblings.

    Attributes:
        exploration: The constant c.
    """

    exploration: float = 1.25

    def __call__(self, siblings: Siblings) -> np.ndarray:
        value = rescaled(completed_value(siblings))
        parent = np.sqrt(np.maximum(siblings.parent_visits, 1))[:, None]
        return value + self.exploration * siblings.prior * parent / (1.0 + siblings.visits)


@dataclass(frozen=True)
class DensityUcb:
    """UCB with the proposal density in place of visit counts: Q + c·√(ln Σn / n), n = 1 + C·density.

    VLA-Reasoner (arXiv 2509.22643, section III-B) estimates how often an action would have been visited by
    its probability density, so that a tree that is too small for counts still balances. The density here is
    the prior, normalised over the C siblings; the 1 keeps the bonus finite.

    Attributes:
        exploration: The constant c.
    """

    exploration: float = 0.5

    def __call__(self, siblings: Siblings) -> np.ndarray:
        count = 1.0 + siblings.prior.shape[1] * siblings.prior
        bonus = np.sqrt(np.log(np.maximum(count.sum(axis=1, keepdims=True), 1.0)) / count)
        return completed_value(siblings) + self.exploration * bonus


@dataclass(frozen=True)
class SequentialHalving:
    """Gumbel's root rule: logits + σ(completed Q) among the children whose turn it is by sequential halving.

    Danihelka et al. 2022, section 3: the candidates are halved after every phase, each phase spending the
    same share of the budget. The candidates are draws from the prior already, so Gumbel noise would sample a
    second time and is off by default.

    Attributes:
        simulations: Simulations that the schedule is made for, those of phase one included. Beyond it (a
            budget in milliseconds) visits follow the improved policy softmax(logits + σ(Q)), which needs no
            end.
        gumbel_scale: Factor on the Gumbel noise, drawn once per row.
        visit_offset, value_scale: σ(q) = (visit_offset + max n)·value_scale·q with q rescaled to [0, 1].
    """

    simulations: int
    gumbel_scale: float = 0.0
    visit_offset: float = 50.0
    value_scale: float = 0.1

    def __call__(self, siblings: Siblings) -> np.ndarray:
        visits = siblings.visits
        score = improved_logits(siblings, self.visit_offset, self.value_scale)
        if self.gumbel_scale:
            noise = gumbels(stream_keys(siblings.seeds, -1), visits.shape[1])
            score = score + self.gumbel_scale * noise
        schedule = halving_schedule(visits.shape[1], self.simulations)
        turn = siblings.parent_visits
        planned = turn < schedule.size
        due = visits == schedule[np.minimum(turn, schedule.size - 1)][:, None]
        # A closed child can leave nobody with the visits that are due; then the score alone decides.
        halving = np.where(due, score + 1e6, score)
        return np.where(planned[:, None], halving, shortfall(score, siblings))


@lru_cache(maxsize=64)
def halving_schedule(children: int, simulations: int) -> np.ndarray:
    """Visits that the child of each simulation must have had, ``int64 [simulations]``.

    Each of log2(children) phases spends the same share of the simulations on half as many children as the
    phase before; when the halving is over, the last two take turns.
    """
    phases = max(1, int(np.ceil(np.log2(max(children, 1)))))
    turns: list[int] = []
    remaining, visits = children, 0
    while len(turns) < simulations:
        for _ in range(max(1, simulations // (phases * remaining))):
            turns.extend([visits] * remaining)
            visits += 1
        remaining = max(min(2, children), remaining // 2)
    schedule = np.asarray(turns[:simulations], np.int64)
    schedule.setflags(write=False)
    return schedule


@dataclass(frozen=True, eq=False)
class KernelRegression:
    """Shares statistics between near siblings before another rule judges them (KR-UCT, Yee et al. 2016).

    Value and visits of a child become kernel-weighted over all siblings: n̂_i = Σ_j k_ij·n_j and
    Q̂_i = Σ_j k_ij·n_j·Q_j / n̂_i, with k Gaussian in the root-mean-square distance per coordinate. Chunks
    whose binary gripper differs anywhere share nothing.

    Attributes:
        rule: The rule that receives the smoothed statistics.
        spec: Meaning and bounds of the action.
        bandwidth: Kernel width, units of half the range of the bounds.
    """

    rule: SelectionRule
    spec: ActionSpec
    bandwidth: float = 0.1

    def __post_init__(self) -> None:
        if not self.bandwidth > 0.0:
            raise ForethoughtError(f"bandwidth must be positive; got {self.bandwidth}.")

    def __call__(self, siblings: Siblings) -> np.ndarray:
        seen = np.isfinite(siblings.value) & (siblings.visits > 0)
        weight = self._similarity(siblings.chunks) * np.where(seen, siblings.visits, 0)[:, None, :]
        mass = weight.sum(axis=2)
        smooth = (weight * np.where(seen, siblings.value, 0.0)[:, None, :]).sum(axis=2) / np.maximum(
            mass, 1e-12
        )
        keep = np.isneginf(siblings.value) | (mass < 1e-6)
        siblings.value = np.where(keep, siblings.value, smooth)
        siblings.visits = np.where(seen, mass, siblings.visits + mass)
        return self.rule(siblings)

    def _similarity(self, chunks: np.ndarray) -> np.ndarray:
        unit = chunks / (0.5 * (self.spec.high - self.spec.low))
        flat = unit[..., list(self.spec.continuous)].reshape(*unit.shape[:2], -1)
        difference = flat[:, :, None] - flat[:, None]
        kernel = np.exp(-0.5 * (difference**2).mean(axis=-1) / self.bandwidth**2) if flat.shape[2] else 1.0
        binary = [i for i in range(self.spec.size) if i not in self.spec.continuous]
        bits = chunks[..., binary].reshape(*chunks.shape[:2], -1)
        # A chunk that is yet to be drawn is NaN and like no other.
        return np.nan_to_num(kernel * (bits[:, :, None] == bits[:, None]).all(axis=-1))


@dataclass(frozen=True)
class ProgressiveWidening:
    """How many children of a node are open to selection: ⌈c·n^α⌉ after n visits (Couëtoux et al. 2011).

    Attributes:
        factor: The constant c.
        power: The exponent α, in [0, 1].
    """

    factor: float = 1.0
    power: float = 0.5

    def __post_init__(self) -> None:
        if not self.factor > 0.0 or not 0.0 <= self.power <= 1.0:
            raise ForethoughtError(
                f"Progressive widening needs factor > 0 and power in [0, 1]; got {self.factor}, {self.power}."
            )

    def __call__(self, visits: np.ndarray) -> np.ndarray:
        """Open children ``int64 [R]`` of nodes visited ``[R]`` times."""
        return np.ceil(self.factor * np.maximum(visits, 1) ** self.power).astype(np.int64)
