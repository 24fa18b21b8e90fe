"""Packages that only some world models need: imported when one is built, or named with what installs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..interfaces import ForethoughtError


def require(module: str, what: str, install: str) -> ModuleType:
    """The module of that dotted name.

    Args:
        module: What to import.
        what: Who needs it, as the subject of a sentence.
        install: What to install, such as ``'forethought[video]'``.

    Raises:
        ForethoughtError: It is not installed, or does not import.
    """
    try:
        return importlib.import_module(module)
    except (
        ImportError,
        RuntimeError,
    ) as error:  # diffusers and transformers raise RuntimeError for a lazy name
        raise ForethoughtError(
            f"{what} needs the package {module.split('.')[0]}, which does not import here ({error}). "
            f"Install it: pip install {install}"
        ) from error
