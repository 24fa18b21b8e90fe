"""How well a world model predicts recorded jumps, and whether it listens to the actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...interfaces import RewardModel, WorldModel
from .recorded import BATCH, Recorded, vectors
from .value import rank_correlation


@dataclass(frozen=True, eq=False)
class DynamicsReport:
    """What predictions over one chunk are worth. Errors are root mean squares over jumps, as a share of the
    spread of all latents.

    Attributes:
        error: Of the prediction.
        error_standing: Of the prediction that nothing changes.
        error_shuffled: Of the prediction with the chunk of another jump of the same task.
        action_effect: 1 − error²/error_shuffled²: 0 where the actions tell the model nothing.
        value_change: Rank correlation between the change of value that is imagined and that of the recorded
            next frame.
        disagreement: Rank correlation between disagreement and error.
        points: Disagreement and error of each jump (at most 500), ``float64 [2, n]``.
    """

    error: float
    error_standing: float
    error_shuffled: float
    action_effect: float
    value_change: float
    disagreement: float
    points: np.ndarray


def judge_dynamics(
    recorded: Recorded, world_model: WorldModel, reward: RewardModel, *, seed: int = 0, most: int = 4000
) -> DynamicsReport:
    """Measures jumps between recorded frames, ``most`` of them."""
    generator = np.random.default_rng(seed)
    pick = np.sort(generator.permutation(len(recorded.start))[:most])
    start, end, chunks = recorded.start[pick], recorded.end[pick], recorded.chunks[pick]
    other = _shuffled(recorded.data.instruction[recorded.episode[start]], generator)
    now, then = vectors(recorded.latent[start]), vectors(recorded.latent[end])
    # One scale for all numbers of a latent: those that hardly vary are not worth more than others.
    scale = float(np.sqrt(vectors(recorded.latent).var(axis=0).sum())) or 1.0
    predicted, disagreement, imagined = _predict(recorded, world_model, reward, start, chunks)
    shuffled, _, _ = _predict(recorded, world_model, reward, start, chunks[other])

    def errors(guess: np.ndarray) -> np.ndarray:
        # Particles of an ensemble lie one after another; each is compared with the same truth.
        copies = guess.shape[1] // then.shape[1]
        gap = (guess.reshape(len(guess), copies, -1) - then[:, None]).mean(axis=1)
        return np.linalg.norm(gap, axis=1) / scale

    error, standing, wrong = errors(predicted), errors(now), errors(shuffled)
    rms = [float(np.sqrt(np.mean(gap**2))) for gap in (error, standing, wrong)]
    return DynamicsReport(
        error=rms[0],
        error_standing=rms[1],
        error_shuffled=rms[2],
        action_effect=1 - rms[0] ** 2 / max(rms[2] ** 2, 1e-12),
        value_change=rank_correlation(
            imagined - recorded.value[start], recorded.value[end] - recorded.value[start]
        ),
        disagreement=rank_correlation(disagreement, error),
        points=np.stack([disagreement, error])[:, :500],
    )


def _predict(
    recorded: Recorded, world_model: WorldModel, reward: RewardModel, start: np.ndarray, chunks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted latents ``[P, n]``, disagreement ``[P]`` and their values ``[P]``."""
    latents, spreads, values = [], [], []
    for first in range(0, len(start), BATCH):
        rows = start[first : first + BATCH]
        prediction = world_model.step(recorded.latent[rows], chunks[first : first + BATCH])
        score = reward.score(prediction.latent, recorded.instructions(rows))
        latents.append(_particles(prediction.latent))
        spreads.append(np.asarray(prediction.disagreement, np.float64))
        values.append(np.asarray(score.value, np.float64))
    return np.concatenate(latents), np.concatenate(spreads), np.concatenate(values)


def _particles(latent: object) -> np.ndarray:
    import torch

    array = (
        latent.detach().float().cpu().numpy() if isinstance(latent, torch.Tensor) else np.asarray(latent)
    ).astype(np.float64)
    return array.reshape(len(array), -1)


def _shuffled(task: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A permutation within each task."""
    other = np.arange(len(task))
    for index in np.unique(task):
        mine = np.flatnonzero(task == index)
        other[mine] = generator.permutation(mine)
    return other
