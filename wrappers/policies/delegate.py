"""What policies that act in place of another one have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...interfaces import ActionSpec, Policy


@dataclass(frozen=True, eq=False)
class PolicyDelegate:
    """Actions and chunk length are those of ``policy``; what is executed, the subclass decides.

    Attributes:
        policy: Who acts otherwise.
    """

    policy: Policy

    @property
    def action_spec(self) -> ActionSpec:
        """The policy's."""
        return self.policy.action_spec

    @property
    def horizon(self) -> int:
        """The policy's."""
        return self.policy.horizon

    def attach(self, env: Any) -> None:
        """Acts in this environment from now on."""
        if callable(attach := getattr(self.policy, "attach", None)):
            attach(env)

    def reset(self) -> None:
        """An episode begins."""
        if callable(reset := getattr(self.policy, "reset", None)):
            reset()
