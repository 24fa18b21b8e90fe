"""One training loop: Adam with a cosine schedule and averaged weights, that shows progress and survives a
kill."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

CHECKPOINT_SECONDS = 60.0

Loss: TypeAlias = Callable[[nn.Module, torch.Generator], Tensor]
"""Draws a batch with the generator and returns the module's loss on it."""


def mixed_precision(device: str | torch.device = "cpu") -> torch.autocast:
    """Matrix products in bfloat16, for the forward pass of a loss, which is precise enough for gradients: on
    a GPU, and on a CPU that has instructions for it (two to four times faster). On others they would take
    many times as long as in float32 (nine, with AVX2), and stay in it."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or multiplies_bfloat16())


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies matrices of bfloat16."""
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def fit(
    module: nn.Module,
    loss: Loss,
    *,
    title: str,
    steps: int,
    learning_rate: float,
    checkpoint: Path,
    seed: int,
    weight_decay: float = 1e-4,
    average: float = 0.999,
) -> float:
    """Trains ``module`` in place; it ends with its exponentially averaged weights.

    Args:
        module: What to train.
        loss: See ``Loss``.
        title: Name in the progress display.
        steps: Gradient steps.
        learning_rate: Peak of the schedule.
        checkpoint: Where the state is kept while training goes on; a run that finds one there goes on from
            it.
        seed: Of the generator.
        weight_decay: Of AdamW.
        average: Decay of the averaged weights, reached gradually so that a short run is not held back.

    Returns:
        Mean loss of the last tenth.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    warm_up = max(steps // 20, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))),
    )

    def blend(mean: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        decay = min(average, (1 + float(count)) / (10 + float(count)))
        return torch.lerp(new, mean, decay)

    averaged = AveragedModel(module, avg_fn=blend)
    parts = {"module": module, "optimiser": optimiser, "schedule": schedule, "averaged": averaged}
    first, recent = 0, 0.0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        generator.set_state(state["generator"])
        first, recent = state["step"], state["recent"]

    def keep(step: int) -> None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"generator": generator.get_state(), "step": step, "recent": recent}
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    columns += (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("loss {task.fields[loss]:.4f}"))
    saved = time.monotonic()
    module.train()
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=steps, completed=first, loss=recent)
        for step in range(first, steps):
            value = loss(module, generator)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            averaged.update_parameters(module)
            weight = max(1 / (step + 1), 10 / max(steps, 10))
            recent += weight * (float(value.detach()) - recent)
            progress.update(task, advance=1, loss=recent)
            if not progress.console.is_terminal and (step + 1) % max(steps // 10, 1) == 0:
                progress.console.print(f"{title}: step {step + 1} of {steps}, loss {recent:.4f}")
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                keep(step + 1)
                saved = time.monotonic()
    module.load_state_dict(averaged.module.state_dict())
    module.eval()
    checkpoint.unlink(missing_ok=True)
    return recent
