"""Refuses parts that do not fit a benchmark or each other, before an episode is lost."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...interfaces import ActionSpec, ForethoughtError, Observation


def check_action(who: str, given: ActionSpec, expected: ActionSpec) -> None:
    """The policy's actions must mean what the benchmark's mean."""
    if given.size != expected.size:
        raise ForethoughtError(
            f"{who} gives actions of {given.size} numbers; the benchmark takes {expected.size}. "
            "Use a checkpoint for this benchmark, or convert its actions in a wrapper."
        )
    for name in ("position", "rotation", "gripper", "gripper_is_binary"):
        if getattr(given, name) != getattr(expected, name):
            raise ForethoughtError(
                f"{who} says {name}={getattr(given, name)} of its actions; the benchmark expects "
                f"{name}={getattr(expected, name)}. Use a checkpoint for this benchmark, or convert in a "
                "wrapper."
            )
    if not (np.allclose(given.low, expected.low) and np.allclose(given.high, expected.high)):
        raise ForethoughtError(
            f"{who} bounds its actions by {given.low.tolist()} and {given.high.tolist()}; the benchmark's "
            f"bounds are {expected.low.tolist()} and {expected.high.tolist()}. Give chunks in the "
            "benchmark's units."
        )


def check_cameras(who: str, part: Any, observation: Observation) -> None:
    """A part that names its cameras must get them."""
    cameras = tuple(getattr(part, "cameras", None) or ())
    missing = [name for name in cameras if name not in observation.images]
    if missing:
        raise ForethoughtError(
            f"{who} reads the cameras {list(cameras)}; the benchmark gives {list(observation.images)}. "
            "Use a checkpoint for these cameras, or choose them with benchmark.cameras=[...]."
        )


def check_chunks(who: str, model: Any, *, horizon: int, action_size: int) -> None:
    """Models that know a chunk length and an action size must know the policy's."""
    for name, expected in (("horizon", horizon), ("action_size", action_size)):
        given = getattr(model, name, None)
        if given is not None and given != expected:
            raise ForethoughtError(
                f"{who} was trained on chunks with {name} {given}; the policy's have {expected}. "
                "Train models for this policy (`forethought train models`), or use the policy that they "
                "belong to."
            )


def rehearse(arm: str, controller: Any, observation: Observation) -> None:
    """One decision that nothing executes, with errors shown instead of caught.

    Raises:
        ForethoughtError: The policy or the planner raises or returns something unusable.
    """
    policy, planner = controller.policy, controller.planner
    seeds = np.zeros(1, np.int64)
    shape = int(policy.horizon), policy.action_spec.size
    samples = _attempt(
        f"Arm {arm}: the policy", policy.propose, observation, getattr(controller, "samples", 1), seeds
    )
    chunks = np.asarray(getattr(samples, "chunks", None))
    if chunks.dtype == object or chunks.ndim != 4 or chunks.shape[0] != 1 or chunks.shape[2:] != shape:
        raise ForethoughtError(
            f"Arm {arm}: the policy says that its chunks have {shape[0]} steps of {shape[1]} numbers, and "
            f"answered the first observation with an array of shape {list(chunks.shape)}; [1, samples, "
            f"{shape[0]}, {shape[1]}] was expected. Check its horizon and action_spec."
        )
    _check_finite(f"Arm {arm}: the policy's chunks", chunks)
    if planner is None:
        return
    decision = _attempt(f"Arm {arm}: the planner", planner.plan, observation, samples, seeds)
    if np.shape(decision.chunk) != (1, *shape):
        raise ForethoughtError(
            f"Arm {arm}: the planner answered the first observation with a chunk of shape "
            f"{np.shape(decision.chunk)}; {(1, *shape)} was expected. Plan with the policy's chunk length "
            "and action size."
        )
    _check_finite(f"Arm {arm}: the planner's chunk", decision.chunk)
    if not decision.fallback[0]:
        _check_finite(
            f"Arm {arm}: the values of the planner", np.stack([decision.value, decision.policy_value])
        )


def _check_finite(what: str, numbers: np.ndarray) -> None:
    if not np.isfinite(np.asarray(numbers, np.float64)).all():
        raise ForethoughtError(
            f"{what} for the benchmark's first observation hold NaN or infinity; finite numbers were "
            "expected. The weights of the policy, the world model or the reward are broken, or were trained "
            "on other inputs."
        )


def _attempt(who: str, call: Any, *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except ForethoughtError as error:
        raise ForethoughtError(f"{who} refuses the benchmark's first observation: {error}") from error
    except Exception as error:
        raise ForethoughtError(
            f"{who} fails on the benchmark's first observation: {type(error).__name__}: {error}. "
            "Check that checkpoint and benchmark belong together."
        ) from error
