"""What one robot allows, as data: in code, from a JSON file, or in a Hydra config."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

from ..interfaces import ForethoughtError

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Limits:
    """What one robot allows. What is None is not limited.

    Attributes:
        hz: Control steps a second.
        workspace_low: Lowest corner of the box that the end effector stays in, metres.
        workspace_high: Highest corner.
        speed: Of the end effector, metres a second.
        acceleration: Metres a second squared.
        turn_speed: Radians a second.
        turn_acceleration: Radians a second squared.
        gripper_rate: Of a binary gripper, changes a second; of another, units of its command a second.
        frozen: Number of equal observations in a row, while the robot was told to move, after which it is
            held still.
        late_ms: Milliseconds from the observation to the action after which the robot is held still.
        absolute: Whether position commands are places instead of displacements.
        position: Indices of the end effector's position, metres, in the proprioception.
        dry_run: Say what would have been changed, and change nothing.
    """

    hz: float
    workspace_low: Vector | None = None
    workspace_high: Vector | None = None
    speed: float | None = None
    acceleration: float | None = None
    turn_speed: float | None = None
    turn_acceleration: float | None = None
    gripper_rate: float | None = None
    frozen: int | None = None
    late_ms: float | None = None
    absolute: bool = False
    position: tuple[int, int, int] = (0, 1, 2)
    dry_run: bool = False

    def __post_init__(self) -> None:
        positive = ("hz", "speed", "acceleration", "turn_speed", "turn_acceleration", "gripper_rate")
        for name in (*positive, "frozen", "late_ms"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ForethoughtError(f"Limits: {name} must be a positive number or None; got {value!r}.")
        for name in ("workspace_low", "workspace_high", "position"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
                if len(value) != 3:
                    raise ForethoughtError(f"Limits: {name} has three numbers; got {value!r}.")
        low, high = self.workspace_low, self.workspace_high
        if (low is None) != (high is None) or not all(a < b for a, b in zip(low or (), high or ())):
            raise ForethoughtError(
                f"Limits: the workspace is a box from workspace_low to workspace_high, both in metres; got "
                f"{low} and {high}."
            )
        if self.absolute and (self.turn_speed or self.turn_acceleration):
            raise ForethoughtError(
                "Limits: turn_speed and turn_acceleration need rotations that are displacements; leave them "
                "out for a robot with absolute commands."
            )

    @staticmethod
    def load(path: str | Path) -> Limits:
        """The limits in a JSON file whose keys are the attributes.

        Raises:
            ForethoughtError: The file is missing, is not JSON, or names what is no limit.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ForethoughtError(f"No limits in {path} ({error}); expected a JSON object.") from error
        known = [field.name for field in fields(Limits)]
        unknown = sorted(set(values) - set(known)) if isinstance(values, dict) else [type(values).__name__]
        if unknown or "hz" not in values:
            raise ForethoughtError(f"{path}: expected hz and any of {known}; got {unknown or list(values)}.")
        return Limits(**values)
