"""Training of a value: draws what a scheme of ``reward/schemes`` learns from, and calibrates the result."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from ...interfaces import ForethoughtError
from ...reward.calibration import Calibration, calibration_error, fit_calibration
from ...reward.chunk_value import beside
from ...reward.labels import SCHEMES
from ...reward.schemes import Moments, Scheme
from ...reward.schemes.outcome import Outcome
from ...text import text_features
from ...world_models.dynamics import ChunkDynamics
from ...world_models.encoder import CONTEXT_SIZE, ObservationEncoder
from .dataset import EpisodeSet
from .loop import Loss, mixed_precision
from .transitions import Encoded, TransitionSampler, encode_frames

LOG = logging.getLogger(__name__)

RIVALS = 16
"""How many near moments of other episodes a start may take another chunk from."""


class ValueData:
    """Recorded episodes as moments with outcomes.

    Args:
        data: Episodes.
        encoded: Their latents.
        dynamics: Predicts latents; member i predicts what head i learns from.
        horizon: Chunk length H.
        discount: γ per control step.
        batch: Starts of each member and gradient step.
        uses_failures: Whether failed episodes are drawn.
        increments: Which numbers of an action are increments, whose negation undoes them.
        mismatched: Moments with another task's instruction beside the others, as a share of ``batch``.
        misread: Latents of the frames under another task's instruction, ``float32 [F, D]``, and which
            instruction each was given, ``int64 [F]``; needed where ``mismatched`` > 0.

    Raises:
        ForethoughtError: No episode succeeded, or there is no other instruction.
    """

    def __init__(
        self,
        data: EpisodeSet,
        encoded: Encoded,
        dynamics: ChunkDynamics,
        *,
        horizon: int,
        discount: float,
        batch: int,
        uses_failures: bool = True,
        increments: Sequence[int] = (),
        mismatched: float = 0.0,
        misread: tuple[Tensor, np.ndarray] | None = None,
    ) -> None:
        self.data, self.encoded, self.dynamics = data, encoded, dynamics
        self.horizon, self.discount, self.batch = horizon, discount, batch
        self.increments, self.misread = list(increments), misread
        self.negatives = round(mismatched * batch)
        if self.negatives and misread is None:
            raise ForethoughtError(
                f"mismatched={mismatched} needs episodes of at least two instructions; these have "
                f"{list(data.instructions)}. Set mismatched=0."
            )
        self.words = text_features(data.instructions)
        keep = data.success | uses_failures
        self.sample = TransitionSampler(data, encoded, horizon, batch, dynamics.members, keep)
        ends = data.step[data.frame_state] == data.length[data.episode[data.frame_state]]
        self.final = data.frame_state[data.success[data.episode[data.frame_state]] & ends]
        if not len(self.final):
            raise ForethoughtError(
                "No episode of the rollouts succeeded: a value cannot be learned. Collect with less noise."
            )

    def moments(self, state: np.ndarray, latent: Tensor, weight: Tensor | None = None) -> Moments:
        """Moments at states ``int64 [E, R]`` seen as ``latent [E, R, D]``."""
        episode = self.data.episode[state]
        return Moments(
            latent=latent,
            text=self.words[self.data.instruction[episode]],
            step=self.data.step[state],
            length=self.data.length[episode],
            success=self.data.success[episode],
            weight=torch.ones(state.shape) if weight is None else weight,
            mismatched=np.zeros(state.shape, bool),
        )

    def draw(self, generator: torch.Generator) -> ValueBatch:
        """One batch."""
        return ValueBatch(self, generator)

    @cached_property
    def near(self) -> np.ndarray:
        """See ``near_frames``."""
        keys = self.encoded.frames[:, :-CONTEXT_SIZE].numpy() * self.sample.column.sqrt().numpy()
        return near_frames(self.data, keys)


class ValueBatch:
    """See ``reward.schemes.Batch``."""

    def __init__(self, source: ValueData, generator: torch.Generator) -> None:
        self.source, self.generator = source, generator
        self.discount = source.discount
        sample = source.sample
        self.start, self.state = sample.draw(generator)
        chunk, self.after, _, self.known = sample.jump(self.state)
        self.predicted = self.imagine(self.start, chunk)
        shape = (source.dynamics.members, source.batch // 8)
        self.ends = source.final[torch.randint(len(source.final), shape, generator=generator).numpy()]
        self.moments = self._moments()

    def imagine(self, latent: Tensor, chunk: Tensor) -> Tensor:
        """Latents after chunks."""
        with torch.no_grad():
            return self.source.dynamics(latent, chunk)[0]

    def _moments(self) -> Moments:
        """Starts, what the world model predicts of them, successful ends, mismatched instructions."""
        source = self.source
        rows = np.concatenate([self.state, self.after, self.ends], axis=1)
        seen = source.encoded.frames[source.sample.frame_of[self.ends]]
        latent = torch.cat([self.start, self.predicted, seen], dim=1)
        weight = torch.cat([torch.ones(self.state.shape), self.known, torch.ones(self.ends.shape)], dim=1)
        self.rows = rows
        matched = source.moments(rows, latent, weight)
        return self._with_negatives(matched) if source.negatives else matched

    def _with_negatives(self, matched: Moments) -> Moments:
        source = self.source
        assert source.misread is not None
        latent, told = source.misread
        seen = [
            pool[torch.randint(len(pool), (source.negatives,), generator=self.generator).numpy()]
            for pool in source.sample.frames
        ]
        states = np.stack(seen)
        frames = source.sample.frame_of[states]
        wrong = source.moments(states, latent[frames])
        self.rows = np.concatenate([self.rows, states], axis=1)
        return Moments(
            latent=torch.cat([matched.latent, wrong.latent], dim=1),
            text=torch.cat([matched.text, source.words[told[frames]]], dim=1),
            step=np.concatenate([matched.step, wrong.step], axis=1),
            length=np.concatenate([matched.length, wrong.length], axis=1),
            success=np.concatenate([matched.success, np.zeros_like(wrong.success)], axis=1),
            weight=torch.cat([matched.weight, wrong.weight], dim=1),
            mismatched=np.concatenate([matched.mismatched, np.ones_like(wrong.mismatched)], axis=1),
        )

    def following(self) -> Moments:
        """See ``Batch.following``."""
        source = self.source
        after = source.data.after(self.rows.reshape(-1), source.horizon).reshape(self.rows.shape)
        latent, seen = source.sample.target(after)
        whole = source.data.complete(self.rows.reshape(-1), source.horizon).reshape(self.rows.shape)
        return source.moments(after, latent, seen * torch.from_numpy(whole.astype(np.float32)))

    def rivals(self) -> tuple[Moments, Moments]:
        """See ``Batch.rivals``. Pairs with an episode that a member does not learn from have no weight."""
        source, sample = self.source, self.source.sample
        half = self.source.batch // 2  # these starts are frames
        state = self.state[:, :half]
        near = source.near[sample.frame_of[state]]
        pick = torch.randint(RIVALS, (*state.shape, 1), generator=self.generator).numpy()
        frame = np.take_along_axis(near, pick, axis=2)[..., 0]
        other = source.data.frame_state[np.maximum(frame, 0)]
        chunk, after, _, known = sample.jump(other)
        mine = np.stack([pool[episode] for pool, episode in zip(sample.mine, source.data.episode[other])])
        known = known * torch.from_numpy((mine & (frame >= 0)).astype(np.float32))
        own = source.moments(self.after[:, :half], self.predicted[:, :half], self.known[:, :half])
        return own, source.moments(after, self.imagine(self.start[:, :half], chunk), known)

    def rewound(self) -> Moments:
        """See ``Batch.rewound``. Nothing is known before the first step: those moments have no weight."""
        source, data = self.source, self.source.data
        back = np.minimum(data.step[self.state], source.horizon)
        chunk = undone(data, self.state, source.horizon, source.increments)
        latent = self.imagine(self.start, torch.from_numpy(chunk))
        return source.moments(self.state - back, latent, torch.from_numpy((back > 0).astype(np.float32)))


def near_frames(data: EpisodeSet, keys: np.ndarray) -> np.ndarray:
    """Frames of other episodes with the same instruction near each frame, by Euclidean distance of the
    ``keys [F, K]``: ``int64 [F, RIVALS]``; −1 where there are fewer."""
    episode = data.episode[data.frame_state]
    near = np.full((len(keys), RIVALS), -1)
    for task in range(len(data.instructions)):
        rows = np.flatnonzero(data.instruction[episode] == task)
        if len(rows) < 2:
            continue
        count = min(4 * RIVALS, len(rows))
        found = rows[NearestNeighbors().fit(keys[rows]).kneighbors(keys[rows], count, False)]
        other = episode[found] != episode[rows][:, None]
        order = np.argsort(~other, axis=1, kind="stable")[:, :RIVALS]
        chosen = np.take_along_axis(np.where(other, found, -1), order, axis=1)
        near[rows, : chosen.shape[1]] = chosen
    return near


def undone(data: EpisodeSet, state: np.ndarray, horizon: int, increments: Sequence[int]) -> np.ndarray:
    """Chunks ``float32 [..., H, A]`` that undo the last H steps before states ``int64 [...]``, or as many as
    there were: increments negated, in the opposite order.

    Raises:
        ForethoughtError: No increments are named.
    """
    if not increments:
        raise ForethoughtError(
            "Rewinding negates the increments of an action, and none are named. Choose another scheme, or "
            "say which numbers of an action are increments."
        )
    first = (state - data.step[state])[..., None]
    back = np.minimum(data.step[state], horizon)
    offset = np.arange(horizon)
    last = state[..., None] - 1 - offset
    chunk = data.actions[np.maximum(last - 1, first)]  # a gripper returns to what was commanded before
    moving = (offset < back[..., None])[..., None]
    chunk[..., list(increments)] = -data.actions[np.maximum(last, first)][..., list(increments)] * moving
    return chunk


def value_loss(source: ValueData, scheme: Scheme) -> Loss:
    """What ``fit`` minimises: the scheme's loss on batches of the source."""

    def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
        with mixed_precision():
            return scheme.loss(module, source.draw(generator))

    return loss


