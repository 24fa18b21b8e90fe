"""From what a client sends to an ``Observation``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError, Observation
from ..observations import from_call


@dataclass(frozen=True, eq=False)
class Keys:
    """Where a client keeps what the models look at, for clients with keys of their own.

    What is left empty is looked for under its usual names (see ``wrappers.observations``).

    Attributes:
        images: Camera of the models to key of the client, e.g. ``{"agentview_rgb": "observation/image"}``.
        state: Keys whose numbers make up the proprioception, in order.
        instruction: Key of the task in words.
        upside_down: Cameras whose pictures are to be turned by 180° (LIBERO renders so; openpi's LIBERO
            client turns them itself).
    """

    images: Mapping[str, str] = field(default_factory=dict)
    state: Sequence[str] = ()
    instruction: str | None = None
    upside_down: Sequence[str] = ()

    def __call__(self, request: Mapping[str, Any], cameras: Sequence[str] = ()) -> Observation:
        """The observation of a request, with batch axis; ``cameras`` must be in it.

        Raises:
            ForethoughtError: A key is missing, or holds something else.
        """
        entries = dict(request)
        for camera, key in self.images.items():
            entries[camera] = self._entry(request, key)
        if self.state:
            entries["proprioception"] = self._state(request)
        if self.instruction is not None:
            entries["instruction"] = self._entry(request, self.instruction)
        seen = from_call((entries,), {}, cameras or tuple(self.images))
        turned = {
            name: np.ascontiguousarray(image[:, ::-1, ::-1]) if name in self.upside_down else image
            for name, image in seen.images.items()
        }
        return Observation(turned, seen.proprioception, seen.instruction)

    def _state(self, request: Mapping[str, Any]) -> np.ndarray:
        parts = [np.asarray(self._entry(request, key)) for key in self.state]
        parts = [part[None] if part.ndim == 0 else part for part in parts]
        try:
            return np.concatenate(parts, axis=-1).astype(np.float32)
        except (ValueError, TypeError) as error:
            shapes = {key: list(part.shape) for key, part in zip(self.state, parts, strict=True)}
            raise ForethoughtError(f"The state parts {shapes} do not make one vector ({error}).") from error

    @staticmethod
    def _entry(request: Mapping[str, Any], key: str) -> Any:
        if key not in request:
            raise ForethoughtError(
                f"The observation has no {key!r}; it has {sorted(map(str, request))[:20]}. Correct the keys "
                "of `observation`, or the client."
            )
        return request[key]


def is_batched(request: Mapping[str, Any]) -> bool:
    """Whether a request speaks of several robots: its images have a batch axis."""
    return any(
        isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 4
        for value in request.values()
    )
