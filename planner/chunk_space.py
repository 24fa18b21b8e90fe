"""The geometry of action chunks: units, noise correlated over time, and the gripper apart from the rest."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit

from ..interfaces import ActionSpec, ForethoughtError
from . import lanes


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
        continuous: Indices that are not a binary gripper, ``[C]``.
        gripper: Indices of binary grippers, ``[G]``.
        scale: Environment units of one normalised unit, ``float64 [A]``.
        middle: Of the bounds, ``float64 [A]``.
        dimension: Number of continuous coordinates D = H·C of a chunk.
        geometry: What the compiled loops of ``lanes`` know of it, in few arrays, because each is unpacked
            with every call: continuous and gripper indices; what the deviation from the mean over time and
            the mean are multiplied with; low, high and the middle between them, ``float32 [3, A]``; and of
            the continuous ones scale, 1/scale, middle and bounds, ``LANES`` times each.
        log_det: Logarithm of the volume ratio of whitened to normalised coordinates.
    """

    spec: ActionSpec
    horizon: int
    shared: float = 0.85
    rotation_scale: float = 0.4
    continuous: np.ndarray = field(init=False, repr=False)
    gripper: np.ndarray = field(init=False, repr=False)
    scale: np.ndarray = field(init=False, repr=False)
    middle: np.ndarray = field(init=False, repr=False)
    dimension: int = field(init=False, repr=False)
    geometry: tuple[Any, ...] = field(init=False, repr=False)
    log_det: float = field(init=False, repr=False)

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
        set_field(self, "dimension", self.horizon * self.continuous.size)
        own, common = math.sqrt(1.0 - self.shared), math.sqrt(self._common)
        # Unsigned: an index that may be negative is looked at twice by compiled loops.
        indices = self.continuous.astype(np.uint64), self.gripper.astype(np.uint64)
        wide = np.stack([scale, 1.0 / scale, self.middle, spec.low, spec.high])[:, self.continuous]
        bounds = np.stack([spec.low, spec.high, self.middle]).astype(np.float32)
        wide = np.repeat(wide, lanes.LANES, axis=1)
        set_field(self, "geometry", (*indices, own, common, bounds, wide))
        over_time = -0.5 * ((self.horizon - 1) * math.log1p(-self.shared) + math.log(self._common))
        rotations = sum(1 for index in spec.rotation if index in spec.continuous)
        volume = self.continuous.size * over_time - self.horizon * rotations * math.log(self.rotation_scale)
        set_field(self, "log_det", volume)

    @property
    def _common(self) -> float:
        """Variance of the chunk's mean direction: the one eigenvalue of the time covariance that is not 1 −
        s."""
        return 1.0 - self.shared + self.shared * self.horizon

    def whiten(self, chunks: np.ndarray) -> np.ndarray:
        """Whitened coordinates ``float64 [..., D]`` of chunks ``[..., H, A]``; the binary gripper is left
        out."""
        flat = _contiguous(chunks).reshape(-1, *chunks.shape[-2:])
        white = lanes.whiten(flat, self.geometry)
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
        flat = _contiguous(chunks).reshape(-1, *chunks.shape[-2:])
        signs = lanes.signs(flat, self.geometry)
        return signs.reshape(*chunks.shape[:-2], self.gripper.size, self.horizon)

    def perturb(self, centres: np.ndarray, white: np.ndarray, flip: np.ndarray) -> np.ndarray:
        """Draws around centres ``[..., H, A]``: white noise ``[..., D]`` (already times the bandwidth), and
        the binary grippers inverted for the whole chunk where ``flip`` ``bool [..., G]``. Inside the bounds,
        float32."""
        dimension = self.dimension
        flat = _contiguous(centres).reshape(-1, self.horizon, self.spec.size)
        white = np.ascontiguousarray(white, np.float64).reshape(len(flat), dimension)
        flip = np.ascontiguousarray(flip).reshape(len(flat), self.gripper.size)
        chunks = lanes.perturb(flat, white, flip, self.geometry)
        return chunks.reshape(centres.shape)


def _contiguous(chunks: np.ndarray) -> np.ndarray:
    """In C order, float32 if it was and float64 otherwise: one compiled form for each."""
    return np.ascontiguousarray(chunks, np.float32 if chunks.dtype == np.float32 else np.float64)


def clipped(chunks: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """``spec.clip`` of chunks ``float32 [..., A]``, in one pass."""
    flat = np.ascontiguousarray(chunks, np.float32).reshape(-1, spec.size)
    out = np.empty(flat.shape, np.float32)
    clip(flat, spec.low, spec.high, binary_grippers(spec), out)
    return out.reshape(chunks.shape)


@functools.lru_cache(maxsize=64)
def binary_grippers(spec: ActionSpec) -> np.ndarray:
    """Their indices, ``uint64``, as compiled loops take them."""
    return np.array(spec.gripper if spec.gripper_is_binary else (), np.uint64)


@njit(cache=True, error_model="numpy")
def clip(
    actions: np.ndarray, low: np.ndarray, high: np.ndarray, gripper: np.ndarray, out: np.ndarray
) -> None:
    """``clipped`` of ``[L, A]``."""
    for i in range(len(actions)):
        for a in range(low.size):
            number = low[a] if actions[i, a] < low[a] else actions[i, a]  # what is not a number stays none
            out[i, a] = high[a] if number > high[a] else number
        for g in range(gripper.size):
            a = gripper[g]
            out[i, a] = high[a] if out[i, a] > np.float32(0.5) * (low[a] + high[a]) else low[a]
