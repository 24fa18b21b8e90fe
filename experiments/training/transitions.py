"""Jumps over a chunk, drawn from recorded episodes: what dynamics and values learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...text import text_features
from ...world_models.encoder import (
    CONTEXT_SIZE,
    PROPRIOCEPTION_FEATURES,
    ObservationEncoder,
    instruction_context,
    privileged_features,
    proprioception_features,
)
from .dataset import EpisodeSet
from .hindsight import HINDSIGHT_FEATURES, Hindsight
from .loop import mixed_precision

BOOTSTRAP = 0.7
"""Share of the episodes that each ensemble member sees."""

JITTER = 0.02
"""Standard deviation of the noise on exact start states, latent units: trust no number to the last digit."""


@dataclass(frozen=True)
class Encoded:
    """Latents of a set of episodes.

    Attributes:
        frames: Estimated from the images, ``float32 [F, D]``.
        states: From the simulator's state, ``float32 [S, D]``, or None without privileged supervision.
        told: ``frames`` with what hindsight tells in place of what was estimated, ``float32 [F, D]``; None:
            nothing is told.
        weight: Of each state in the loss of the dynamics, ``float32 [S]``, see ``near_weight``; None: one.
        columns: Weight of each number that changes in that loss, see ``column_weights``; None: one.
        keys: Weight of each number in the distances of the retrieval memory, ``float32 [D]``; None: one.
    """

    frames: Tensor
    states: Tensor | None = None
    told: Tensor | None = None
    weight: Tensor | None = None
    columns: Tensor | None = None
    keys: np.ndarray | None = None


def physical_states(data: EpisodeSet) -> Tensor:
    """Proprioception and object features of every state in physical units, ``[S, 29]``."""
    assert data.privileged is not None
    body = torch.from_numpy(data.proprioception)
    objects = privileged_features(body, torch.from_numpy(data.privileged))
    return torch.cat([proprioception_features(body), objects], dim=-1)


def near_weight(way: Tensor) -> Tensor:
    """Weight of a state by the way from the gripper to the first object, metres ``[..., 3]``: up to 4 within
    centimetres, where precision decides."""
    return 1 + 3 * torch.exp(-((way.norm(dim=-1) / 0.08) ** 2))


def column_weights(size: int, privileged: bool) -> Tensor:
    """Weight of each number of a latent in the loss of the dynamics: what decides a grasp first.

    Args:
        size: Numbers of a latent that change.
        privileged: Whether they are poses; else what hindsight tells, and free numbers.
    """
    body = [2.0] * 3 + [0.3] * 6 + [2.0] * 2 + [4.0] * 3
    if privileged:
        return torch.tensor(body + [0.3] * 6 + [1.0] * 3 + [0.1] * 6)
    return torch.tensor(body + [1.0] * 3 + [2.0] + [0.3] * (size - len(body) - 4))


def key_weights(size: int, privileged: bool) -> np.ndarray:
    """Weight of each number of a latent in the distances of the retrieval memory, ``float32 [size]``."""
    weights = np.ones(size, np.float32)
    weights[3:9] = 0.5  # rotation of the gripper
    weights[9:11] = 1.5  # fingers
    weights[11:14] = 3.0  # way to the first object
    if privileged:
        weights[14:20] = 0.3
        weights[23:29] = 0.1
    else:
        weights[18:-CONTEXT_SIZE] = 0.3
    return weights


@torch.inference_mode()
def encode_frames(encoder: ObservationEncoder, data: EpisodeSet, instruction: np.ndarray) -> Tensor:
    """Latents ``[F, D]`` of every frame, seen with the instruction ``int64 [F]`` in mind."""
    words = text_features(data.instructions)
    parts = []
    for start in range(0, len(data.frame_state), 1024):
        state = data.frame_state[start : start + 1024]
        seen = {name: torch.from_numpy(image[start : start + 1024]) for name, image in data.images.items()}
        body = torch.from_numpy(data.proprioception[state])
        parts.append(encoder(seen, body, words[instruction[start : start + 1024]]))
    return torch.cat([torch.cat(parts), instruction_context(words)[instruction]], dim=-1).clone()


@torch.no_grad()
def encode_episodes(
    encoder: ObservationEncoder, data: EpisodeSet, privileged: bool, afterwards: Hindsight | None = None
) -> Encoded:
    """Latents of every frame and, with ``privileged``, of every state; else with what is known afterwards."""
    frames = encode_frames(encoder, data, data.instruction[data.episode[data.frame_state]])
    context = instruction_context(text_features(data.instructions))[data.instruction[data.episode]]
    first = slice(PROPRIOCEPTION_FEATURES, PROPRIOCEPTION_FEATURES + 3)
    columns = column_weights(encoder.latent_size, privileged)
    keys = key_weights(frames.shape[1], privileged)
    if privileged:
        physical = physical_states(data)
        states = torch.cat([encoder.standardise(physical), context], dim=-1)
        weight = near_weight(physical[:, first])
        return Encoded(frames, states.clone(), weight=weight, columns=columns, keys=keys)
    weight = torch.ones(len(data.step))
    ways = frames[:, first] * encoder.std[first] + encoder.mean[first]
    weight[data.frame_state] = near_weight(ways)
    told = None
    if afterwards is not None:
        told = frames.clone()
        numbers, known = map(torch.from_numpy, afterwards.told(data.frame_state))
        place = slice(first.start, first.start + HINDSIGHT_FEATURES)
        numbers = (numbers - encoder.mean[place]) / encoder.std[place]
        told[:, place] = torch.where(known, numbers, frames[:, place])
    return Encoded(frames, told=told, weight=weight, columns=columns, keys=keys)


class TransitionSampler:
    """Draws chains of jumps, ``[E, batch]`` of them; each member sees its own share of the episodes.

    Half of the chains start at the latent that the encoder estimated from images, so that the model learns
    to live with its errors. With privileged supervision the other half starts at exact states, and all
    targets are exact; without, starts are the estimates at frames, and so are targets but for what hindsight
    tells: where the object was is better known afterwards than seen.

    Args:
        data: Episodes.
        encoded: Their latents.
        horizon: Chunk length H.
        batch: Chains of each member.
        members: Ensemble size E.
        episodes: Which episodes may be drawn, ``bool [episodes]``; all by default.

    Attributes:
        mine: Which episodes each member draws from, ``bool [episodes]`` each.
    """

    def __init__(
        self,
        data: EpisodeSet,
        encoded: Encoded,
        horizon: int,
        batch: int,
        members: int,
        episodes: np.ndarray | None = None,
    ) -> None:
        self.data, self.encoded, self.horizon = data, encoded, horizon
        self.batch, self.members = batch, members
        self.exact = encoded.states is not None
        self.weight = torch.ones(len(data.step)) if encoded.weight is None else encoded.weight
        changing = encoded.frames.shape[1] - CONTEXT_SIZE
        self.column = torch.ones(changing) if encoded.columns is None else encoded.columns
        self.frame_of = np.full(len(data.step), -1)
        self.frame_of[data.frame_state] = np.arange(len(data.frame_state))
        usable = data.complete(data.frame_state, horizon)
        if not self.exact:
            usable &= self.frame_of[data.after(data.frame_state, horizon)] >= 0
        frames = data.frame_state[usable]
        every = np.arange(len(data.step))
        states = every[data.complete(every, horizon)] if self.exact else frames
        allowed = np.ones(len(data.length), bool) if episodes is None else episodes
        generator = np.random.default_rng(0)
        self.frames, self.states, self.mine = [], [], []
        for _ in range(members):
            mine = allowed & (generator.random(len(allowed)) < BOOTSTRAP)
            mine = mine if mine.any() else allowed
            self.mine.append(mine)
            self.frames.append(frames[mine[data.episode[frames]]])
            self.states.append(states[mine[data.episode[states]]])

    def draw(self, generator: torch.Generator) -> tuple[Tensor, np.ndarray]:
        """Start latents ``[E, batch, D]`` and their states ``[E, batch]``."""
        half = self.batch // 2
        seen = np.stack([_pick(pool, half, generator) for pool in self.frames])
        other = np.stack([_pick(pool, self.batch - half, generator) for pool in self.states])
        first = self.encoded.frames[self.frame_of[seen]]
        if self.encoded.states is None:
            second = self.encoded.frames[self.frame_of[other]]
        else:
            second = self.encoded.states[other].clone()
            second[..., :-CONTEXT_SIZE] += JITTER * torch.randn(
                (*other.shape, second.shape[-1] - CONTEXT_SIZE), generator=generator
            )
        return torch.cat([first, second], dim=1), np.concatenate([seen, other], axis=1)

    def target(self, state: np.ndarray) -> tuple[Tensor, Tensor]:
        """Latents of states ``[...]`` and whether they are known."""
        if self.encoded.states is not None:
            return self.encoded.states[state], torch.ones(state.shape)
        frame = self.frame_of[state]
        frames = self.encoded.frames if self.encoded.told is None else self.encoded.told
        return frames[np.maximum(frame, 0)], torch.from_numpy((frame >= 0).astype(np.float32))

    def jump(self, state: np.ndarray) -> tuple[Tensor, np.ndarray, Tensor, Tensor]:
        """Chunk, following state, success on the way, and weight of the jump from each state."""
        flat = state.reshape(-1)
        after = self.data.after(flat, self.horizon)
        episode = self.data.episode[flat]
        done = self.data.success[episode] & (self.data.step[after] == self.data.length[episode])
        chunk = torch.from_numpy(self.data.chunks(flat, self.horizon)).unflatten(0, state.shape)
        known = torch.from_numpy(self.data.complete(flat, self.horizon).astype(np.float32)).view(state.shape)
        return (
            chunk,
            after.reshape(state.shape),
            torch.from_numpy(done.astype(np.float32)).view(state.shape),
            known,
        )

    def loss(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """Two jumps, the second from the first one's prediction."""
        latent, state = self.draw(generator)
        total = torch.zeros(())
        for _ in range(2):
            weight = self.weight[state]
            chunk, state, done, known = self.jump(state)
            with mixed_precision():
                latent, logit = module(latent, chunk)
            target, seen = self.target(state)
            error = F.smooth_l1_loss(latent, target, beta=0.05, reduction="none")[..., : len(self.column)]
            miss = F.binary_cross_entropy_with_logits(logit.float(), done, reduction="none")
            total = total + (((error * self.column).mean(-1) * seen * weight + 0.1 * miss) * known).mean()
        return total


def _pick(pool: np.ndarray, count: int, generator: torch.Generator) -> np.ndarray:
    return pool[torch.randint(len(pool), (count,), generator=generator).numpy()]
