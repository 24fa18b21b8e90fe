"""Chooses where and how to take hold of an object, from its shape and its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FINGER_REACH = 0.04
"""How far the grip site may sink below the top of an object before the palm touches it, metres."""
WIDEST = 0.068
"""Widest object that the open fingers (0.08 m) take with room to spare, metres."""
FINGER = (0.04, 0.062)
"""Where an open finger stands, metres from the grip site along the finger axis."""
PALM = (0.0, 0.1)
"""How far the palm reaches from the grip site along the finger axis, metres."""
PALM_HEIGHT = 0.05
"""Height of the palm above the grip site, metres."""
RIM_DEPTH = 0.034
"""How far below the rim the fingers close, metres."""
RIM_INSET = 0.006
"""How far inside the rim's outer edge, metres."""
_YAWS = np.linspace(0.0, np.pi, 36, endpoint=False)


@dataclass(frozen=True, eq=False)
class Grasp:
    """A place to close the fingers.

    Attributes:
        offset: Grip site minus object position, world frame, metres, ``[3]``.
        yaw: Angle of the finger axis in the world, radians.
    """

    offset: np.ndarray
    yaw: float


def nearest_half_turn(yaw: float, reference: float) -> float:
    """``yaw`` plus the multiple of pi that brings it nearest to ``reference``: the fingers are symmetric."""
    return yaw - np.pi * np.round((yaw - reference) / np.pi)


def choose_grasp(
    item: np.ndarray,
    position: np.ndarray,
    neighbours: np.ndarray,
    reference_yaw: float,
    failed: Sequence[Grasp] = (),
) -> Grasp:
    """The grasp across the object's narrow side, or on its rim where it is too wide.

    Args:
        item: Points on the object's shapes, ``[n, 3]``, world frame.
        position: The object's position, ``[3]``.
        neighbours: Points on everything around it, ``[m, 3]``.
        reference_yaw: Yaw that costs no turning, radians.
        failed: Grasps that did not hold; others are preferred.
    """
    across = _spans(item, _YAWS)
    candidates = _narrow_grasps(item, position, reference_yaw)
    costs = across / 0.01
    if across.min() > WIDEST:
        candidates = _rim_grasps(item, position, reference_yaw)
        costs = np.zeros(len(candidates))
    else:
        costs = np.where(across > WIDEST, np.inf, costs)
    for index, grasp in enumerate(candidates):
        if np.isfinite(costs[index]):
            costs[index] += abs(grasp.yaw - reference_yaw)
            costs[index] += 8.0 * _crowding(neighbours, position + grasp.offset, grasp.yaw)
            costs[index] += 3.0 * sum(_alike(grasp, other) for other in failed)
    return candidates[int(costs.argmin())]


def _alike(grasp: Grasp, other: Grasp) -> bool:
    turned = np.abs(np.sin(grasp.yaw - other.yaw)) > 0.3
    return bool(np.linalg.norm(grasp.offset[:2] - other.offset[:2]) < 0.03 and not turned)


def _narrow_grasps(item: np.ndarray, position: np.ndarray, reference_yaw: float) -> list[Grasp]:
    """Grasps across the middle, one for each yaw, the middle taken along the finger axis so that both fingers
    meet the object together."""
    low, high = item.min(axis=0), item.max(axis=0)
    height = max(0.5 * (low[2] + high[2]), high[2] - FINGER_REACH)
    centre = 0.5 * (low + high)[:2]
    grasps = []
    for yaw in _YAWS:
        axis = np.array([np.cos(yaw), np.sin(yaw)])
        along = item[:, :2] @ axis
        middle = centre + (0.5 * (along.max() + along.min()) - centre @ axis) * axis
        offset = np.array([*middle, height]) - position
        grasps.append(Grasp(offset=offset, yaw=nearest_half_turn(float(yaw), reference_yaw)))
    return grasps


def _rim_grasps(item: np.ndarray, position: np.ndarray, reference_yaw: float) -> list[Grasp]:
    """One finger inside the vessel and one outside, all around: the finger axis runs along the radius."""
    top = float(item[:, 2].max())
    rim = item[item[:, 2] > top - 0.015, :2]
    middle = 0.5 * (rim.min(axis=0) + rim.max(axis=0))
    grasps = []
    for angle in np.linspace(-np.pi, np.pi, 24, endpoint=False):
        axis = np.array([np.cos(angle), np.sin(angle)])
        radius = float(((rim - middle) @ axis).max())
        grip = np.array([*(middle + (radius - RIM_INSET) * axis), top - RIM_DEPTH])
        grasps.append(Grasp(offset=grip - position, yaw=nearest_half_turn(float(angle), reference_yaw)))
    return grasps


def _spans(points: np.ndarray, yaws: np.ndarray) -> np.ndarray:
    directions = np.stack([np.cos(yaws), np.sin(yaws)])
    projected = points[:, :2] @ directions
    return projected.max(axis=0) - projected.min(axis=0)


def _crowding(neighbours: np.ndarray, grip: np.ndarray, yaw: float) -> float:
    """1 where something stands where an open finger or the palm would come down, falling to 0 at 2 cm of
    clearance.
    """
    relative = neighbours - grip
    along = np.abs(relative[:, :2] @ np.array([np.cos(yaw), np.sin(yaw)]))
    beside = np.abs(relative[:, :2] @ np.array([-np.sin(yaw), np.cos(yaw)]))
    distances = [0.02]
    for low, (near, far), half_width in ((-0.012, FINGER, 0.011), (PALM_HEIGHT, PALM, 0.03)):
        level = relative[:, 2] > low
        outside = np.maximum(np.maximum(near - along[level], along[level] - far), 0.0)
        distances += np.hypot(outside, np.maximum(beside[level] - half_width, 0.0)).tolist()
    return 1.0 - min(distances) / 0.02
