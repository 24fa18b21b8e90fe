"""Objects that already are a ``Policy``: propose, action_spec and horizon. The reference policy is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...interfaces import ActionSamples, ForethoughtError, Observation, Policy
from ..lookahead import Lookahead
from . import Adapter, Settings

RANK = 20


def matches(policy: Any) -> bool:
    """Whether it follows the protocol."""
    return not isinstance(policy, type) and isinstance(policy, Policy)


def adapt(policy: Policy, settings: Settings) -> Adapter:
    """Takes over propose, and act where there is one:

    sample 0 and the chunk acted on are the planned ones.
    """
    for what, ours, theirs in (
        ("chunk length", policy.horizon, settings.horizon),
        ("action size", policy.action_spec.size, settings.action_spec and settings.action_spec.size),
    ):
        if theirs is not None and ours != theirs:
            raise ForethoughtError(
                f"The policy has {what} {ours}, the models were trained for {theirs}. "
                "Train models on this policy's episodes (`forethought train models`), or give those that fit."
            )

    def methods(lookahead: Lookahead) -> dict[str, Callable[..., Any]]:
        def propose(observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
            if lookahead.dry_run:
                lookahead.decide(settings.observe(observation), seeds=seeds)
                return policy.propose(observation, n, seeds)
            planned = lookahead.decide(settings.observe(observation), seeds=seeds).chunk[:, None]
            if n == 1:
                return ActionSamples(planned)
            others = policy.propose(observation, n, seeds).chunks[:, 1:]
            return ActionSamples(np.concatenate([planned, others], axis=1))

        def act(observation: Observation) -> np.ndarray:
            decision = lookahead.decide(settings.observe(observation))
            return policy.act(observation) if lookahead.dry_run else decision.chunk  # type: ignore[attr-defined]

        return {"propose": propose, "act": act} if hasattr(policy, "act") else {"propose": propose}

    return Adapter(policy, methods)
