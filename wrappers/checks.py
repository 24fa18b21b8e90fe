"""What is wrong with an observation, a policy's samples or a planner's decision."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..interfaces import ActionSamples, Decision, ForethoughtError, Observation


def finite_rows(array: np.ndarray, axes: int = 1) -> np.ndarray:
    """Whether everything is a finite number, ``bool`` over the first ``axes`` axes."""
    flat = array.reshape(*array.shape[:axes], -1)
    return np.asarray(np.isfinite(flat).all(axis=-1))


def unusable_rows(observation: Any, batch: int) -> tuple[np.ndarray, str]:
    """Rows of an observation that no planner should see.

    Returns:
        ``bool [B]`` and a phrase that says what is wrong with them (empty when nothing is).
    """
    everything = np.ones(batch, bool)
    if isinstance(observation, Exception):  # stands in for an observation that could not be made
        return everything, f"{type(observation).__name__}: {observation}"
    if not isinstance(observation, Observation):
        return everything, f"expected an Observation, got {type(observation).__name__}"
    if len(observation.instruction) != batch:
        return everything, f"{len(observation.instruction)} instructions for {batch} rows"
    bad = np.zeros(batch, bool)
    words = []
    arrays = {"proprioception": observation.proprioception, **observation.images}
    for name, array in arrays.items():
        array = np.asarray(array)
        dimensions = 2 if name == "proprioception" else 4
        if array.ndim != dimensions or array.shape[0] != batch or array.dtype == object:
            return everything, f"{name} has shape {array.shape} for {batch} rows"
        if np.issubdtype(array.dtype, np.floating):
            rows = ~finite_rows(array)
            if rows.any():
                words.append(f"NaN or infinity in {name}")
            bad |= rows
    return bad, "; ".join(words)


def own_chunks(samples: Any, batch: int, horizon: int, size: int) -> np.ndarray:
    """A policy's chunks as a fresh ``float32 [B, N, H, A]``; raises a ForethoughtError where they are not."""
    if not isinstance(samples, ActionSamples):
        raise ForethoughtError(f"The policy must return ActionSamples; got {type(samples).__name__}.")
    chunks = np.array(samples.chunks, np.float32)
    shape = chunks.shape
    if len(shape) != 4 or shape[0] != batch or shape[1] < 1 or shape[2:] != (horizon, size):
        raise ForethoughtError(
            f"The policy must return chunks [{batch}, N, {horizon}, {size}] (batch, samples, horizon, "
            "action size); "
            f"got {list(shape)}."
        )
    return chunks


def usable_log_probability(samples: ActionSamples, chunks: np.ndarray) -> np.ndarray | None:
    """The samples' log-probabilities where they fit the chunks and are numbers, else None."""
    if samples.log_probability is None:
        return None
    log_probability = np.asarray(samples.log_probability, np.float32)
    fits = log_probability.shape == chunks.shape[:2] and not np.isnan(log_probability).any()
    return log_probability if fits else None


def failed_rows(decision: Any, batch: int, horizon: int, size: int) -> tuple[np.ndarray, str]:
    """Rows of a planner's decision that must not be executed, ``bool [B]``, and what is wrong with them."""
    everything = np.ones(batch, bool)
    if not isinstance(decision, Decision):
        return everything, f"expected a Decision, got {type(decision).__name__}"
    if np.shape(decision.chunk) != (batch, horizon, size):
        return (
            everything,
            f"expected a chunk [{batch}, {horizon}, {size}], got {list(np.shape(decision.chunk))}",
        )
    for name in ("slot", "value", "policy_value", "overridden", "fallback", "reason", "simulations"):
        if np.shape(getattr(decision, name)) != (batch,):
            return everything, f"expected {name} [{batch}], got {list(np.shape(getattr(decision, name)))}"
    bad_chunk = ~finite_rows(np.asarray(decision.chunk, np.float32))
    values = np.stack([decision.value, decision.policy_value], axis=1).astype(np.float32)
    bad_value = ~finite_rows(values) & ~np.asarray(decision.fallback, bool)
    if bad_chunk.any():
        return bad_chunk | bad_value, "NaN or infinity in the chosen chunk"
    return bad_value, "NaN or infinity in the value" if bad_value.any() else ""
