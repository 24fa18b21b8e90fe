"""Conventions of evaluation on LIBERO: they differ between projects, and success rates differ with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError

OPEN_GRIPPER_NO_OP = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)


@dataclass(frozen=True)
class Convention:
    """Everything that an evaluation script decides outside of the simulator.

    Attributes:
        name: How results refer to it.
        step_limits: Base suite to control steps an episode, settling not counted.
        rotate_images: Whether images are turned by 180 degrees from the way the simulator stores them.
        camera_size: Side of the square images in pixels.
        settle_steps: Uncounted steps at the start of an episode, while the objects fall to rest.
        settle_action: The action of those steps.
        seed: Seed of an episode where none is given; it decides the place of the fixtures.
    """

    name: str
    step_limits: Mapping[str, int]
    rotate_images: bool = True
    camera_size: int = 256
    settle_steps: int = 10
    settle_action: tuple[float, ...] = OPEN_GRIPPER_NO_OP
    seed: int = 0

    def step_limit(self, suite: str) -> int | None:
        """Step limit of a suite; a variant such as ``libero_goal_swap`` has that of its base, None if
        unknown."""
        bases = [base for base in self.step_limits if suite == base or suite.startswith(base + "_")]
        return self.step_limits[max(bases, key=len)] if bases else None

    def upright(self, image: np.ndarray) -> np.ndarray:
        """An image ``[h, w, 3]`` as the simulator stores it, turned the way this convention shows it."""
        return np.ascontiguousarray(image[::-1, ::-1]) if self.rotate_images else image

    def describe(self) -> dict[str, Any]:
        """The fields, JSON-serialisable."""
        return {
            "name": self.name,
            "step_limits": dict(self.step_limits),
            "rotate_images": self.rotate_images,
            "camera_size": self.camera_size,
            "settle_steps": self.settle_steps,
            "settle_action": list(self.settle_action),
            "seed": self.seed,
        }


def _limits(spatial: int) -> Mapping[str, int]:
    return MappingProxyType(
        {
            "libero_spatial": spatial,
            "libero_object": 280,
            "libero_goal": 300,
            "libero_10": 520,
            "libero_90": 400,
        }
    )


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "openvla": Convention("openvla", _limits(spatial=220)),
        "lerobot": Convention("lerobot", _limits(spatial=280)),
    }
)


def find_convention(name: str) -> Convention:
    """The convention of a name."""
    if name not in CONVENTIONS:
        raise ForethoughtError(
            f"There is no convention {name!r}; choose one of {', '.join(sorted(CONVENTIONS))}."
        )
    return CONVENTIONS[name]
