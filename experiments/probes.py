"""Questions about the machine that can hang, crash or print, each asked in a process of its own.

``ask("render", MUJOCO_GL="egl")`` starts ``python -m forethought.experiments.probes render`` and reads the
JSON that it ends with.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SCENE = """
<mujoco><worldbody>
  <light pos="0 0 3"/><geom type="sphere" size="0.4" rgba="1 0 0 1"/><camera name="eye" pos="0 0 2"/>
</worldbody></mujoco>
"""
MARK = "forethought-probe:"


def ask(question: str, timeout: float = 60.0, **environment: str) -> tuple[dict[str, Any] | None, str]:
    """The answer of a probe, or None and why there is none.

    Args:
        question: One of `PROBES`.
        timeout: Seconds after which the process is ended.
        **environment: Variables to set for the process.
    """
    command = [sys.executable, "-m", __name__, question]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {timeout:g} s"
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            answer = json.loads(line.removeprefix(MARK))
            return (None, answer["error"]) if "error" in answer else (answer, "")
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return None, f"exit code {done.returncode}" + (f": {said[-1].strip()[:200]}" if said else "")


def render() -> dict[str, Any]:
    """Draws a red ball with MuJoCo through the library that ``MUJOCO_GL`` names."""
    mujoco = importlib.import_module("mujoco")
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = mujoco.Renderer(model, 48, 48)
    renderer.update_scene(data, camera="eye")
    red, green, blue = (int(number) for number in renderer.render()[24, 24])
    if not red > 40 + max(green, blue):
        raise RuntimeError(f"the picture is wrong: a red ball came out as {(red, green, blue)}")
    strings = importlib.import_module("OpenGL.GL")
    return {"renderer": strings.glGetString(strings.GL_RENDERER).decode()}


def vulkan() -> dict[str, Any]:
    """Names of the Vulkan devices."""
    import ctypes

    class InstanceInfo(ctypes.Structure):
        _fields_ = (
            ("type", ctypes.c_int),
            ("next", ctypes.c_void_p),
            ("flags", ctypes.c_uint32),
            ("application", ctypes.c_void_p),
            ("layers", ctypes.c_uint32),
            ("layer_names", ctypes.c_void_p),
            ("extensions", ctypes.c_uint32),
            ("extension_names", ctypes.c_void_p),
        )

    library = ctypes.CDLL("libvulkan.so.1")
    instance = ctypes.c_void_p()
    result = library.vkCreateInstance(ctypes.byref(InstanceInfo(type=1)), None, ctypes.byref(instance))
    if result:
        raise RuntimeError(f"no Vulkan driver answers (vkCreateInstance: {result})")
    count = ctypes.c_uint32()
    library.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    devices = (ctypes.c_void_p * count.value)()
    library.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
    names = []
    for device in devices:
        properties = ctypes.create_string_buffer(4096)
        library.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), properties)
        names.append(properties.raw[20:276].split(b"\0")[0].decode())  # after five 32-bit numbers
    if not names:
        raise RuntimeError("the Vulkan drivers know no device")
    return {"devices": names}


def libero() -> dict[str, Any]:
    """For each original suite, how many of its tasks have their files."""
    from pathlib import Path

    from .benchmarks.libero import LiberoBenchmark

    suites = {}
    for name in ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"):
        tasks = LiberoBenchmark(name).tasks
        suites[name] = [
            sum(Path(task.bddl_file).is_file() and task.init_states > 0 for task in tasks),
            len(tasks),
        ]
    return {"suites": suites}


def torch() -> dict[str, Any]:
    """The build of PyTorch and its devices."""
    module = importlib.import_module("torch")
    cuda = module.cuda.is_available()
    return {
        "version": module.__version__,
        "threads": module.get_num_threads(),
        "built_for_cuda": module.version.cuda,
        "devices": [module.cuda.get_device_name(index) for index in range(module.cuda.device_count())]
        if cuda
        else [],
    }


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "render": render,
    "vulkan": vulkan,
    "libero": libero,
    "torch": torch,
}


def main(question: str) -> None:
    """Prints the answer as the last line."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = PROBES[question]()
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(MARK + json.dumps(answer), flush=True)
    os._exit(0)  # graphics libraries complain, and some hang, at a regular exit


if __name__ == "__main__":
    main(sys.argv[1])
