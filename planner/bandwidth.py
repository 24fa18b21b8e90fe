"""How wide kernels should be, by the likelihood of chunks that were left out. For offline use only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError
from .chunk_space import ChunkSpace

CANDIDATES = tuple(float(width) for width in np.geomspace(0.01, 1.0, 21))
"""Widths that are tried, units of half the range of an action's bounds."""


@dataclass(frozen=True, eq=False)
class Bandwidth:
    """The outcome of a choice.

    Attributes:
        width: The best width, units of half the range of the bounds.
        widths: What was tried, ascending, ``float64 [n]``.
        log_likelihood: Of a chunk that was left out, mean over all, per unit of normalised volume,
            ``float64 [n]``.
        at_edge: Whether the best is the narrowest or the widest tried: try further ones.
    """

    width: float
    widths: np.ndarray
    log_likelihood: np.ndarray
    at_edge: bool


def choose_bandwidth(
    chunks: np.ndarray,
    action_spec: ActionSpec,
    *,
    groups: Sequence[int] | np.ndarray | None = None,
    widths: Sequence[float] = CANDIDATES,
    folds: int = 5,
    shared_noise: float = 0.85,
    rotation_scale: float = 0.4,
    seed: int = 0,
) -> Bandwidth:
    """The kernel width under which chunks left out are likeliest, by cross-validation with scikit-learn.

    When: once per data set, before it serves as kernel centres whatever the state (``DatasetKernels``, the
    preset ``vla_reasoner``), or to place the ladder of the other sources. It reads every pair of chunks for
    every width, seconds to minutes; nothing in the loop of a decision calls it. Likelihood says how to
    describe the data, not how far to look beyond it: for proposals take it as the start of a search over
    success, not as its end.

    Binary grippers are left out: a kernel keeps them as they are, at any width. Give ``groups`` wherever
    chunks come from episodes: chunks of one episode are so alike that without groups they vouch for one
    another and the width comes out too small.

    Args:
        chunks: ``[n, H, A]``, environment units.
        action_spec: Meaning and bounds of the action.
        groups: Episode or task of each chunk, n integers; a group is left out as a whole. None: every chunk
            for itself, shuffled.
        widths: Widths to try, units of half the range of the bounds.
        folds: Parts that are left out in turn; fewer where there are fewer groups or chunks.
        shared_noise: Share of a kernel's variance common to all steps, as in the proposals.
        rotation_scale: Factor on the deviation of rotations, as in the proposals.
        seed: Of the shuffling.

    Raises:
        ForethoughtError: Too few chunks or groups, numbers that are not finite, or no continuous index.
    """
    from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
    from sklearn.neighbors import KernelDensity

    chunks = np.asarray(chunks, np.float64)
    if chunks.ndim != 3 or chunks.shape[2] != action_spec.size or not np.isfinite(chunks).all():
        raise ForethoughtError(
            f"choose_bandwidth needs finite chunks [n, H, A] with A={action_spec.size}; got shape "
            f"{chunks.shape}. Leave chunks with NaN out."
        )
    tried = np.unique(np.asarray(widths, np.float64))
    if not tried.size or not (np.isfinite(tried) & (tried > 0.0)).all():
        raise ForethoughtError(f"Widths to try must be positive numbers, one at least; got {list(widths)}.")
    labels = None if groups is None else np.asarray(groups)
    if labels is not None and labels.shape != chunks.shape[:1]:
        raise ForethoughtError(
            f"groups must name one group per chunk, {len(chunks)}; got shape {labels.shape}."
        )
    units = len(chunks) if labels is None else len(np.unique(labels))
    if units < 2 or folds < 2:
        raise ForethoughtError(
            f"Cross-validation needs two folds and two {'chunks' if labels is None else 'groups'} at least; "
            f"got folds={folds} and {units}. Collect more episodes."
        )
    space = ChunkSpace(action_spec, chunks.shape[1], shared_noise, rotation_scale)
    if not space.dimension:
        raise ForethoughtError("This action has binary grippers only: a kernel has no width to choose.")
    parts = min(folds, units)
    splitter = KFold(parts, shuffle=True, random_state=seed) if labels is None else GroupKFold(parts)
    white = space.whiten(chunks)
    # Scores are sums over a fold: equal weight for every chunk.
    totals = np.zeros(tried.size)
    search = GridSearchCV(
        KernelDensity(kernel="gaussian"), {"bandwidth": tried}, cv=splitter, refit=False
    ).fit(white, groups=labels)
    for part in range(splitter.get_n_splits()):
        totals += search.cv_results_[f"split{part}_test_score"]
    score = totals / len(chunks) + space.log_det
    best = int(score.argmax())
    return Bandwidth(float(tried[best]), tried, score, at_edge=best in (0, tried.size - 1))
