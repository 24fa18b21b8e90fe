"""Where kernels stand: on the policy's samples, on what worked in similar states, on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError, Latent
from .context import Context
from .likelihood import resampled
from .rotation import running_mean

DEFAULT_BANDWIDTHS = (0.03, 0.08, 0.2)
"""Ladder of kernel widths, in units of half the range of an action's bounds."""

DEFAULT_AVERAGES = (4, 8, 16, 32)
"""Numbers of nearest states over which retrieved chunks are averaged."""


@runtime_checkable
class ChunkMemory(Protocol):
    """Chunks of successful offline episodes, found by the state in which they were executed."""

    def nearest(self, latent: Latent, instruction: Sequence[str], k: int) -> np.ndarray:
        """Chunks ``[M, k, H, A]`` that followed the k offline states nearest to each latent ``[M, ...]``."""
        ...

    def all_chunks(self) -> np.ndarray:
        """All stored chunks, ``[n, H, A]``."""
        ...


class KernelSource(Protocol):
    """A set of kernel centres.

    Attributes (read only): ``name``; ``share``, the weight in the mixture; ``bandwidths``, normalised units.
    """

    @property
    def name(self) -> str: ...

    @property
    def share(self) -> float: ...

    @property
    def bandwidths(self) -> tuple[float, ...]: ...

    def centres(self, context: Context) -> np.ndarray:
        """Centres ``[M, n, H, A]``, or ``[1, n, H, A]`` when they depend on nothing."""
        ...


def varies_with(source: KernelSource) -> str:
    """What a source's centres depend on, which says how long they may be kept: its ``varies_with``, by
    default the state of the ``node``; the policy's samples of the ``tree``; or ``nothing``."""
    return getattr(source, "varies_with", "node")


@dataclass(frozen=True, eq=False)
class PolicyKernels:
    """Kernels on the policy's own samples at the root. With a policy that has likelihoods, each different
    sample has as many of them as it is likely."""

    share: float = 1.0
    bandwidths: tuple[float, ...] = DEFAULT_BANDWIDTHS
    name: str = "policy_kernels"
    varies_with: ClassVar[str] = "tree"

    def centres(self, context: Context) -> np.ndarray:
        return _as_likely(context)


@dataclass(frozen=True, eq=False)
class AveragedPolicyKernels:
    """Kernels on averages of the policy's own samples at the root.

    A policy that samples its chunks (diffusion, flow matching, tokens at a temperature) executes one draw,
    noise included. A mean over n draws has a n-th of its variance, and says the same wherever the policy has
    one mode. Averaged as in ``AveragedKernels``: over the first n samples for every n of ``over``, as far as
    there are so many; ``over=(1,)`` is the policy's own chunk. With a policy that has likelihoods, each
    different sample counts as it is likely.

    Attributes:
        spec: Meaning and bounds of the action.
        over: Numbers of samples n.
        share: Weight in the mixture.
        bandwidths: Kernel widths, normalised units.
    """

    spec: ActionSpec
    over: tuple[int, ...] = DEFAULT_AVERAGES
    share: float = 1.0
    bandwidths: tuple[float, ...] = DEFAULT_BANDWIDTHS
    name: str = "policy_averaged"
    varies_with: ClassVar[str] = "tree"

    def __post_init__(self) -> None:
        _require_numbers(self.over, "samples")

    def centres(self, context: Context) -> np.ndarray:
        samples = _as_likely(context)
        over = sorted({min(number, samples.shape[1]) for number in self.over})
        return running_averages(samples, self.spec)[:, np.asarray(over) - 1]


@dataclass(frozen=True, eq=False)
class RetrievedKernels:
    """Kernels on what was done in the k nearest states of successful offline episodes."""

    memory: ChunkMemory
    neighbours: int = 16
    share: float = 1.0
    bandwidths: tuple[float, ...] = DEFAULT_BANDWIDTHS
    name: str = "retrieved"

    def centres(self, context: Context) -> np.ndarray:
        return np.asarray(self.memory.nearest(context.latent, context.instruction, self.neighbours))


