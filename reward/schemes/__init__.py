"""How a value learns: one interface, found by looking.

Each file of this folder has ``SCHEMES``, a tuple of objects with the attributes and methods of ``Scheme``. A
new scheme is a new file, or one more entry in an old one; nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...interfaces import ForethoughtError


@dataclass(frozen=True, eq=False)
class Moments:
    """R recorded moments for each of E ensemble members, and how their episodes went on.

    Attributes:
        latent: Estimated, exact or predicted latent, ``float32 [E, R, D]``.
        text: Hashed instruction, ``float32 [E, R, W]``.
        step: Control step of the moment in its episode, ``int64 [E, R]``.
        length: Control steps of its episode, ``int64 [E, R]``.
        success: Whether its episode succeeded at what ``text`` says, ``bool [E, R]``.
        weight: In the loss; 0 where what is said is not known, ``float32 [E, R]``.
        mismatched: Whether ``text`` is the instruction of another task, ``bool [E, R]``.
    """

    latent: Tensor
    text: Tensor
    step: np.ndarray
    length: np.ndarray
    success: np.ndarray
    weight: Tensor
    mismatched: np.ndarray


class Batch(Protocol):
    """What one gradient step may learn from. What is behind a method is made when it is asked for."""

    @property
    def discount(self) -> float:
        """γ per control step."""
        ...

    @property
    def moments(self) -> Moments:
        """Estimated and exact latents, latents that the world model predicted, and successful ends."""
        ...

    def following(self) -> Moments:
        """The recorded moment one chunk after each of ``moments``, or the last of the episode."""
        ...

    def rivals(self) -> tuple[Moments, Moments]:
        """Two imagined futures of the same starts ``[E, R']``, of one decision: after the chunk that was
        executed there, and after one that another episode executed near there."""
        ...

    def rewound(self) -> Moments:
        """Latents ``[E, R']`` imagined by undoing the chunk that led to a moment, as the earlier moment."""
        ...


class Scheme(Protocol):
    """One way to learn a value."""

    @property
    def name(self) -> str:
        """What configurations call it; part of file names."""
        ...

    @property
    def uses_failures(self) -> bool:
        """Whether failed episodes are trained on at all."""
        ...

    def learner(self, network: nn.Module) -> nn.Module:
        """What the optimiser trains: ``network`` itself, or a module around it that carries more."""
        ...

    def loss(self, learner: nn.Module, batch: Batch) -> Tensor:
        """Loss on a batch. A network maps latents ``[E, R, D]`` and text ``[E, R, W]`` to logits ``[E,
        R]``."""
        ...


def weighted_cross_entropy(logit: Tensor, label: np.ndarray, weight: Tensor) -> Tensor:
    """Mean over all moments of weight × cross-entropy; labels may lie between 0 and 1."""
    target = torch.from_numpy(np.ascontiguousarray(label, np.float32))
    return (F.binary_cross_entropy_with_logits(logit, target, reduction="none") * weight).mean()


@lru_cache(maxsize=1)
def schemes() -> Mapping[str, Scheme]:
    """Every scheme of this folder by name."""
    found: dict[str, Scheme] = {}
    for module in sorted(entry.name for entry in pkgutil.iter_modules(__path__)):
        for scheme in importlib.import_module(f"{__name__}.{module}").SCHEMES:
            if scheme.name in found:
                raise ForethoughtError(
                    f"Two schemes of forethought.reward.schemes are called {scheme.name!r}."
                )
            found[scheme.name] = scheme
    return found


def find_scheme(wanted: str | Mapping[str, Any]) -> Scheme:
    """A scheme by its name, or ``{name: {option: value}}`` for one with other numbers than its own.

    Raises:
        ForethoughtError: The name or an option is unknown.
    """
    name, options = wanted, {}
    if not isinstance(wanted, str):
        if len(wanted) != 1:
            raise ForethoughtError(f"A scheme is a name or {{name: {{option: value}}}}; got {dict(wanted)}.")
        name, options = next(iter(wanted.items()))
    known = schemes()
    if name not in known:
        raise ForethoughtError(f"Unknown label schemes ['{name}']; known are {sorted(known)}.")
    scheme = known[str(name)]
    if not options:
        return scheme
    numbers = {field.name for field in fields(scheme)} if is_dataclass(scheme) else set()
    numbers -= {"name", "uses_failures", "label"}
    if not isinstance(options, Mapping) or not set(options) <= numbers:
        raise ForethoughtError(f"The scheme {name} has the options {sorted(numbers)}; got {options!r}.")
    return replace(scheme, **options)  # type: ignore[type-var]
