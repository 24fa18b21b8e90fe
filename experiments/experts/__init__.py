"""Scripted experts that act from privileged state."""

from __future__ import annotations

from .pick_place import ExpertOptions, PickPlaceExpert
from .scene import Scene

__all__ = ["ExpertOptions", "PickPlaceExpert", "Scene"]