def chunk_value_loss(source: ValueData, scheme: Outcome) -> Loss:
    """The scheme's loss on recorded states beside the chunks executed there, labelled as the moments at which
    the chunks start. No prediction is learned from, and no end of an episode: no chunk starts there."""

    def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
        start, state = source.sample.draw(generator)
        chunk, _, _, known = source.sample.jump(state)
        with mixed_precision():
            return scheme.fit(module, source.moments(state, beside(start, chunk), known), source.discount)

    return loss


def misread_frames(
    encoder: ObservationEncoder, data: EpisodeSet, seed: int
) -> tuple[Tensor, np.ndarray] | None:
    """Every frame as the encoder sees it when told to do another task, drawn at random.

    Returns:
        Latents ``float32 [F, D]`` and the instruction told ``int64 [F]``; None if there is only one.
    """
    count = len(data.instructions)
    if count < 2:
        return None
    truth = data.instruction[data.episode[data.frame_state]]
    told = (truth + np.random.default_rng(seed).integers(1, count, len(truth))) % count
    return encode_frames(encoder, data, told), told


def calibrate(
    source: ValueData, network: nn.Module, method: str, seed: int, draws: int = 16
) -> Calibration | None:
    """A calibration to discounted success, on what each head has not learned from.

    Every head judges estimated and predicted latents of the episodes outside its bootstrap share, so that no
    episode need be kept from training. The error it states is measured on one half of the episodes with the
    map fitted to the other half, both ways round.

    Returns:
        The calibration, or None, with a warning, where the heads left out too few episodes (fewer than four,
        or all with the same outcome) or order them the wrong way round.
    """
    logit, label, episode = _left_out(source, network, seed, draws)
    group = np.unique(episode, return_inverse=True)[1] % 2
    enough = all(
        len(np.unique(episode[group == half])) > 1 and np.ptp(label[group == half]) > 0 for half in (0, 1)
    )
    if not enough:
        LOG.warning("The value is not calibrated: its heads left out too few episodes. Give more of them.")
        return None
    mended = np.empty_like(label)
    try:
        for half in (0, 1):
            fitted = fit_calibration(method, logit[group != half], label[group != half])
            mended[group == half] = fitted(torch.from_numpy(logit[group == half])).numpy()
        whole = fit_calibration(method, logit, label)
    except ForethoughtError as error:
        LOG.warning("The value is not calibrated: %s", error)
        return None
    raw = torch.from_numpy(logit).sigmoid().numpy()
    error = (round(calibration_error(raw, label), 5), round(calibration_error(mended, label), 5))
    return replace(whole, error=error)


