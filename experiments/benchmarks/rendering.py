"""Images from a MuJoCo model, in a graphics context of their own, made when the first image is asked for."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from functools import cache
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError
from .detail import simplified
from .runtime import load_mujoco

HIDDEN_GROUP = 5
_OPEN: weakref.WeakSet[CameraRenderer] = weakref.WeakSet()


class CameraRenderer:
    """Renders named cameras of one model.

    Args:
        model: The ``mujoco.MjModel``.
        size: Side of the square image in pixels.
        cheap: Antialiasing, shadows and reflections off. Faster, and a visibly different image: use it in
            training and test alike or in neither, and not beside published numbers.
        faces: Most triangles of a mesh that are drawn; None draws all.
    """

    def __init__(self, model: Any, size: int, cheap: bool, faces: int | None = None) -> None:
        self._faces = faces
        self._model = model
        self._size = size
        self._cheap = cheap
        self._context: Any = None

    def render(self, data: Any, camera: str) -> np.ndarray:
        """``uint8 [size, size, 3]`` of ``mujoco.MjData`` as it stands, bottom row first as OpenGL stores
        it."""
        mujoco = load_mujoco()

        if self._context is None:
            self._open()
        self._gl.make_current()
        camera_id = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, camera)
        if camera_id < 0:
            raise ForethoughtError(f"The scene has no camera {camera!r}.")
        self._camera.fixedcamid = camera_id
        groups = self._model.geom_group.copy()
        if self._cheap:
            self._model.geom_group[outside_view(self._model, data, camera_id)] = HIDDEN_GROUP
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._options,
            None,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )
        self._model.geom_group[:] = groups
        image = np.empty((self._size, self._size, 3), np.uint8)
        mujoco.mjr_render(self._viewport, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, self._viewport, self._context)
        return image

    def close(self) -> None:
        """Free the graphics context."""
        if self._context is not None:
            with contextlib.suppress(Exception):
                self._gl.make_current()
                self._context.free()
                self._gl.free()
            self._context = None

    def _open(self) -> None:
        mujoco = load_mujoco()

        visual = self._model.vis
        visual.global_.offwidth = visual.global_.offheight = self._size
        if self._cheap:
            visual.quality.offsamples = 0
        try:
            self._gl = _graphics_context(self._size)
            self._gl.make_current()
        except Exception as error:
            raise ForethoughtError(
                f"No graphics context could be made ({type(error).__name__}: {error}). Without a display, "
                "set MUJOCO_GL=egl (system libraries libegl1, libgl1-mesa-dri, libopengl0) or "
                "MUJOCO_GL=osmesa (libosmesa6) before starting."
            ) from error
        self._scene = mujoco.MjvScene(self._model, maxgeom=1000)
        if self._cheap:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision shapes
        self._options.geomgroup[HIDDEN_GROUP] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._viewport = mujoco.MjrRect(0, 0, self._size, self._size)
        with contextlib.nullcontext() if self._faces is None else simplified(self._model, self._faces):
            self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_150)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        _OPEN.add(self)
        _close_at_exit()


def outside_view(model: Any, data: Any, camera_id: int) -> np.ndarray:
    """Which shapes, ``bool [geoms]``, a square camera cannot see because their bounding sphere lies outside
    of its view. Leaving them out changes no pixel as long as nothing casts a shadow or a reflection."""
    local = (data.geom_xpos - data.cam_xpos[camera_id]) @ data.cam_xmat[camera_id].reshape(3, 3)
    half = 0.5 * np.deg2rad(model.cam_fovy[camera_id])
    ahead = local[:, 2] * np.sin(half)  # the camera looks along -z
    sideways = np.cos(half) * np.abs(local[:, :2]).max(axis=1) + ahead
    beyond = np.maximum(sideways, local[:, 2])
    return (model.geom_rbound > 0) & (beyond > model.geom_rbound)


def _graphics_context(size: int) -> Any:
    """An offscreen OpenGL context of the kind that MUJOCO_GL names, whenever mujoco was imported."""
    kind = os.environ.get("MUJOCO_GL", "").lower().strip()
    if kind == "egl":
        from mujoco.egl import GLContext
    elif kind == "osmesa":
        from mujoco.osmesa import GLContext
    else:
        from mujoco import GLContext
    return GLContext(size, size)


@cache
def _close_at_exit() -> None:
    """Arrange, once and after the graphics library has arranged its own end, that contexts go before it."""

    def close_all() -> None:
        for renderer in list(_OPEN):
            renderer.close()

    atexit.register(close_all)
