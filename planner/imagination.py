"""One imagined step and its score, and what must hold before a decision begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..interfaces import (
    ActionSamples,
    ActionSpec,
    Decision,
    ForethoughtError,
    Latent,
    Observation,
    RewardModel,
    WorldModel,
)
from .search import Scoring
from .tree import finite_rows


@dataclass(frozen=True, eq=False)
class Imagined:
    """States after one chunk each.

    Attributes:
        latent: ``[M, ...]``.
        own: Score V(s) of the state, ``float64 [M]``; −inf where something was not finite.
        spread: The reward model's spread, ``float64 [M]``.
        done: Probability that the episode ended in success on the way, ``float64 [M]``.
        ended: Nothing is to be imagined beyond: the end is certain enough, or the state is out. ``bool [M]``.
    """

    latent: Latent
    own: np.ndarray
    spread: np.ndarray
    done: np.ndarray
    ended: np.ndarray


def imagine(
    world_model: WorldModel,
    reward_model: RewardModel,
    scoring: Scoring,
    latent: Latent,
    chunks: np.ndarray,
    instruction: Sequence[str],
) -> Imagined:
    """Predict and score the states after chunks ``[M, H, A]`` from latents ``[M, ...]``: one call of each
    model."""
    prediction = world_model.step(latent, chunks)
    done = np.asarray(prediction.done, np.float64).reshape(-1)
    disagreement = np.asarray(prediction.disagreement, np.float64).reshape(-1)
    score = reward_model.score(prediction.latent, instruction)
    value = np.asarray(score.value, np.float64).reshape(-1)
    spread = np.asarray(score.spread, np.float64).reshape(-1)
    with np.errstate(invalid="ignore"):
        own = value - scoring.pessimism * spread - scoring.disagreement * disagreement
    good = np.isfinite(own) & np.isfinite(done) & np.isfinite(disagreement) & finite_rows(prediction.latent)
    certain = np.where(good, np.clip(done, 0.0, 1.0), 0.0)
    return Imagined(
        latent=prediction.latent,
        own=np.where(good, own, -np.inf),
        spread=spread,
        done=certain,
        ended=~good | (certain >= scoring.terminal),
    )


def checked_samples(
    samples: ActionSamples, observation: Observation, seeds: np.ndarray, spec: ActionSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finite chunks ``[B, N, H, A]``, which rows' own chunk was finite ``bool [B]``, and seeds ``int64 [B]``.

    Raises:
        ForethoughtError: A shape does not fit.
    """
    chunks, batch = np.asarray(samples.chunks, np.float32), observation.batch
    if chunks.ndim != 4 or chunks.shape[0] != batch or min(chunks.shape) < 1 or chunks.shape[3] != spec.size:
        raise ForethoughtError(
            f"Policy chunks must be [B, N, H, A] with B={batch} rows and the action spec's A={spec.size}; "
            f"got shape {chunks.shape}. Wrap the policy with the action spec of its benchmark."
        )
    seeds = np.asarray(seeds, np.int64).reshape(-1)
    if seeds.size != batch:
        raise ForethoughtError(f"plan needs one seed per row, int64 [{batch}]; got {seeds.size} seeds.")
    finite = np.asarray(np.isfinite(chunks).all(axis=(2, 3)))
    whole = finite[:, 0]
    if not finite.all():
        own = np.where(whole[:, None, None], chunks[:, 0], 0.5 * (spec.low + spec.high))
        chunks = np.where(finite[:, :, None, None], chunks, own[:, None])
    return chunks, whole, seeds


def without_search(own: np.ndarray, reason: str) -> Decision:
    """The fallback of every row: the chunks ``own`` ``[B, H, A]`` as they came."""
    rows = len(own)
    unknown, no = np.full(rows, np.nan, np.float32), np.zeros(rows, bool)
    return Decision(
        chunk=own,
        slot=np.zeros(rows, np.int32),
        value=unknown,
        policy_value=unknown.copy(),
        overridden=no,
        fallback=~no,
        reason=(reason,) * rows,
        simulations=np.zeros(rows, np.int32),
    )