@torch.inference_mode()
def _left_out(
    source: ValueData, network: nn.Module, seed: int, draws: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, discounted success and episodes ``[n]`` of moments that the head asked did not learn from."""
    sample, data, generator = source.sample, source.data, torch.Generator().manual_seed(seed)
    usable = data.frame_state[data.complete(data.frame_state, source.horizon)]
    pools = [usable[~mine[data.episode[usable]]] for mine in sample.mine]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    empty = np.zeros(0, np.float32)
    if any(not len(pool) for pool in pools):
        return empty, empty, np.zeros(0, np.int64)
    for _ in range(draws):
        pick = [torch.randint(len(pool), (source.batch,), generator=generator).numpy() for pool in pools]
        state = np.stack([pool[rows] for pool, rows in zip(pools, pick)])
        start = source.encoded.frames[sample.frame_of[state]]
        chunk, after, _, _ = sample.jump(state)
        both = torch.cat([start, source.dynamics(start, chunk)[0]], dim=1)
        moments = source.moments(np.concatenate([state, after], axis=1), both)
        label = SCHEMES["success_discounted"].label(
            moments.step, moments.length, moments.success.astype(np.float32), source.discount
        )
        episode = data.episode[np.concatenate([state, after], axis=1)]
        found.append((network(both, moments.text).numpy().ravel(), label.ravel(), episode.ravel()))
    logit, label, episode = (np.concatenate(parts) for parts in zip(*found))
    return logit, label, episode
