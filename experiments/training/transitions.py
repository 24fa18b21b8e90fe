"""Jumps over a chunk, drawn from recorded episodes: what dynamics and values learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...text import text_features
from ...world_models.encoder import CONTEXT_SIZE, ObservationEncoder, instruction_context
from .dataset import EpisodeSet
from .hindsight import Hindsight
from .layout import Layout, near_weight
from .loop import mixed_precision
from .poses import physical_states, pose_targets

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
        told: ``frames`` with what is known in place of what was estimated, ``float32 [F, D]``; None:
            nothing is.
        starts: Whether chains may start at ``told`` too: it says where the objects were.
        weight: Of each state in the loss of the dynamics, ``float32 [S]``, see ``near_weight``; None: one.
        columns: Weight of each number that changes in that loss, see ``Layout``; None: one.
        keys: Weight of each number in the distances of the retrieval memory, ``float32 [D]``; None: one.
    """

    frames: Tensor
    states: Tensor | None = None
    told: Tensor | None = None
    starts: bool = False
    weight: Tensor | None = None
    columns: Tensor | None = None
    keys: np.ndarray | None = None


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
    encoder: ObservationEncoder, data: EpisodeSet, layout: Layout, afterwards: Hindsight | None = None
) -> Encoded:
    """Latents of every frame, with what is known afterwards; of every state where poses are all they say."""
    frames = encode_frames(encoder, data, data.instruction[data.episode[data.frame_state]])
    columns, keys = layout.column_weights(), layout.key_weights()
    first = layout.first
    if layout.exact:
        context = instruction_context(text_features(data.instructions))[data.instruction[data.episode]]
        physical = physical_states(data)
        states = torch.cat([encoder.standardise(physical), context], dim=-1)
        return Encoded(
            frames, states.clone(), weight=near_weight(physical[:, first]), columns=columns, keys=keys
        )
    weight = torch.ones(len(data.step))
    ways = frames[:, first] * encoder.std[first] + encoder.mean[first]
    weight[data.frame_state] = near_weight(ways)
    told = frames.clone()
    if afterwards is not None:
        numbers, known = map(torch.from_numpy, afterwards.told(data.frame_state))
        numbers = (numbers - encoder.mean[layout.hindsight]) / encoder.std[layout.hindsight]
        told[:, layout.hindsight] = torch.where(known, numbers, frames[:, layout.hindsight])
    if layout.poses is not None:
        told[:, layout.poses] = pose_targets(encoder, data, layout.poses)
    return Encoded(
        frames, told=told, starts=layout.poses is not None, weight=weight, columns=columns, keys=keys
    )


class TransitionSampler:
    """Draws chains of jumps, ``[E, batch]`` of them; each member sees its own share of the episodes.

    Half of the chains start at the latent that the encoder estimated from images, so that the model learns
    to live with its errors. Where simulator states are all that a latent says the other half starts at exact
    ones, and all targets are exact. Else starts and targets are at frames: targets are the estimates but for
    what is known, by hindsight or from the simulator, and so are half of the starts where the simulator told.

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
        if self.encoded.states is not None:
            second = self._jittered(self.encoded.states[other], generator)
        elif self.encoded.starts and self.encoded.told is not None:
            second = self._jittered(self.encoded.told[self.frame_of[other]], generator)
        else:
            second = self.encoded.frames[self.frame_of[other]]
        return torch.cat([first, second], dim=1), np.concatenate([seen, other], axis=1)

    @staticmethod
    def _jittered(latent: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn((*latent.shape[:-1], latent.shape[-1] - CONTEXT_SIZE), generator=generator)
        return latent + F.pad(JITTER * noise, (0, CONTEXT_SIZE))

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
