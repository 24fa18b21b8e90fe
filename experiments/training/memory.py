"""The retrieval memory of a set of episodes."""

from __future__ import annotations

import numpy as np
import torch

from ...world_models.retrieval import RetrievalMemory
from .dataset import EpisodeSet
from .transitions import Encoded


def build_memory(
    data: EpisodeSet, encoded: Encoded, horizon: int, entries: int, seed: int
) -> RetrievalMemory:
    """Chunks of successful episodes with their latents as keys.

    Keys are estimated latents at frames and, where simulator state supervised training, exact ones at every
    fourth step.
    """
    episode = data.episode
    inside = data.success[episode] & (data.step < data.length[episode])
    frames = np.flatnonzero(inside[data.frame_state])
    state, keys = data.frame_state[frames], encoded.frames[frames]
    if encoded.states is not None:
        between = np.flatnonzero(inside & (data.step % horizon == horizon // 2))
        state = np.concatenate([state, between])
        keys = torch.cat([keys, encoded.states[between]])
    task = data.instruction[episode[state]]
    pick = equal_shares(task, entries, np.random.default_rng(seed))
    return RetrievalMemory(
        keys=keys[pick].numpy(),
        chunks=data.chunks(state[pick], horizon),
        task=task[pick],
        instructions=data.instructions,
        weights=np.ones(keys.shape[1], np.float32) if encoded.keys is None else encoded.keys,
    )


def equal_shares(task: np.ndarray, entries: int, generator: np.random.Generator) -> np.ndarray:
    """At most ``entries`` rows at random, as many of every task as there are: a task that rarely succeeds
    needs its few chunks more than another needs the rest of its many."""
    drawn = generator.permutation(len(task))
    turn = np.empty(len(task), np.int64)
    for one in np.unique(task):
        rows = np.flatnonzero(task[drawn] == one)
        turn[rows] = np.arange(len(rows))
    return drawn[np.argsort(turn, kind="stable")[:entries]]