@dataclass(frozen=True, eq=False)
class AveragedKernels:
    """Kernels on averages of what was done in the nearest states of successful offline episodes.

    Recorded chunks carry the noise under which they were recorded; a mean over n neighbours carries a n-th of
    its variance, at the price of states that lie further away. The first n of the neighbours are averaged for
    every n of ``over``: positions linearly, rotations on SO(3), and a binary gripper takes the majority, step
    by step. (One such mean alone, executed without search, is imitation by nearest neighbours; Pari et al.
    2021, arXiv 2112.01511.)

    Attributes:
        spec: Meaning and bounds of the action.
        memory: Where the chunks come from.
        over: Numbers of neighbours n.
        share: Weight in the mixture.
        bandwidths: Kernel widths, normalised units.
    """

    spec: ActionSpec
    memory: ChunkMemory
    over: tuple[int, ...] = DEFAULT_AVERAGES
    share: float = 1.0
    bandwidths: tuple[float, ...] = DEFAULT_BANDWIDTHS
    name: str = "averaged"

    def __post_init__(self) -> None:
        _require_numbers(self.over, "neighbours")

    def centres(self, context: Context) -> np.ndarray:
        chunks = self.memory.nearest(context.latent, context.instruction, max(self.over))
        return running_averages(np.asarray(chunks), self.spec)[:, np.asarray(self.over) - 1]


def _as_likely(context: Context) -> np.ndarray:
    """The policy's samples ``[M, N, H, A]``, each as often as the policy says that it is likely, where it
    does."""
    weights = context.weights
    if weights is None:
        return context.samples
    return np.take_along_axis(context.samples, resampled(weights)[:, :, None, None], axis=1)


def _require_numbers(over: tuple[int, ...], of: str) -> None:
    if not over or any(number < 1 for number in over):
        raise ForethoughtError(f"Averages need numbers of {of} >= 1; got over={over}.")


def running_averages(chunks: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Mean of the first 1, 2, … n chunks ``[M, n, H, A]``, float32, same shape, inside the bounds.

    Linear, but rotations on SO(3) and binary grippers by majority, a tie going to the lower bound.
    """
    whole = chunks.astype(np.float64)
    means = np.cumsum(whole, axis=1) / np.arange(1, chunks.shape[1] + 1)[:, None, None]
    rotation = list(spec.rotation)
    if len(rotation) == 3:
        turned = running_mean(whole[..., rotation] * spec.rotation_scale, axis=1)
        means[..., rotation] = turned / spec.rotation_scale
    return spec.clip(means)  # which gives a binary gripper to the majority


@dataclass(frozen=True, eq=False)
class DatasetKernels:
    """Kernels on all chunks of a data set, whatever the state (VLA-Reasoner, arXiv 2509.22643, section
    III)."""

    chunks: np.ndarray
    share: float = 1.0
    bandwidths: tuple[float, ...] = (0.08,)
    name: str = "dataset"
    varies_with: ClassVar[str] = "nothing"
    _centres: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        chunks = np.asarray(self.chunks, np.float32)
        if chunks.ndim != 3 or not chunks.shape[0]:
            raise ForethoughtError(
                f"DatasetKernels needs chunks [n, H, A] with n >= 1; got shape {chunks.shape}. "
                "Collect successful episodes first."
            )
        if not np.isfinite(chunks).all():
            raise ForethoughtError("DatasetKernels was given chunks that are not finite; rebuild the memory.")
        object.__setattr__(self, "chunks", chunks)
        object.__setattr__(self, "_centres", chunks[None])

    def centres(self, context: Context) -> np.ndarray:
        return self._centres


def evenly_chosen(memory: ChunkMemory, kernels: int) -> np.ndarray:
    """At most ``kernels`` of a memory's chunks, evenly spaced through it, ``[n, H, A]``."""
    chunks = memory.all_chunks()
    if len(chunks) > kernels:
        chunks = chunks[np.linspace(0, len(chunks) - 1, kernels).astype(np.int64)]
    return chunks
