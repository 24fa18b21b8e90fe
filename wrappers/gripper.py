"""Open and closed, as a policy writes them and as the environment does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError

OPEN_ENDS = {"libero": "low", "bridge": "high"}
"""Which bound of the environment's gripper command means open, by the beginning of the name of the data set
that the policy's statistics are from. LIBERO: -1 open, +1 closed. BridgeData V2 and SimplerEnv's WidowX: +1
open, -1 closed."""


@dataclass(frozen=True)
class Gripper:
    """A linear map between two ways to write a gripper command; what is beyond closed or open is that.

    Attributes:
        policy_open: What the policy says for open.
        policy_closed: What the policy says for closed.
        open: What the environment wants for open.
        closed: What the environment wants for closed.
    """

    policy_open: float
    policy_closed: float
    open: float
    closed: float

    def to_environment(self, chunks: np.ndarray, spec: ActionSpec) -> np.ndarray:
        """Chunks ``[..., A]`` of the policy in environment units, as float32."""
        return _moved(chunks, spec, self.policy_open, self.policy_closed, self.open, self.closed)

    def to_policy(self, chunks: np.ndarray, spec: ActionSpec) -> np.ndarray:
        """The way back."""
        return _moved(chunks, spec, self.open, self.closed, self.policy_open, self.policy_closed)


def standardised_gripper(spec: ActionSpec, data_set: str, environment_open: float | None) -> Gripper:
    """The map for a policy trained on standardised data (Open X-Embodiment), where 1 is open and 0 closed.

    Args:
        spec: Bounds of the environment's action.
        data_set: Name of the statistics that the policy's actions are unnormalised with.
        environment_open: The environment's command for open, where the user says it.

    Raises:
        ForethoughtError: Nobody says which end is open, or the user names a number that is neither.
    """
    if not spec.gripper:
        return Gripper(1.0, 0.0, 1.0, 0.0)
    low, high = float(spec.low[spec.gripper[0]]), float(spec.high[spec.gripper[0]])
    if environment_open is None:
        end = next((end for name, end in OPEN_ENDS.items() if data_set.startswith(name)), None)
        if end is None and (low, high) == (0.0, 1.0):
            end = "high"  # the environment takes the policy's numbers
        if end is None:
            raise ForethoughtError(
                f"This policy says 1 for an open gripper and 0 for a closed one; the environment's command "
                f"goes from {low:g} to {high:g}, and nothing says which of these is open (statistics "
                f"{data_set!r}). Say it: forethought.wrap(policy, ..., gripper_open={low:g})."
            )
        environment_open = low if end == "low" else high
    if environment_open not in (low, high):
        raise ForethoughtError(
            f"gripper_open must be one of the bounds of the gripper command, {low:g} or {high:g}; got "
            f"{environment_open:g}."
        )
    return Gripper(1.0, 0.0, environment_open, high if environment_open == low else low)


def _moved(
    chunks: np.ndarray,
    spec: ActionSpec,
    from_open: float,
    from_closed: float,
    to_open: float,
    to_closed: float,
) -> np.ndarray:
    moved = np.array(chunks, np.float32)
    index = list(spec.gripper)
    share = (moved[..., index] - from_closed) / (from_open - from_closed)
    moved[..., index] = to_closed + np.clip(share, 0.0, 1.0) * (to_open - to_closed)
    return moved
