"""A world whose values are known: eight places in a row, a goal at the right end, and a trap.

Each step moves right (0.7), left (0.25) or drops the load (0.05), which nothing mends. Latents are one-hot.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from forethought.experiments.training.dataset import EpisodeSet
from forethought.experiments.training.transitions import Encoded
from forethought.world_models.encoder import CONTEXT_SIZE

GOAL, TRAP, PLACES = 7, 8, 9
RIGHT, LEFT, DROP = (np.array(action, np.float32) for action in ([1, 0], [-1, 0], [0, 1]))
HORIZON = 2
DISCOUNT = 0.9
LIMIT = 60


def move(place: int, action: np.ndarray) -> int:
    if place in (GOAL, TRAP):
        return place
    return TRAP if action[1] > 0.5 else int(np.clip(place + round(float(action[0])), 0, GOAL))


def true_values() -> np.ndarray:
    """Discounted success of those who move as recorded, by place (the limit is too far to matter)."""
    matrix, right = np.eye(PLACES), np.zeros(PLACES)
    right[GOAL] = 1
    for place in range(GOAL):
        for probability, action in ((0.7, RIGHT), (0.25, LEFT), (0.05, DROP)):
            matrix[place, move(place, action)] -= DISCOUNT * probability
    return np.linalg.solve(matrix, right)


def best_values() -> np.ndarray:
    """Discounted success of those who only move right."""
    return np.append(DISCOUNT ** (GOAL - np.arange(GOAL + 1.0)), 0.0)


def latents(place: np.ndarray | Tensor) -> Tensor:
    one_hot = torch.eye(PLACES)[torch.as_tensor(place)]
    return torch.cat([one_hot, torch.zeros(*one_hot.shape[:-1], CONTEXT_SIZE)], dim=-1)


class LineDynamics(nn.Module):
    """Exact, behind the interface of ``ChunkDynamics``."""

    def __init__(self, members: int = 2) -> None:
        super().__init__()
        self.members = members

    def forward(self, latent: Tensor, chunk: Tensor) -> tuple[Tensor, Tensor]:
        place = latent[..., :PLACES].argmax(-1)
        actions = chunk.expand(*place.shape, *chunk.shape[-2:])
        for step in range(actions.shape[-2]):
            action = actions[..., step, :]
            moved = (place + action[..., 0].round().long()).clamp(0, GOAL)
            moved = torch.where(action[..., 1] > 0.5, TRAP, moved)
            place = torch.where(place >= GOAL, place, moved)
        return latents(place), torch.zeros(place.shape)


def walks(count: int, seed: int = 0, instructions: int = 1) -> tuple[EpisodeSet, Encoded]:
    """Episodes from random places, with a frame at every step."""
    rng = np.random.default_rng(seed)
    places, actions, step, length, success = [], [], [], [], []
    for _ in range(count):
        here = [int(rng.integers(GOAL))]
        done = []
        while len(done) < LIMIT and here[-1] != GOAL:
            done.append((RIGHT, LEFT, DROP)[rng.choice(3, p=[0.7, 0.25, 0.05])])
            here.append(move(here[-1], done[-1]))
            if here[-1] == TRAP and len(done) > 12:
                break
        places += here
        actions += [*done, done[-1]]
        step += range(len(here))
        length.append(len(done))
        success.append(here[-1] == GOAL)
    states = len(places)
    data = EpisodeSet(
        images={},
        frame_state=np.arange(states),
        proprioception=np.zeros((states, 8), np.float32),
        privileged=None,
        actions=np.array(actions, np.float32),
        episode=np.repeat(np.arange(count), np.array(length) + 1),
        step=np.array(step),
        length=np.array(length),
        success=np.array(success),
        instruction=np.arange(count) % instructions,
        instructions=tuple(f"task {index}" for index in range(instructions)),
        init_state=np.zeros(count, np.int64),
    )
    return data, Encoded(latents(np.array(places)), None)


def place_of(latent: Tensor) -> np.ndarray:
    return latent[..., :PLACES].argmax(-1).numpy()
