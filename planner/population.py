"""Sequences of chunks that are imagined together, and how they are: the arrays of the sampling planners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..interfaces import RewardModel, WorldModel
from .backup import Backup
from .scoring import Scoring
from .tree import NONE, LatentPool


@dataclass(eq=False)
class Population:
    """Sequences that are imagined together, for B rows. Row by row; n sequences of d chunks.

    Attributes:
        chunks: ``float32 [B, n, d, H, A]``.
        source: ``int8 [B, n]``.
        slot: Latent after each chunk, ``int64 [B, n, d]``; NONE where not imagined.
        own: Scores of the states, ``float64 [B, n, d]``; −inf where disqualified, NaN where not imagined.
        spread: The reward model's spread, ``float64 [B, n, d]``.
        done: Probability that the episode ended on the way, ``float64 [B, n, d]``.
        value: Backed-up value of the first chunk, ``float64 [B, n]``; NaN where not imagined.
        visits: Finite evaluations, ``int32 [B, n]``.
        after_policy: Whether sequence 0 begins with the policy's chunk, imagined in an earlier population.
    """

    chunks: np.ndarray
    source: np.ndarray
    after_policy: bool = False
    slot: np.ndarray = field(init=False)
    own: np.ndarray = field(init=False)
    spread: np.ndarray = field(init=False)
    done: np.ndarray = field(init=False)
    value: np.ndarray = field(init=False)
    visits: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shape = self.chunks.shape[:3]
        self.slot = np.full(shape, NONE, np.int64)
        self.own, self.spread, self.done = np.full(shape, np.nan), np.zeros(shape), np.zeros(shape)
        self.value, self.visits = np.full(shape[:2], np.nan), np.zeros(shape[:2], np.int32)


@dataclass(eq=False)
class Run:
    """One decision under way, for B rows.

    Attributes:
        pool: Latents of imagined states.
        root: Slots of the rows' states, ``int64 [B]``.
        samples: The policy's chunks, ``float32 [B, N, H, A]``, finite.
        instruction: B strings.
        seeds: ``int64 [B]``.
        open: Rows that still search, ``bool [B]``.
        spent: Distinct evaluations, ``int64 [B]``.
        populations: What was imagined; in the first, sequence 0 is the policy's.
        carried: What each row's last decision left, ``float32 [c, d-1, H, A]`` or None; empty: nothing.
        weights: Of the policy's chunks by their likelihoods, ``float64 [B, N]``, or None.
    """

    pool: LatentPool
    root: np.ndarray
    samples: np.ndarray
    instruction: tuple[str, ...]
    seeds: np.ndarray
    open: np.ndarray
    spent: np.ndarray
    populations: list[Population] = field(default_factory=list)
    carried: Sequence[np.ndarray | None] = ()
    weights: np.ndarray | None = None


def going(run: Run, population: Population, at: int, terminal: float) -> np.ndarray:
    """Sequences whose chunk ``at`` is to be imagined, ``bool [B, n]``: not those that have ended, are out, or
    know it already."""
    wanted = run.open[:, None] & (population.slot[:, :, at] == NONE)
    if at:
        before = population.own[:, :, at - 1], population.done[:, :, at - 1]
        wanted = wanted & np.isfinite(before[0]) & (before[1] < terminal)
    return wanted


def advance(
    run: Run,
    population: Population,
    at: int,
    world_model: WorldModel,
    reward_model: RewardModel,
    scoring: Scoring,
) -> None:
    """Imagine chunk ``at`` of all sequences that have come so far, in one call of each model."""
    row, sequence = np.nonzero(going(run, population, at, scoring.terminal))
    if not row.size:
        return
    before = run.root[row] if at == 0 else population.slot[row, sequence, at - 1]
    prediction = world_model.step(run.pool.take(before), population.chunks[row, sequence, at])
    score = reward_model.score(prediction.latent, [run.instruction[index] for index in row])
    seen = scoring.judge(prediction, score)
    here = row, sequence, at
    first = run.pool.add(prediction.latent)
    population.slot[here] = np.arange(first, run.pool.used)
    population.own[here], population.spread[here] = seen.own, seen.spread
    population.done[here] = seen.done
    np.add.at(run.spent, row, 1)


def back_up(population: Population, backup: Backup, discount: float) -> None:
    """Carry the scores of later states to the first, as the tree search does along a branch; ``discount`` is
    that of one chunk."""
    rows, number, depth = population.own.shape
    own = np.where(np.isfinite(population.own), population.own, -np.inf).reshape(-1, depth)
    done = population.done.reshape(-1, depth)
    value, visits = np.full(len(own), -np.inf), np.zeros(len(own), np.int32)
    for at in reversed(range(depth)):
        finite = np.isfinite(own[:, at])
        backed = backup(np.where(finite, own[:, at], 0.0), value[:, None], visits[:, None], discount)
        value = np.where(finite, done[:, at] + (1.0 - done[:, at]) * backed, -np.inf)
        visits = np.where(finite, visits + 1, 0)
    imagined = ~np.isnan(population.own[:, :, 0])
    population.value = np.where(imagined, value.reshape(rows, number), np.nan)
    population.visits = visits.reshape(rows, number).astype(np.int32)
    if population.after_policy:
        population.visits[:, 0] -= np.minimum(population.visits[:, 0], 1)  # its first was counted before


def best(chunks: np.ndarray, value: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``number`` sequences ``[B, n, ...]`` of highest value ``[B, n]``, in a tie the earlier first."""
    order = np.argsort(-value, axis=1, kind="stable")[:, :number]
    rows = np.arange(len(value))[:, None]
    return chunks[rows, order], value[rows, order]
