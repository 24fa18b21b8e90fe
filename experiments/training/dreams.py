"""What a value learns from where the world model is too slow to be asked in every gradient step.

What follows some recorded starts is imagined once. The batches are those of any scheme of ``reward/schemes``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ...interfaces import ForethoughtError
from ...reward.schemes import Moments, Scheme
from ...text import text_features
from .dataset import EpisodeSet
from .loop import Loss
from .transitions import BOOTSTRAP
from .values import RIVALS, near_frames, undone

Imagine: TypeAlias = Callable[[Tensor, np.ndarray], Tensor]
"""From latents ``[n, D]`` and chunks ``float32 [n, H, A]`` to the latents ``[n, D]`` that follow."""


class Dreams:
    """Recorded frames, and what a world model imagines of some of them.

    Args:
        data: Episodes.
        vectors: Latents of their frames, ``float32 [F, D]``.
        learned: Frames that are learned from, ``int64``.
        starts: Those among them from which futures are imagined, ``int64 [n]``; a whole chunk follows each.
        imagine: The world model.
        keys: What near frames are found by, ``float32 [F, K]``.
        horizon: Chunk length H.
        discount: γ per control step.
        batch: Moments of a gradient step.
        members: Ensemble size E; each member sees its own share of the episodes.
        increments: Which numbers of an action are increments, whose negation undoes them.
        uses_failures: Whether failed episodes are learned from.

    Raises:
        ForethoughtError: No episode among those learned from succeeded.
    """

    def __init__(
        self,
        data: EpisodeSet,
        vectors: Tensor,
        learned: np.ndarray,
        starts: np.ndarray,
        imagine: Imagine,
        keys: np.ndarray,
        *,
        horizon: int,
        discount: float,
        batch: int,
        members: int,
        increments: Sequence[int] = (),
        uses_failures: bool = True,
    ) -> None:
        self.data, self.vectors, self._imagine, self._keys = data, vectors, imagine, keys
        self.horizon, self.discount, self.batch, self.members = horizon, discount, batch, members
        self._increments = list(increments)
        self._episode = data.episode[data.frame_state]
        wanted = data.success | uses_failures
        self.learned = learned[wanted[self._episode[learned]]]
        self.starts = starts[wanted[self._episode[starts]]]
        self.state = data.frame_state[self.starts]
        self.words = text_features(data.instructions)
        self.frame_of = np.full(len(data.step), -1)
        self.frame_of[data.frame_state] = np.arange(len(data.frame_state))
        over = data.step[data.frame_state] == data.length[self._episode]
        self.ends = self.learned[(over & data.success[self._episode])[self.learned]]
        if not len(self.ends):
            raise ForethoughtError(
                "No episode of the rollouts succeeded: a value cannot be learned. Collect with less noise."
            )
        self.mine = np.random.default_rng(0).random((members, len(data.length))) < BOOTSTRAP

    def imagine(self, chunks: np.ndarray) -> Tensor:
        """Latents ``[n, D]`` after a chunk from every start."""
        return self._imagine(self.vectors[self.starts], chunks)

    @cached_property
    def own(self) -> Tensor:
        """After the chunks that were executed there."""
        return self.imagine(self.data.chunks(self.state, self.horizon))

    @cached_property
    def rivals(self) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """After chunks that other episodes executed near there: latents ``[n, D]``, the states ``int64 [n]``
        at which these were executed, and whether there was one."""
        near = near_frames(self.data, self._keys)[self.starts]
        pick = np.random.default_rng(1).integers(RIVALS, size=(len(near), 1))
        frame = np.take_along_axis(near, pick, axis=1)[:, 0]
        state = self.data.frame_state[np.maximum(frame, 0)]
        known = (frame >= 0) & self.data.complete(state, self.horizon)
        known &= np.isin(frame, self.learned)
        return self.imagine(self.data.chunks(state, self.horizon)), state, known

    @cached_property
    def rewound(self) -> Tensor:
        """After undoing the chunks that led there; see ``Batch.rewound``."""
        return self.imagine(undone(self.data, self.state, self.horizon, self._increments))

    def moments(self, state: np.ndarray, latent: Tensor, known: np.ndarray | None = None) -> Moments:
        """Moments at states ``int64 [R]`` seen as ``latent [R, D]``, the same for all members; the weight is
        0 in an episode that is not a member's own, and where ``known [R]`` is false."""
        data, episode = self.data, self.data.episode[state]
        weight = self.mine[:, episode] & (True if known is None else known)
        shape = self.members, len(state)
        words = self.words[data.instruction[episode]]
        return Moments(
            latent=latent.expand(self.members, *latent.shape),
            text=words.expand(self.members, *words.shape),
            step=np.broadcast_to(data.step[state], shape),
            length=np.broadcast_to(data.length[episode], shape),
            success=np.broadcast_to(data.success[episode], shape),
            weight=torch.from_numpy(weight.astype(np.float32)),
            mismatched=np.zeros(shape, bool),
        )


class DreamBatch:
    """See ``reward.schemes.Batch``."""

    def __init__(self, source: Dreams, generator: torch.Generator) -> None:
        self.source, self.discount = source, source.discount

        def pick(count: int, among: int) -> np.ndarray:
            return torch.randint(among, (count,), generator=generator).numpy()

        third = source.batch // 3
        self.dream = pick(third, len(source.starts))
        frames = source.learned[pick(source.batch - third, len(source.learned))]
        frames = np.concatenate([frames, source.ends[pick(source.batch // 8, len(source.ends))]])
        seen = source.data.frame_state[frames]
        after = source.data.after(source.state[self.dream], source.horizon)
        self.rows = np.concatenate([seen, after])
        latent = torch.cat([source.vectors[frames], source.own[self.dream]])
        self.moments = source.moments(self.rows, latent)

    def following(self) -> Moments:
        """See ``Batch.following``."""
        source = self.source
        after = source.data.after(self.rows, source.horizon)
        frame = source.frame_of[after]
        known = (frame >= 0) & source.data.complete(self.rows, source.horizon)
        return source.moments(after, source.vectors[np.maximum(frame, 0)], known)

    def rivals(self) -> tuple[Moments, Moments]:
        """See ``Batch.rivals``."""
        source, dream = self.source, self.dream
        latent, state, known = source.rivals
        ends = (source.data.after(at[dream], source.horizon) for at in (source.state, state))
        own = source.moments(next(ends), source.own[dream])
        return own, source.moments(next(ends), latent[dream], known[dream])

    def rewound(self) -> Moments:
        """See ``Batch.rewound``. Nothing is known before the first step: those moments have no weight."""
        source, state = self.source, self.source.state[self.dream]
        back = np.minimum(source.data.step[state], source.horizon)
        return source.moments(state - back, source.rewound[self.dream], back > 0)


def dreamed_loss(source: Dreams, scheme: Scheme) -> Loss:
    """What ``fit`` minimises: the scheme's loss on batches of the source."""

    def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
        return scheme.loss(module, DreamBatch(source, generator))

    return loss
