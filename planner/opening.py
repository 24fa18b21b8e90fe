"""Chunks for the children that the compiled walk opens, drawn where it opened them.

Between two calls of the networks every further call counts. Proposals that say how compiled loops can draw
from them (their method ``compiled``, see ``drawing``) cost none below the root; all others are asked by
``TreeSearch.expand``.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import numpy as np
from numba import njit

from ..interfaces import ActionSpec
from .chunk_space import ChunkSpace
from .context import Context
from .one_by_one import Drawer, Kernels, Mixture, draw_and_weigh
from .settling import scatter

ELSEWHERE, SAMPLES, KERNELS = 0, 1, 2

Drawing: TypeAlias = tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray, Mixture]
"""How to draw for B trees: not here (``ELSEWHERE``); ``SAMPLES``, chunks in their order, clipped, ``float32
[B, N, H, A]``, and the logarithms of their weights, ``float64 [B, N]``; or ``KERNELS``, by seeds and entries
``int64 [B]`` from a mixture of one source. Type by type the same, so that one compiled walk serves all."""

NO_SAMPLES, NO_WEIGHTS, NO_ROWS = np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1)), np.zeros(1, np.int64)


def from_samples(samples: np.ndarray, log_weights: np.ndarray) -> Drawing:
    """Draws the trees' samples in their order."""
    return SAMPLES, NO_ROWS, NO_ROWS, samples, log_weights, _no_mixture()


def from_kernels(seeds: np.ndarray, entries: np.ndarray, mixture: Mixture) -> Drawing:
    """Draws around the kernels at each tree's entry."""
    return KERNELS, seeds, entries, NO_SAMPLES, NO_WEIGHTS, mixture


def drawing(proposals: Any, context: Context, count: int) -> Drawing:
    """What ``proposals.compiled`` says of drawing up to ``count`` candidates of a node, given the context of
    the roots; that of proposals without such a method, or where it returns None, is ``ELSEWHERE``."""
    compiled = getattr(proposals, "compiled", None)
    known = None if compiled is None else compiled(context, count)
    return (ELSEWHERE, NO_ROWS, NO_ROWS, NO_SAMPLES, NO_WEIGHTS, _no_mixture()) if known is None else known


@functools.cache
def _no_mixture() -> Mixture:
    space = ChunkSpace(ActionSpec(low=-np.ones(1), high=np.ones(1)), 1)
    drawer = Drawer(space, (1.0,), ((1.0,),), 0.0, 1.0)
    return drawer.mixture(Kernels(space, np.zeros((1, 1, 1, 1), np.float32)).describe())


@njit(cache=True, nogil=True, error_model="numpy")
def draw_opened(nodes: Any, chunk: np.ndarray, drawn: np.ndarray, drawing: Any) -> None:
    """``TreeSearch.expand`` of children ``int64 [3, D]``, under a ``Drawing`` that is not ``ELSEWHERE``."""
    kind, seeds, entries, samples, log_weights, mixture = drawing
    rows, parents, places = drawn[0], drawn[1], drawn[2]
    if kind == SAMPLES:
        chunks, source, _ = take_samples(samples, rows, places)
        log_prior = np.empty(rows.size)
        for i in range(rows.size):
            log_prior[i] = log_weights[rows[i], places[i]]
    else:
        chunks = np.empty((rows.size, chunk.shape[2], chunk.shape[3]), np.float32)
        source, log_prior = np.empty(rows.size, np.int8), np.empty(rows.size)
        seed, entry = np.empty(rows.size, np.int64), np.empty(rows.size, np.int64)
        for i in range(rows.size):
            seed[i], entry[i] = seeds[rows[i]], entries[rows[i]]
        draw_and_weigh(0, rows.size, seed, parents, places, entry, mixture, chunks, source, log_prior)
    scatter(nodes, chunk, drawn, chunks, source, log_prior)


@njit(cache=True, nogil=True, error_model="numpy")
def take_samples(
    chunks: np.ndarray, rows: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Chunks ``[M, H, A]`` of ``[B, N, H, A]``, and 0 for the first of a row, 1 for others, ``int8 [M]``; the
    largest place, and nothing taken from places that are not there."""
    flat, last = chunks.reshape(chunks.shape[0], chunks.shape[1], -1), 0
    out, source = np.empty((rows.size, flat.shape[2]), chunks.dtype), np.ones(rows.size, np.int8)
    for i in range(rows.size):
        last = max(last, places[i])
        source[i] = 1 if places[i] else 0
        if places[i] < chunks.shape[1]:
            for k in range(flat.shape[2]):
                out[i, k] = flat[rows[i], places[i], k]
    return out.reshape(rows.size, *chunks.shape[2:]), source, last
