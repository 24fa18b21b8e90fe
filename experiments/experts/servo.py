"""Drives the hand to a pose through the normalised actions of LIBERO's operational-space controller."""

from __future__ import annotations

import numpy as np

POSITION_SCALE = 0.05
"""Metres per unit of the position command."""
ROTATION_SCALE = 0.5
"""Radians per unit of the rotation command."""


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis-angle vector ``[3]`` of a rotation matrix ``[3, 3]``, radians."""
    cosine = np.clip(0.5 * (np.trace(rotation) - 1.0), -1.0, 1.0)
    angle = float(np.arccos(cosine))
    skew = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sine = 2.0 * np.sin(angle)
    return 0.5 * skew if abs(sine) < 1e-6 else skew * (angle / sine)


def pointing_down(yaw: float) -> np.ndarray:
    """Hand rotation ``[3, 3]`` that looks straight down, its x axis at ``yaw`` radians from the world's."""
    x = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    z = np.array([0.0, 0.0, -1.0])
    return np.stack([x, np.cross(z, x), z], axis=1)


class Servo:
    """Proportional control with an integral term.

    The controller takes increments from where the hand is, so it stops a centimetre or two short under load;
    the integral, accumulated only near the target and bounded, removes that error.
    """

    def __init__(self, gain: float = 1.6, integral_gain: float = 0.12, integral_limit: float = 0.03) -> None:
        self._gain, self._integral_gain, self._limit = gain, integral_gain, integral_limit
        self.reset()

    def reset(self) -> None:
        """Forget the accumulated error."""
        self._integral = np.zeros(3)

    def command(
        self,
        hand: tuple[np.ndarray, np.ndarray],
        position: np.ndarray,
        rotation: np.ndarray,
        speed: float = 1.0,
    ) -> np.ndarray:
        """Position and rotation part ``[6]`` of an action that brings the hand toward a pose.

        Args:
            hand: Present position ``[3]`` and rotation ``[3, 3]``.
            position: Wanted position ``[3]``, metres, world frame.
            rotation: Wanted rotation ``[3, 3]``.
            speed: Largest vertical command, units of the action.
        """
        error = position - hand[0]
        if np.linalg.norm(error) < 0.04:
            self._integral = np.clip(self._integral + self._integral_gain * error, -self._limit, self._limit)
        else:
            self._integral *= 0.8
        move = (self._gain * error + self._integral) / POSITION_SCALE
        sideways = float(np.linalg.norm(move[:2]))
        if sideways > 1.0:
            move[:2] /= sideways
        move[2] = np.clip(move[2], -speed, speed)
        turn = rotation_vector(rotation @ hand[1].T) / ROTATION_SCALE
        return np.concatenate([np.clip(move, -1.0, 1.0), np.clip(turn, -1.0, 1.0)])
