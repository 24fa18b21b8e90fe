"""From imagined sequences to the distribution of the next: what the sampling planners have in common.

A distribution is Gaussian in the continuous coordinates, with means of rotations on SO(3), and empirical in
the binary grippers: a new sequence takes the whole gripper pattern of one of those that it is fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..interfaces import ActionSpec
from .noise import coloured, normals, shared, stream_keys, uniforms
from .rotation import weighted_mean


@dataclass(frozen=True, eq=False)
class Distribution:
    """Over sequences of d chunks, for B rows.

    Attributes:
        mean: ``float32 [B, d, H, A]``, inside the bounds; binary grippers by majority of the weight.
        deviation: Standard deviations of the continuous indices, units of half the range of the bounds,
            ``float64 [B, d, H, C]``.
        patterns: Gripper commands to take over, ``float32 [B, n, d, H, G]``.
        weight: Their probabilities, ``float64 [B, n]``.
    """

    mean: np.ndarray
    deviation: np.ndarray
    patterns: np.ndarray
    weight: np.ndarray


class Noise(Protocol):
    """Correlates white noise over time, keeping its variance."""

    def __call__(self, white: np.ndarray) -> np.ndarray:
        """Noise of unit variance from white noise, both ``[..., d, H, C]``."""
        ...


@dataclass(frozen=True)
class SharedNoise:
    """The kernels' own: a share of the variance moves a chunk as a whole, chunks are independent."""

    share: float = 0.85

    def __call__(self, white: np.ndarray) -> np.ndarray:
        return shared(white, self.share)


@dataclass(frozen=True)
class ColouredNoise:
    """1/f^β over the whole sequence (iCEM, Pinneri et al. 2020, arXiv 2008.06389)."""

    exponent: float = 2.5

    def __call__(self, white: np.ndarray) -> np.ndarray:
        joined = white.reshape(*white.shape[:-3], white.shape[-3] * white.shape[-2], white.shape[-1])
        return coloured(joined, self.exponent).reshape(white.shape)


class Refinement(Protocol):
    """Where to look next.

    Attributes (read only): ``name``, the source that its draws are accounted to; ``noise``, how they vary
    over time.
    """

    @property
    def name(self) -> str: ...

    @property
    def noise(self) -> Noise: ...

    def kept(self, number: int) -> int:
        """How many of the best of ``number`` imagined sequences stay for the next update."""
        ...

    def update(
        self, previous: Distribution | None, sequences: np.ndarray, value: np.ndarray, spec: ActionSpec
    ) -> Distribution:
        """The next distribution.

        Args:
            previous: The last one, or None at the first update.
            sequences: ``float32 [B, n, d, H, A]``.
            value: ``float64 [B, n]``; −inf where disqualified.
            spec: Meaning and bounds of the action.
        """
        ...


def fit(sequences: np.ndarray, weight: np.ndarray, spec: ActionSpec) -> Distribution:
    """The distribution of sequences ``[B, n, d, H, A]`` with weights ``[B, n]``. A row without any weight is
    fitted to its first sequence."""
    total = weight.sum(axis=1, keepdims=True)
    first = np.arange(weight.shape[1]) == 0
    weight = np.where(total > 0.0, weight / np.where(total > 0.0, total, 1.0), first)
    spread_out = weight[:, :, None, None, None]
    whole = sequences.astype(np.float64)
    mean = (spread_out * whole).sum(axis=1)  # a binary gripper goes to its majority when clipped
    rotation = list(spec.rotation)
    if len(rotation) == 3:
        turns = np.moveaxis(whole[..., rotation], 1, -2) * spec.rotation_scale
        over = np.broadcast_to(weight[:, None, None, :], turns.shape[:-1])
        mean[..., rotation] = weighted_mean(turns, over) / spec.rotation_scale
    continuous = list(spec.continuous)
    half = 0.5 * (spec.high - spec.low).astype(np.float64)[continuous]
    difference = (whole[..., continuous] - mean[:, None][..., continuous]) / half
    deviation = np.sqrt((spread_out * difference**2).sum(axis=1))
    binary = [index for index in range(spec.size) if index not in continuous]
    return Distribution(spec.clip(mean), deviation, sequences[..., binary], weight)


def blend_means(old: np.ndarray, new: np.ndarray, momentum: float, spec: ActionSpec) -> np.ndarray:
    """Momentum·old + (1−momentum)·new for sequences ``[B, d, H, A]``, rotations on SO(3), grippers
    of the new."""
    pair = np.stack([old, new], axis=1)
    weight = np.broadcast_to(np.array([momentum, 1.0 - momentum]), (len(old), 2))
    mean = fit(pair, weight, spec).mean
    binary = [index for index in range(spec.size) if index not in spec.continuous]
    mean[..., binary] = new[..., binary]
    return mean


def draw(
    distribution: Distribution,
    number: int,
    seeds: np.ndarray,
    stream: int,
    noise: Noise,
    flip_probability: float,
    spec: ActionSpec,
) -> np.ndarray:
    """Sequences ``float32 [B, number, d, H, A]``, inside the bounds.

    Args:
        distribution: Where from.
        number: Draws per row.
        seeds: ``int64 [B]``.
        stream: Tells the draws of one decision apart.
        noise: How they vary over time.
        flip_probability: Probability that a binary gripper is inverted for a whole chunk.
        spec: Meaning and bounds of the action.
    """
    rows, depth, horizon, _ = distribution.mean.shape
    continuous = list(spec.continuous)
    binary = [index for index in range(spec.size) if index not in continuous]
    keys = stream_keys(seeds, stream).view(np.int64)
    shape = (rows, number, depth, horizon, len(continuous))
    white = normals(stream_keys(keys, 0), number * depth * horizon * len(continuous)).reshape(shape)
    sequences = np.repeat(distribution.mean[:, None].astype(np.float64), number, axis=1)
    half = 0.5 * (spec.high - spec.low).astype(np.float64)[continuous]
    sequences[..., continuous] += noise(white) * distribution.deviation[:, None] * half
    if binary:
        rank = uniforms(stream_keys(keys, 1), number)
        chosen = (np.cumsum(distribution.weight, axis=1)[:, None] <= rank[:, :, None]).sum(axis=2)
        heaviest = distribution.weight.argmax(axis=1)[:, None]  # rounding may leave the sum short of 1
        chosen = np.where(chosen < distribution.weight.shape[1], chosen, heaviest)
        pattern = distribution.patterns[np.arange(rows)[:, None], chosen].astype(np.float64)
        flip = uniforms(stream_keys(keys, 2), number * depth * len(binary)) < flip_probability
        flip = flip.reshape(rows, number, depth, 1, len(binary))
        mirrored = (spec.low + spec.high)[binary] - pattern
        sequences[..., binary] = np.where(flip, mirrored, pattern)
    return spec.clip(sequences)
