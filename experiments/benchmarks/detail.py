"""Meshes with fewer triangles, for pictures of a few dozen pixels: these cost triangles, not pixels.

Vertices are merged on a grid (vertex clustering; Rossignac and Borrel 1993), and triangles that collapse are
left out. Texture coordinates and normals of the corners stay, so colours stay where they were to within a
cell. Only what is drawn changes, never what collides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

LEAST_FACES = 16
"""Fewer triangles than this are no object's shape any more."""

_HALVINGS = 7


@contextlib.contextmanager
def simplified(model: Any, faces: int) -> Iterator[None]:
    """While the context lasts, every mesh of a ``mujoco.MjModel`` has at most ``faces`` triangles: make the
    graphics context inside, which copies them. The model is as before afterwards."""
    names = ("mesh_facenum", "mesh_face", "mesh_facenormal", "mesh_facetexcoord", "mesh_vert")
    before = {name: getattr(model, name).copy() for name in names}
    try:
        for mesh in range(model.nmesh):
            if model.mesh_facenum[mesh] > faces:
                _simplify(model, mesh, faces)
        yield
    finally:
        for name, array in before.items():
            getattr(model, name)[:] = array


def _simplify(model: Any, mesh: int, faces: int) -> None:
    start, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    first = int(model.mesh_vertadr[mesh])
    vertex = model.mesh_vert[first : first + int(model.mesh_vertnum[mesh])]
    corner = model.mesh_face[start : start + count]
    keep, merged = merge_vertices(vertex, corner, faces)
    vertex[:] = merged
    for array in (model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord):
        array[start : start + len(keep)] = array[start : start + count][keep]
    model.mesh_facenum[mesh] = len(keep)


def merge_vertices(vertex: np.ndarray, face: np.ndarray, faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Merge vertices on the finest grid that leaves at most ``faces`` triangles.

    Args:
        vertex: Positions ``[V, 3]``.
        face: Corners of each triangle, indices into ``vertex``, ``[F, 3]``.
        faces: Triangles to leave.

    Returns:
        Indices of the triangles that stay, and where each vertex went ``[V, 3]``.
    """
    low, side = vertex.min(axis=0), float(np.ptp(vertex, axis=0).max())
    kept, cell = np.zeros(0, np.intp), np.zeros(len(vertex), np.intp)
    fine, coarse = 0.0, side
    for step in range(_HALVINGS):
        size = 0.5 * (fine + coarse) if step else side / np.sqrt(faces)
        place = np.floor((vertex - low) / size).astype(np.int64)
        ids = np.unique(place @ (place.max() + 1) ** np.arange(3), return_inverse=True)[1]
        distinct = _distinct(ids[face])
        if len(distinct) <= faces:
            kept, cell, coarse = distinct, ids, size
        else:
            fine = size
    count = np.maximum(np.bincount(cell), 1)
    middle = [np.bincount(cell, vertex[:, axis]) / count for axis in range(3)]
    return kept, np.stack(middle, axis=1)[cell].astype(vertex.dtype)


def _distinct(corner: np.ndarray) -> np.ndarray:
    """Triangles with three different corners, one of those that are the same."""
    whole = np.flatnonzero(
        (corner[:, 0] != corner[:, 1]) & (corner[:, 1] != corner[:, 2]) & (corner[:, 0] != corner[:, 2])
    )
    turned = corner[whole]
    turn = turned.argmin(axis=1)[:, None]
    turned = np.take_along_axis(turned, (turn + np.arange(3)) % 3, axis=1)  # the same triangle, the same side
    key = turned.astype(np.int64) @ (int(corner.max()) + 1) ** np.arange(3)
    return whole[np.unique(key, return_index=True)[1]]
