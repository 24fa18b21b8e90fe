"""What a planner is given, checked and made finite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..interfaces import ActionSamples, ActionSpec, Decision, ForethoughtError, Observation
from .likelihood import sample_weights
from .tree import finite_numbers


@dataclass(eq=False)
class Inputs:
    """A planner's arguments for B rows.

    Attributes:
        chunks: The policy's samples, ``float32 [B, N, H, A]``, finite: others are replaced by the row's own
            chunk, and where that is not finite by the middle of the bounds.
        own: The policy's own chunks as they came, ``float32 [B, H, A]``.
        whole: Whether the own chunk was finite, ``bool [B]``.
        intact: Whether it was in every row.
        seeds: ``int64 [B]``.
        weights: Of the samples by the policy's likelihoods, ``float64 [B, N]``, or None where it has none.
    """

    chunks: np.ndarray
    own: np.ndarray
    whole: np.ndarray
    intact: bool
    seeds: np.ndarray
    weights: np.ndarray | None = None


def every(flags: np.ndarray) -> bool:
    """Whether all of a few flags ``bool [B]`` are set: their list is asked in less time than NumPy takes to
    begin."""
    return all(flags.tolist())


def checked(samples: ActionSamples, observation: Observation, seeds: np.ndarray, spec: ActionSpec) -> Inputs:
    """The arguments of ``Planner.plan`` with shapes checked.

    Raises:
        ForethoughtError: The shapes fit neither the observation nor the action spec.
    """
    chunks, batch = np.ascontiguousarray(samples.chunks, np.float32), observation.batch
    # One that cannot be written to would have all loops compiled once more.
    chunks = chunks if chunks.flags.writeable else chunks.copy()
    shape = chunks.shape
    if len(shape) != 4 or shape[0] != batch or min(shape) < 1 or shape[3] != spec.size:
        raise ForethoughtError(
            f"Policy chunks must be [B, N, H, A] with B={batch} rows and the action spec's A={spec.size}; "
            f"got shape {shape}. Wrap the policy with the action spec of its benchmark."
        )
    seeds = np.asarray(seeds, np.int64).reshape(-1)
    if seeds.size != batch:
        raise ForethoughtError(f"plan needs one seed per row, int64 [{batch}]; got {seeds.size} seeds.")
    own, whole = chunks[:, 0], finite_numbers(chunks)
    intact = every(whole)
    if not intact:
        finite = np.asarray(np.isfinite(chunks).all(axis=(2, 3)))
        whole = finite[:, 0]
        intact = every(whole)
        stand_in = np.where(whole[:, None, None], own, 0.5 * (spec.low + spec.high))
        chunks = np.where(finite[:, :, None, None], chunks, stand_in[:, None])
    given = samples.log_probability
    if given is not None and np.shape(given) != shape[:2]:
        raise ForethoughtError(
            f"log_probability must be [B, N] = {list(shape[:2])}, a number for each chunk; got shape "
            f"{list(np.shape(given))}. Leave it None where the policy has no likelihood."
        )
    return Inputs(chunks, own, whole, intact, seeds, sample_weights(chunks, given))


def distinct(rows: np.ndarray, batch: int) -> list[int]:
    """The names of the rows of a batch.

    Raises:
        ForethoughtError: They are not as many as there are rows, or two are the same.
    """
    names = [int(row) for row in rows]
    if len(set(names)) != len(names) or len(names) != batch:
        raise ForethoughtError(f"plan_rows needs one distinct number for each of {batch} rows; got {names}.")
    return names


def without_search(inputs: Inputs, spec: ActionSpec, reason: str) -> Decision:
    """The fallback of every row: the policy's own chunk inside the bounds, or as it came where it was not
    finite, so that whoever guards the robot sees it."""
    rows = inputs.whole.size
    chunk = spec.clip(inputs.chunks[:, 0])
    chunk[~inputs.whole] = inputs.own[~inputs.whole]
    unknown, no = np.full(rows, np.nan, np.float32), np.zeros(rows, bool)
    return Decision(
        chunk=chunk,
        slot=np.zeros(rows, np.int32),
        value=unknown,
        policy_value=unknown.copy(),
        overridden=no,
        fallback=~no,
        reason=(reason,) * rows,
        simulations=np.zeros(rows, np.int32),
    )
