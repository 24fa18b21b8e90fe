"""Rotations as axis-angle vectors, through unit quaternions (w, x, y, z)."""

from __future__ import annotations

import numpy as np


def to_quaternion(vector: np.ndarray) -> np.ndarray:
    """Unit quaternions ``[..., 4]`` of axis-angle vectors in radians ``[..., 3]``."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    # sin(θ/2)/θ, by sinc so that it is exact at zero: np.sinc(x) = sin(πx)/(πx).
    return np.concatenate([np.cos(0.5 * angle), 0.5 * np.sinc(0.5 * angle / np.pi) * vector], axis=-1)


def to_vector(quaternion: np.ndarray) -> np.ndarray:
    """Axis-angle vectors ``[..., 3]`` of unit quaternions, angles in [0, π]."""
    quaternion = np.where(quaternion[..., :1] < 0.0, -quaternion, quaternion)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, quaternion[..., :1])
    factor = np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 2.0)
    return factor * quaternion[..., 1:]


def slerp(start: np.ndarray, end: np.ndarray, weight: float) -> np.ndarray:
    """The rotation a share ``weight`` of the way along the shorter arc; axis-angle vectors ``[..., 3]``."""
    first, second = to_quaternion(start), to_quaternion(end)
    cosine = (first * second).sum(axis=-1, keepdims=True)
    second, cosine = np.where(cosine < 0.0, -second, second), np.minimum(np.abs(cosine), 1.0)
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    near = sine < 1e-6
    divisor = np.where(near, 1.0, sine)
    from_first = np.where(near, 1.0 - weight, np.sin((1.0 - weight) * angle) / divisor)
    from_second = np.where(near, weight, np.sin(weight * angle) / divisor)
    blended = from_first * first + from_second * second
    return to_vector(blended / np.linalg.norm(blended, axis=-1, keepdims=True))


def running_mean(vectors: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the first 1, 2, … rotations along ``axis``, axis-angle vectors ``[..., 3]`` in and out.

    The normalised sum of unit quaternions in one hemisphere: the chordal mean for rotations that lie close
    together, and near it for others (Markley et al. 2007, "Averaging Quaternions").
    """
    quaternions = to_quaternion(vectors)
    first = np.take(quaternions, [0], axis=axis)
    opposite = (quaternions * first).sum(axis=-1, keepdims=True) < 0.0
    sums = np.cumsum(np.where(opposite, -quaternions, quaternions), axis=axis)
    return to_vector(sums / np.linalg.norm(sums, axis=-1, keepdims=True))


def weighted_mean(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean ``[..., 3]`` of rotations ``[..., n, 3]`` with weights ``[..., n]`` >= 0, not all zero.

    The normalised sum of unit quaternions in the hemisphere of the heaviest (Markley et al. 2007).
    """
    quaternions = to_quaternion(vectors)
    heaviest = weights.argmax(axis=-1)[..., None, None]
    first = np.take_along_axis(quaternions, heaviest, axis=-2)
    opposite = (quaternions * first).sum(axis=-1) < 0.0
    total = (np.where(opposite, -weights, weights)[..., None] * quaternions).sum(axis=-2)
    return to_vector(total / np.linalg.norm(total, axis=-1, keepdims=True))
