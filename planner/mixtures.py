"""The usual mixture of sources, put together from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..interfaces import ActionSpec, ForethoughtError
from .kernel_mixture import KernelProposals
from .primitives import PrimitiveKernels
from .sources import (
    DEFAULT_AVERAGES,
    AveragedKernels,
    AveragedPolicyKernels,
    ChunkMemory,
    DatasetKernels,
    KernelSource,
    PolicyKernels,
    RetrievedKernels,
    evenly_chosen,
)

ROUNDING = 1e-9
"""A share below which nothing is left: 1 - 0.7 - 0.3 is not 0."""


def kernel_proposals(
    action_spec: ActionSpec,
    memory: ChunkMemory | None = None,
    *,
    memory_share: float = 0.5,
    average_over: Sequence[int] | None = DEFAULT_AVERAGES,
    neighbours: int = 16,
    bandwidths: Sequence[float] = (0.02,),
    shared_noise: float = 0.85,
    rotation_scale: float = 0.4,
    flip_probability: float = 0.0,
    primitive_share: float = 0.0,
    primitive_reach: float = 0.5,
    offline_share: float = 0.0,
    offline_kernels: int = 2000,
    policy_average_over: Sequence[int] | None = None,
) -> KernelProposals:
    """Kernels on the policy's samples, on what the memory holds for the state, on what it holds at all, and
    on motion primitives.

    Args:
        action_spec: Meaning and bounds of the action.
        memory: Chunks of successful offline states, or None for none.
        memory_share: Share that the memory offers for the state, in [0, 1), of what primitives and
            ``offline_share`` leave; without a memory the policy's kernels take it.
        average_over: Centre the memory's kernels on means over so many nearest states, for each number given;
            None: on the single chunks of ``neighbours`` states.
        neighbours: Offline states retrieved where nothing is averaged.
        bandwidths: Ladder of kernel widths, units of half the range of the bounds.
        shared_noise: Share of a kernel's variance common to all steps of a chunk.
        rotation_scale: Factor on the deviation of rotations.
        flip_probability: Probability that a candidate's binary gripper is inverted.
        primitive_share: Share of all proposals that are motion primitives, in [0, 1).
        primitive_reach: Their translation command, as a share of the bound.
        offline_share: Share of all proposals that stand on chunks of the memory whatever the state, in
            [0, 1]; with ``primitive_share`` it comes to 1 at most.
        offline_kernels: Chunks of the memory that carry such a kernel, evenly spaced through it; all if it
            holds fewer.
        policy_average_over: Centre the policy's kernels on means over so many of its samples, for each number
            given; None: on the single samples.

    Raises:
        ForethoughtError: The shares do not fit, or ``offline_share`` has no memory to draw from.
    """
    if memory is not None and not 0.0 <= memory_share < 1.0:
        raise ForethoughtError(
            f"memory_share must lie in [0, 1): the policy's kernels keep the rest; got {memory_share}."
        )
    if not 0.0 <= primitive_share < 1.0:
        raise ForethoughtError(
            f"primitive_share must lie in [0, 1): the other sources keep the rest; got {primitive_share}."
        )
    if not 0.0 <= offline_share <= 1.0 or primitive_share + offline_share > 1.0 + ROUNDING:
        raise ForethoughtError(
            "offline_share must lie in [0, 1] and, with primitive_share, come to 1 at most; got "
            f"offline_share={offline_share} and primitive_share={primitive_share}. The policy's kernels and "
            "the retrieved ones get what they leave: lower one of them."
        )
    widths = tuple(float(width) for width in bandwidths)
    rest = 1.0 - primitive_share - offline_share
    sources: list[KernelSource] = []

    def of_policy(share: float) -> KernelSource:
        if policy_average_over is None:
            return PolicyKernels(share=share, bandwidths=widths)
        over = tuple(int(n) for n in policy_average_over)
        return AveragedPolicyKernels(action_spec, over, share, widths)

    if rest > ROUNDING and memory is not None and memory_share > 0.0:
        share = rest * memory_share
        sources = [
            of_policy(rest * (1.0 - memory_share)),
            RetrievedKernels(memory, int(neighbours), share=share, bandwidths=widths)
            if average_over is None
            else AveragedKernels(action_spec, memory, tuple(int(n) for n in average_over), share, widths),
        ]
    elif rest > ROUNDING:
        sources = [of_policy(rest)]
    if offline_share > 0.0:
        sources.append(_whatever_the_state(memory, offline_share, offline_kernels, widths))
    if primitive_share > 0.0:
        sources.append(PrimitiveKernels(action_spec, primitive_reach, primitive_share, widths))
    return KernelProposals(
        action_spec,
        tuple(sources),
        shared=shared_noise,
        rotation_scale=rotation_scale,
        flip_probability=flip_probability,
    )


def _whatever_the_state(
    memory: ChunkMemory | None, share: float, kernels: int, widths: tuple[float, ...]
) -> DatasetKernels:
    if memory is None:
        raise ForethoughtError(
            f"offline_share={share} draws from all chunks of a memory and was given memory=None. Pass a "
            "memory (its all_chunks() is used), or set offline_share=0."
        )
    if kernels != int(kernels) or kernels < 1:
        raise ForethoughtError(f"offline_kernels must be an integer >= 1; got {kernels}.")
    return DatasetKernels(evenly_chosen(memory, int(kernels)), share, widths)
