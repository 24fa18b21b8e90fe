"""The geometry of action chunks: units, noise correlated over time, and the gripper apart from the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError
from . import drawing


@dataclass(frozen=True, eq=False)
class ChunkSpace:
    """Chunks ``[..., H, A]`` as whitened vectors ``[..., D]`` and gripper signs ``[..., G, H]``.

    One normalised unit is half the range of an action's bounds. A kernel of bandwidth σ deviates from its
    centre by a Gaussian with standard deviation σ (rotations: σ · rotation_scale) and covariance σ²·(s·11ᵀ +
    (1−s)·I) over the H steps, so that the share s of the variance moves the whole chunk together. After
    whitening the kernel is an isotropic Gaussian of standard deviation σ, and every density in this room is
    an ordinary one times ``exp(log_det)``.

    Attributes:
        spec: Meaning and bounds of the action.
        horizon: Chunk length H.
        shared: Share s of the variance that is common to all steps of a chunk, in [0, 1).
        rotation_scale: Factor on the deviation of rotation indices, > 0.
    """

    spec: ActionSpec
    horizon: int
    shared: float = 0.85
    rotation_scale: float = 0.4
    continuous: np.ndarray = field(init=False, repr=False)
    gripper: np.ndarray = field(init=False, repr=False)
    scale: np.ndarray = field(init=False, repr=False)
    middle: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.shared < 1.0:
            raise ForethoughtError(
                f"shared must lie in [0, 1); got {self.shared}. At 1 a kernel has no density: use 0.99."
            )
        if not self.rotation_scale > 0.0:
            raise ForethoughtError(
                f"rotation_scale must be positive; got {self.rotation_scale}. "
                "Use a small number to hold rotations still."
            )
        spec = self.spec
        scale = 0.5 * (spec.high - spec.low).astype(np.float64)
        scale[list(spec.rotation)] *= self.rotation_scale
        binary = [i for i in range(spec.size) if i not in spec.continuous]
        set_field = object.__setattr__
        set_field(self, "continuous", np.asarray(spec.continuous, np.intp))
        set_field(self, "gripper", np.asarray(binary, np.intp))
        set_field(self, "scale", scale)
        set_field(self, "middle", 0.5 * (spec.high + spec.low).astype(np.float64))

    @property
    def dimension(self) -> int:
        """Number of continuous coordinates D of a chunk."""
        return self.horizon * self.continuous.size

    @property
    def geometry(self) -> tuple[Any, ...]:
        """What the compiled loops of ``drawing`` need to know, after the noise."""
        spec = self.spec
        own, common = math.sqrt(1.0 - self.shared), math.sqrt(self._common)
        return (
            *(self.continuous, self.gripper, self.middle, self.scale, own, common),
            *(spec.low, spec.high, self.gripper),
        )

    @property
    def _common(self) -> float:
        """Variance of the chunk's mean direction: the one eigenvalue of the time covariance that is not 1 −
        s."""
        return 1.0 - self.shared + self.shared * self.horizon

    @property
    def log_det(self) -> float:
        """Logarithm of the volume ratio of whitened to normalised coordinates."""
        over_time = -0.5 * ((self.horizon - 1) * math.log1p(-self.shared) + math.log(self._common))
        rotations = sum(1 for index in self.spec.rotation if index in self.spec.continuous)
        return self.continuous.size * over_time - self.horizon * rotations * math.log(self.rotation_scale)

    def whiten(self, chunks: np.ndarray) -> np.ndarray:
        """Whitened coordinates ``float64 [..., D]`` of chunks ``[..., H, A]``; the binary gripper is left
        out."""
        own, common = math.sqrt(1.0 - self.shared), math.sqrt(self._common)
        flat = _contiguous(chunks).reshape(-1, *chunks.shape[-2:])
        white = drawing.whiten(flat, self.continuous, self.middle, self.scale, own, common)
        return white.reshape(*chunks.shape[:-2], self.dimension)

    def deviation(self, white: np.ndarray) -> np.ndarray:
        """Deviations in environment units ``[..., H, C]`` of the continuous indices, from white noise ``[...,
        D]``."""
        noise = white.reshape(*white.shape[:-1], self.horizon, self.continuous.size)
        mean = noise.mean(axis=-2, keepdims=True)
        coloured = (noise - mean) * math.sqrt(1.0 - self.shared) + mean * math.sqrt(self._common)
        return coloured * self.scale[self.continuous]

    def signs(self, chunks: np.ndarray) -> np.ndarray:
        """Binary gripper commands as ±1, ``float64 [..., G, H]``."""
        bits = np.where(chunks[..., self.gripper] > self.middle[self.gripper], 1.0, -1.0)
        return np.swapaxes(bits, -1, -2)

    def perturb(self, centres: np.ndarray, white: np.ndarray, flip: np.ndarray) -> np.ndarray:
        """Draws around centres ``[..., H, A]``: white noise ``[..., D]`` (already times the bandwidth), and
        the binary grippers inverted for the whole chunk where ``flip`` ``bool [..., G]``. Inside the bounds,
        float32."""
        dimension = self.dimension
        flat = _contiguous(centres).reshape(-1, self.horizon, self.spec.size)
        white = np.ascontiguousarray(white, np.float64).reshape(len(flat), dimension)
        chunks = drawing.perturb(
            flat,
            white,
            np.ascontiguousarray(flip).reshape(len(flat), self.gripper.size),
            *self.geometry,
        )
        return chunks.reshape(centres.shape)


def _contiguous(chunks: np.ndarray) -> np.ndarray:
    """In C order, float32 if it was and float64 otherwise: one compiled form for each."""
    return np.ascontiguousarray(chunks, np.float32 if chunks.dtype == np.float32 else np.float64)
