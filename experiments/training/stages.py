"""The stages of a training command: each is run once, and a later run finds its result."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .loop import Loss, fit

LEARNING_RATE = 1e-3
"""Peak of every stage's schedule."""


class Stages:
    """Runs a stage once: its weights are kept, and a later run with the same folder loads them.

    Args:
        folder: Where the weights are kept.
        seed: Of every stage.
        device: Where a stage runs that names no other.
    """

    def __init__(self, folder: Path, seed: int, device: str = "cpu") -> None:
        self.folder, self.seed, self.device = folder, seed, device

    def run(
        self,
        name: str,
        module: nn.Module,
        loss: Loss,
        steps: int,
        weight_decay: float = 1e-4,
        device: str | None = None,
    ) -> None:
        """Trains ``module`` in place, or loads what an earlier run made of it; see ``fit``."""
        device = device or self.device
        module.to(device)
        path, checkpoint = self.folder / f"{name}.pt", self.folder / f"{name}.checkpoint"
        if path.is_file():
            module.load_state_dict(torch.load(path, weights_only=True, map_location=device))
        else:
            options = {"learning_rate": LEARNING_RATE, "seed": self.seed, "weight_decay": weight_decay}
            fit(module, loss, title=name, steps=steps, checkpoint=checkpoint, **options)
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            torch.save(module.state_dict(), partial)
            partial.replace(path)  # a kill leaves no half stage behind
        module.eval()
