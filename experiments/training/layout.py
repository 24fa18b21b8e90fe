"""What the numbers of a latent say: which hindsight tells, which are object poses, and which are free.

A latent begins with the 11 proprioception features. Then follow, where they are supervised so, the ways to
the next grasp and to the end of the task and whether something is held (7, hindsight), the poses of two
objects (18, the simulator, in training only), and what the encoder may use as it likes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...interfaces import ForethoughtError
from ...world_models.encoder import (
    CONTEXT_SIZE,
    PRIVILEGED_FEATURES,
    PROPRIOCEPTION_FEATURES,
    WAY_FEATURES,
)
from .hindsight import HINDSIGHT_FEATURES


@dataclass(frozen=True)
class Layout:
    """The parts of a latent. At least one kind of supervision is on.

    Attributes:
        in_hindsight: Whether the first learned numbers are those that hindsight tells.
        with_poses: Whether poses of two objects follow.
        features: Learned numbers in all; without hindsight the poses' 18, else what is left is free.
    """

    in_hindsight: bool
    with_poses: bool
    features: int

    @classmethod
    def choose(cls, in_hindsight: bool, with_poses: bool, features: int) -> Layout:
        """The layout of an encoder that may use ``features`` numbers in all.

        Raises:
            ForethoughtError: Nothing supervises, or there are fewer numbers than are supervised.
        """
        if not in_hindsight and not with_poses:
            raise ForethoughtError(
                "in_hindsight=false leaves a latent without privileged supervision nothing to say. Set one "
                "of the two to true."
            )
        if not in_hindsight:
            return cls(False, True, PRIVILEGED_FEATURES)
        least = HINDSIGHT_FEATURES + PRIVILEGED_FEATURES * with_poses
        if features < least:
            raise ForethoughtError(
                f"features={features}: {HINDSIGHT_FEATURES} numbers of a latent are known in hindsight"
                + (f", {PRIVILEGED_FEATURES} are poses" if with_poses else "")
                + f"; give it at least {least}."
            )
        return cls(True, with_poses, features)

    @property
    def exact(self) -> bool:
        """Whether simulator states say all of it, at every control step."""
        return not self.in_hindsight

    @property
    def size(self) -> int:
        """Numbers that change: proprioception and learned."""
        return PROPRIOCEPTION_FEATURES + self.features

    @property
    def first(self) -> slice:
        """The way to what is grasped next: the place of the grasp, or the first object."""
        return slice(PROPRIOCEPTION_FEATURES, PROPRIOCEPTION_FEATURES + 3)

    @property
    def hindsight(self) -> slice:
        """Ways and whether something is held; empty without hindsight."""
        told = HINDSIGHT_FEATURES if self.in_hindsight else 0
        return slice(PROPRIOCEPTION_FEATURES, PROPRIOCEPTION_FEATURES + told)

    @property
    def ways(self) -> slice:
        """The ways among ``hindsight``."""
        return slice(self.hindsight.start, self.hindsight.start + WAY_FEATURES)

    @property
    def held(self) -> int:
        """Whether something is held, among ``hindsight``."""
        return self.ways.stop

    @property
    def poses(self) -> slice | None:
        """Poses of two objects, positions relative to the gripper."""
        start = self.hindsight.stop
        return slice(start, start + PRIVILEGED_FEATURES) if self.with_poses else None

    @property
    def free(self) -> slice:
        """What nothing supervises."""
        start = self.hindsight.stop if self.poses is None else self.poses.stop
        return slice(start, self.size)

    def column_weights(self) -> Tensor:
        """Weight of each number that changes in the loss of the dynamics, ``[size]``."""
        weights = [2.0] * 3 + [0.3] * 6 + [2.0] * 2
        weights += [4.0] * 3 + [1.0] * 3 + [2.0] if self.in_hindsight else []
        weights += [4.0] * 3 + [0.3] * 6 + [1.0] * 3 + [0.1] * 6 if self.with_poses else []
        return torch.tensor(weights + [0.3] * (self.size - len(weights)))

    def key_weights(self) -> np.ndarray:
        """Weight of each number in the distances of the retrieval memory, ``float32 [D]``: the
        numbers that change, and the context."""
        weights = np.ones(self.size + CONTEXT_SIZE, np.float32)
        weights[3:9] = 0.5  # rotation of the gripper
        weights[9:11] = 1.5  # fingers
        weights[self.free] = 0.3
        if self.poses is not None:
            weights[self.poses] = [3.0] * 3 + [0.3] * 6 + [1.0] * 3 + [0.1] * 6
        weights[self.first] = 3.0
        return weights


def near_weight(way: Tensor) -> Tensor:
    """Weight of a state by the way from the gripper to the first object, metres ``[..., 3]``: up to 4 within
    centimetres, where precision decides."""
    return 1 + 3 * torch.exp(-((way.norm(dim=-1) / 0.08) ** 2))
