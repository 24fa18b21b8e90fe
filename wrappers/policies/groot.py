"""GR00T (github.com/NVIDIA/Isaac-GR00T): ``get_action(observation)``, parts of actions by name.

Both of its interfaces: the flat dictionary of N1 (``video.…``, ``state.…``, an answer of ``action.…``, with
a batch axis or without), and the nested one of N1.6 and later (``video``, ``state``, ``language``, an answer
of ``(actions, info)``). The parts of an action are put together in the order of the modality configuration;
so is the state. The client of its server has the same methods and is driven alike.

Further samples are one more call on copies of the observation, with the generator of torch seeded meanwhile
and then left as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError, Observation
from ..actions import Answer, Queue
from ..foreign import CalledPolicy, ForeignCall, More
from ..lookahead import Lookahead
from . import Adapter, Settings, needed_spec

RANK = 100


def matches(policy: Any) -> bool:
    """Whether it acts, and says what its modalities are."""
    names = ("get_action", "get_modality_config")
    return not isinstance(policy, type) and all(callable(getattr(policy, name, None)) for name in names)


def adapt(policy: Any, settings: Settings) -> Adapter:
    """Takes over ``get_action``."""
    spec, horizon = needed_spec(policy, settings)
    gripper, queue = settings.gripper(spec), Queue()
    parts = _Parts(policy, horizon, spec.size)
    called = CalledPolicy(spec, horizon, parts.read, lambda: gripper)
    original = policy.get_action

    def observe(observation: Any, *args: Any, **kwargs: Any) -> Observation:
        if settings.told:
            return settings.observe(observation, *args, **kwargs)
        return settings.observe(parts.seen(observation))

    def ask(
        method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, More | None]:
        raw = method(*args, **kwargs)

        def draw(n: int, seeds: np.ndarray) -> tuple[np.ndarray, None]:
            import torch

            given, *rest = args or (kwargs["observation" if "observation" in kwargs else "observations"],)
            others = {} if not args else kwargs
            with torch.random.fork_rng():
                torch.manual_seed(int(seeds[0]))
                drawn = method(parts.copied(given, n), *rest, **others)
            chunks = parts.read(drawn, len(seeds) * n).chunk
            return chunks.reshape(len(seeds), n, *chunks.shape[1:]), None

        return raw, draw

    def methods(lookahead: Lookahead) -> dict[str, Callable[..., Any]]:
        foreign = ForeignCall(called, lookahead, observe, queue, ask)
        return {"get_action": lambda *args, **kwargs: foreign(original, *args, **kwargs)}

    return Adapter(called, methods, on_reset=queue.clear)


class _Parts:
    """Observations and answers of this family, taken apart and put together."""

    def __init__(self, policy: Any, horizon: int, size: int) -> None:
        self._policy, self._horizon, self._size = policy, horizon, size
        self._keys: dict[str, list[str]] = {}

    def keys(self, modality: str) -> list[str]:
        """Names of the parts of a modality, without its own name. A client asks its server: once."""
        if modality not in self._keys:
            config = self._policy.get_modality_config()
            entry = config[modality]
            names = entry["modality_keys"] if isinstance(entry, Mapping) else entry.modality_keys
            self._keys[modality] = [str(name).removeprefix(f"{modality}.") for name in names]
        return self._keys[modality]

    def seen(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The latest frame of each camera, the state and the words, with a batch axis."""
        entries = _entries(observation)
        cameras = {name: value for name, value in entries.items() if name.startswith("video.")}
        states = [
            np.asarray(entries[name]) for key in self.keys("state") if (name := f"state.{key}") in entries
        ]
        if not cameras or not states:
            raise ForethoughtError(
                f"The observation has {list(entries)}; expected video.… and state.… of "
                f"{self.keys('video')} and {self.keys('state')}, flat or nested."
            )
        batched = states[0].ndim == 3
        latest = [state[:, -1] if batched else state[None, -1] for state in states]
        images = {
            name.removeprefix("video."): np.asarray(image)[:, -1] if batched else np.asarray(image)[None, -1]
            for name, image in cameras.items()
        }
        words = [
            value
            for name, value in entries.items()
            if name.startswith(("language.", "annotation.")) or name == "task"
        ]
        return {
            **images,
            "state": np.concatenate(latest, axis=-1),
            "instruction": _texts(words[0], len(latest[0])) if words else None,
        }

    def copied(self, observation: Mapping[str, Any], n: int) -> dict[str, Any]:
        """The observation with every row n times, with a batch axis."""
        state = next(value for name, value in _entries(observation).items() if name.startswith("state."))
        batched = np.asarray(state).ndim == 3

        def copy(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: copy(one) for name, one in value.items()}
            if isinstance(value, np.ndarray):
                return np.repeat(value if batched else value[None], n, axis=0)
            if isinstance(value, (list, tuple)):
                return type(value)([one for one in value for _ in range(n)])
            return value

        return {name: copy(value) for name, value in observation.items()}

    def read(self, raw: Any, batch: int) -> Answer:
        """The parts of an answer as chunks ``[B, H, A]``."""
        answer = raw[0] if isinstance(raw, tuple) else raw
        keys = self.keys("action")
        names = [name if name in answer else f"action.{name}" for name in keys]
        missing = [name for name in names if name not in answer]
        if missing:
            raise ForethoughtError(f"The policy returned {list(answer)}; its configuration names {keys}.")
        arrays = [np.asarray(answer[name]) for name in names]
        # One row comes without its axis from N1, and a part of one number without that one.
        chunks = [array.reshape(batch, -1, 1) if array.ndim == 1 else array for array in arrays]
        chunks = [chunk[None] if chunk.ndim == 2 else chunk for chunk in chunks]
        steps, size = chunks[0].shape[1], sum(chunk.shape[-1] for chunk in chunks)
        if size != self._size or steps < self._horizon or len(chunks[0]) != batch:
            raise ForethoughtError(
                f"The policy returned parts {dict(zip(names, (list(array.shape) for array in arrays)))}; the "
                f"models plan {batch} chunks of {self._horizon} steps (or more) of {self._size} numbers. Use "
                "models trained on this embodiment's episodes."
            )

        def write(chunk: np.ndarray) -> Any:
            pieces = np.split(chunk, np.cumsum([one.shape[-1] for one in chunks])[:-1], axis=-1)
            planned = {}
            for name, piece, array in zip(names, pieces, arrays, strict=True):
                shape = list(array.shape)
                shape[1 if array.ndim == 3 else 0] = self._horizon
                planned[name] = piece.reshape(shape).astype(array.dtype)
            written = {**answer, **planned}
            return (written, *raw[1:]) if isinstance(raw, tuple) else written

        whole = np.concatenate(chunks, axis=-1)[:, : self._horizon].astype(np.float32)
        return Answer(raw, whole, single=False, write=write)


def _entries(observation: Mapping[str, Any]) -> dict[str, Any]:
    """The observation flat: ``video.camera``, ``state.arm``, ``language.task`` or ``annotation.…``."""
    flat: dict[str, Any] = {}
    for name, value in observation.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": one for key, one in value.items()}
        else:
            flat[name] = value
    return flat


def _texts(words: Any, batch: int) -> list[str]:
    """One string a row, of a string, a list of strings, or a list of lists of them."""
    if isinstance(words, str):
        return [words] * batch
    rows: Sequence[Any] = list(words)
    rows = [row if isinstance(row, str) else str(np.asarray(row).ravel()[0]) for row in rows]
    return rows * batch if len(rows) == 1 else rows
