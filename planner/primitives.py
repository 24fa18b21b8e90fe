"""Motion primitives: elementary motions as kernel centres, whatever the policy has in mind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError
from .context import Context
from .sources import DEFAULT_BANDWIDTHS


@dataclass(frozen=True, eq=False)
class PrimitiveKernels:
    """Kernels on elementary motions, each held for a whole chunk.

    In this order: along every axis of ``position`` forth and back with the gripper as the policy commands it;
    hold still; hold still with all grippers at their lower, then at their upper bound. Position and rotation
    commands are taken to be displacements, so that zero means rest; what is neither position, rotation nor
    gripper stays as the policy's own chunk has it. An action without such indices has fewer primitives, but
    always the one that holds still.

    Attributes:
        spec: Meaning and bounds of the action.
        reach: Translation command as a share of the bound in that direction, in (0, 1].
        share: Weight in the mixture.
        bandwidths: Kernel widths, normalised units.
    """

    spec: ActionSpec
    reach: float = 0.5
    share: float = 1.0
    bandwidths: tuple[float, ...] = DEFAULT_BANDWIDTHS
    name: str = "primitives"
    varies_with: ClassVar[str] = "tree"

    def __post_init__(self) -> None:
        if not 0.0 < self.reach <= 1.0:
            raise ForethoughtError(
                f"A primitive's reach is a share of the bound and must lie in (0, 1]; got {self.reach}."
            )

    def centres(self, context: Context) -> np.ndarray:
        """Centres ``[M, 2·positions + 1 + 2·(any gripper), H, A]``."""
        spec = self.spec
        still = context.samples[:, 0].astype(np.float32, copy=True)
        still[..., [*spec.position, *spec.rotation]] = 0.0
        motions = []
        for index in spec.position:
            for bound in (spec.high[index], spec.low[index]):
                motion = still.copy()
                motion[..., index] = self.reach * bound
                motions.append(motion)
        motions.append(still)
        if spec.gripper:
            grippers = list(spec.gripper)
            for bound in (spec.low, spec.high):
                motion = still.copy()
                motion[..., grippers] = bound[grippers]
                motions.append(motion)
        return spec.clip(np.stack(motions, axis=1))
