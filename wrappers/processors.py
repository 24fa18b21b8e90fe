"""Between what a policy works in and the units of its environment, by processors that stand outside of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..interfaces import ActionSpec, ForethoughtError


class Units:
    """Between what a policy works in and the units of the environment, by its own processors.

    Args:
        preprocessor: From an observation of the environment to what the policy gets.
        postprocessor: From what it answers to actions of the environment.
    """

    def __init__(self, preprocessor: Any, postprocessor: Any) -> None:
        self._observed = [
            step
            for step in preprocessor.steps
            if hasattr(step, "_normalize_observation") or _standardises_colours(step)
        ]
        self._acted = [step for step in postprocessor.steps if hasattr(step, "_normalize_action")]
        self._postprocessor = postprocessor

    def observation(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the policy gets, as it was before: images ``uint8 [B, h, w, 3]``, ``task`` a list of strings.

        A policy without instructions may get none; then they are empty.
        """
        seen = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        seen = {name: value for name, value in seen.items() if name.startswith("observation.")}
        for step in reversed(self._observed):
            if _standardises_colours(step):
                coloured = [name for name in seen if name.startswith("observation.images")]
                seen |= {name: _colours(seen[name]) for name in coloured}
            else:
                seen = step._normalize_observation(seen, inverse=True)
        entries: dict[str, Any] = {
            name: _image(value) if value.ndim >= 4 else value for name, value in seen.items()
        }
        rows = max((len(value) for value in seen.values()), default=1)
        tasks = batch.get("task") or [""] * rows
        tasks = [tasks] * rows if isinstance(tasks, str) else tasks
        return entries | {"task": [_instruction(text) for text in tasks]}

    def environment(self, chunks: Tensor) -> np.ndarray:
        """Chunks ``[..., A]`` of the policy in units of the environment, ``float32``."""
        flat = self._postprocessor(chunks.reshape(-1, chunks.shape[-1]).clone())
        return flat.detach().float().cpu().numpy().reshape(*chunks.shape[:-1], -1)

    def policy(self, chunks: np.ndarray, like: Tensor) -> Tensor:
        """Chunks ``[..., A]`` of the environment as the policy would have answered them."""
        normalised = torch.as_tensor(chunks, dtype=torch.float32, device=like.device)
        for step in reversed(self._acted):
            normalised = step._normalize_action(normalised, inverse=False)
        return normalised.to(like.dtype)

    def check(self, policy: Any, spec: ActionSpec) -> None:
        """Raises a ForethoughtError unless planned actions reach the environment as they were planned."""
        size = policy.config.action_feature.shape[0]
        nothing = torch.zeros(1, size, device=next(policy.parameters()).device)
        moves = self.environment(nothing + 0.1) != self.environment(nothing)
        if moves.shape[-1] == size == spec.size:
            bounds = np.stack([spec.low, spec.high])
            error = abs(self.environment(self.policy(bounds, nothing)) - bounds)
            if np.all((error < 1e-3 * (spec.high - spec.low)) | ~moves):
                return
        names = [type(step).__name__ for step in self._postprocessor.steps]
        raise ForethoughtError(
            f"A {type(policy).__name__} answers {size} numbers, its postprocessor {names} makes "
            f"{moves.shape[-1]} of them, the models were trained for {spec.size}; and of what it does only "
            "normalisation can be turned back. Give models (or an action_spec) of the same numbers, or wrap "
            "a function that calls the policy and its postprocessor: forethought.wrap(function, …)."
        )


def _instruction(text: str) -> str:
    """The task in words, also from a prompt of π0.5 and π0-FAST (``Task: …, State: 3 141 59;``)."""
    prompt = re.match(r"Task: (.*), State: [\d -]*;", text)
    return (prompt.group(1) if prompt else text).strip()


def _standardises_colours(step: Any) -> bool:
    """Whether it is X-VLA's step that takes the mean colour of ImageNet from an image."""
    return type(step).__name__.endswith("ImageNetNormalizeProcessorStep")


def _colours(pixels: Tensor) -> Tensor:
    mean, deviation = pixels.new_tensor([0.485, 0.456, 0.406]), pixels.new_tensor([0.229, 0.224, 0.225])
    return pixels * deviation[:, None, None] + mean[:, None, None]


def _image(pixels: Tensor) -> np.ndarray:
    """``uint8 [B, h, w, 3]`` of numbers in [0, 1], ``[B, 3, h, w]`` or with steps in between, newest last."""
    pixels = (pixels[:, -1] if pixels.ndim == 5 else pixels).detach().float()
    if pixels.min() < -0.02 or pixels.max() > 1.02:
        return pixels.cpu().numpy()  # changed by a step that is not known here: nobody takes it for an image
    scaled = (pixels * 255.0).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().cpu().numpy()
