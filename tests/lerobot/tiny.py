"""The families of LeRobot's policies by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_pi0
import tiny_policies
import torch

FAMILIES = ("act", "diffusion", "vqbet", "smolvla", "pi0", "pi0_fast", "xvla")
SAMPLED = FAMILIES[1:]
"""Those that answer differently when they are asked again."""

BUILDERS = {
    "smolvla": tiny_policies.smolvla,
    "pi0": tiny_pi0.pi0,
    "pi0_fast": tiny_pi0.pi0_fast,
    "xvla": tiny_policies.xvla,
}


def build(family: str, folder: Path, *, seed: int = 0, **given: Any) -> Any:
    """A policy with random weights, ready to act; what it loads by name is written to the folder first."""
    torch.manual_seed(seed)
    if family in BUILDERS:
        return BUILDERS[family](folder, **given).eval()
    return getattr(tiny_policies, family)(**given).eval()
