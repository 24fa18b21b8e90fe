"""The usual mixture of sources, put together from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ..interfaces import ActionSpec, ForethoughtError
from .primitives import PrimitiveKernels
from .proposals import KernelProposals
from .sources import (
    DEFAULT_AVERAGES,
    AveragedKernels,
    ChunkMemory,
    KernelSource,
    PolicyKernels,
    RetrievedKernels,
)


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
) -> KernelProposals:
    """Kernels on the policy's samples, on what the memory holds, and on motion primitives.

    Args:
        action_spec: Meaning and bounds of the action.
        memory: Chunks of successful offline states, or None for none.
        memory_share: Share that the memory offers of what the primitives leave, in [0, 1); without a memory
            the policy's kernels take it.
        average_over: Centre the memory's kernels on means over so many nearest states, for each number given;
            None: on the single chunks of ``neighbours`` states.
        neighbours: Offline states retrieved where nothing is averaged.
        bandwidths: Ladder of kernel widths, units of half the range of the bounds.
        shared_noise: Share of a kernel's variance common to all steps of a chunk.
        rotation_scale: Factor on the deviation of rotations.
        flip_probability: Probability that a candidate's binary gripper is inverted.
        primitive_share: Share of all proposals that are motion primitives, in [0, 1).
        primitive_reach: Their translation command, as a share of the bound.
    """
    if memory is not None and not 0.0 <= memory_share < 1.0:
        raise ForethoughtError(
            f"memory_share must lie in [0, 1): the policy's kernels keep the rest; got {memory_share}."
        )
    if not 0.0 <= primitive_share < 1.0:
        raise ForethoughtError(
            f"primitive_share must lie in [0, 1): the other sources keep the rest; got {primitive_share}."
        )
    widths = tuple(float(width) for width in bandwidths)
    rest = 1.0 - primitive_share
    sources: list[KernelSource] = [PolicyKernels(share=rest, bandwidths=widths)]
    if memory is not None and memory_share > 0.0:
        share = rest * memory_share
        sources = [
            PolicyKernels(share=rest * (1.0 - memory_share), bandwidths=widths),
            RetrievedKernels(memory, int(neighbours), share=share, bandwidths=widths)
            if average_over is None
            else AveragedKernels(action_spec, memory, tuple(int(n) for n in average_over), share, widths),
        ]
    if primitive_share > 0.0:
        sources.append(PrimitiveKernels(action_spec, primitive_reach, primitive_share, widths))
    return KernelProposals(
        action_spec,
        tuple(sources),
        shared=shared_noise,
        rotation_scale=rotation_scale,
        flip_probability=flip_probability,
    )
