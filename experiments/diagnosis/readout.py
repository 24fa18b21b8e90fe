"""What a latent knows of where the object is: a linear read-out, in millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from .recorded import Recorded, vectors

NEAR = 0.1
"""Metres between gripper and object within which precision decides a grasp."""

ROUNDS = 8
"""Of reweighting."""


@dataclass(frozen=True)
class ReadoutReport:
    """Median errors of the object's place relative to the gripper, read linearly from latents of episodes
    that the read-out was not fitted to, millimetres.

    Attributes:
        position: Of the position.
        near: The same where the gripper is within 10 cm of the object.
        distance: Of the distance between gripper and object.
        blind: Of the position, read from proprioception and task alone: what an encoder must beat.
        skill: 1 − position/blind.
    """

    position: float
    near: float
    distance: float
    blind: float
    skill: float


def read_out(recorded: Recorded, *, seed: int = 0, most: int = 6000) -> ReadoutReport | None:
    """The read-out of the first object of interest; None where the episodes do not say where it was."""
    data = recorded.data
    if data.privileged is None or len(data.length) < 4:
        return None
    frames = np.sort(np.random.default_rng(seed).permutation(len(data.frame_state))[:most])
    state = data.frame_state[frames]
    target = 1e3 * (data.privileged[state, :3] - data.proprioception[state, :3]).astype(np.float64)
    episode = recorded.episode[frames]
    task = OneHotEncoder(sparse_output=False).fit_transform(data.instruction[episode][:, None])
    read = _cross_validated(vectors(recorded.latent[frames]), target, episode)
    blind = _cross_validated(np.concatenate([data.proprioception[state], task], axis=1), target, episode)
    error, floor = (np.linalg.norm(guess - target, axis=1) for guess in (read, blind))
    distance = np.linalg.norm(target, axis=1)
    near = distance < 1e3 * NEAR
    position, without = float(np.median(error)), float(np.median(floor))
    return ReadoutReport(
        position=position,
        near=float(np.median(error[near])) if near.any() else float("nan"),
        distance=float(np.median(np.abs(np.linalg.norm(read, axis=1) - distance))),
        blind=without,
        skill=1 - position / max(without, 1e-9),
    )


def _cross_validated(features: np.ndarray, target: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Predictions for each episode of a read-out fitted to the others."""
    guess = np.empty_like(target)
    folds = GroupKFold(min(4, len(np.unique(episode))))
    for fit, test in folds.split(features, target, episode):
        guess[test] = _robust(features[fit], target[fit]).predict(features[test])
    return guess


def _robust(features: np.ndarray, target: np.ndarray) -> Pipeline:
    """A linear read-out that minimises distances, not their squares, by reweighting: an object that fell off
    the table must not bend it."""
    reader = make_pipeline(StandardScaler(), Ridge(1e-2))
    weight = np.ones(len(target))
    for _ in range(ROUNDS):
        reader.fit(features, target, ridge__sample_weight=weight)
        error = np.linalg.norm(np.asarray(reader.predict(features)) - target, axis=1)
        weight = 1 / np.maximum(error, 2.0)
    return reader
