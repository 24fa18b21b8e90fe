"""Inference objects of SimplerEnv (github.com/simpler-env/SimplerEnv): ``reset(task)``, ``step(image,
task)``.

``step`` returns ``(raw action, action)``, two dictionaries; the second, with ``world_vector``,
``rot_axangle`` and ``gripper``, goes to the environment and is what is planned. The first stays as the policy
wrote it. Such an object remembers images, ensembles chunks and lets a gripper stick: it is asked at every
step.

The robot's state is not among the arguments: models that read it need ``forethought.seeing``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError, Observation
from ..actions import Answer, Queue, held
from ..foreign import CalledPolicy, ForeignCall
from ..lookahead import Lookahead
from . import Adapter, Settings, needed_spec

RANK = 100
PARTS = ("world_vector", "rot_axangle", "gripper")


def matches(policy: Any) -> bool:
    """Whether it has ``reset`` and ``step(image, task…)``."""
    if isinstance(policy, type) or not all(
        callable(getattr(policy, name, None)) for name in ("reset", "step")
    ):
        return False
    try:
        names = list(inspect.signature(policy.step).parameters)
    except (TypeError, ValueError):
        return False
    return len(names) >= 2 and "image" in names[0] and ("task" in names[1] or "instruction" in names[1])


def adapt(policy: Any, settings: Settings) -> Adapter:
    """Takes over ``step``. Another task than before begins an episode."""
    spec, horizon = needed_spec(policy, settings)
    gripper, queue = settings.gripper(spec), Queue()
    called = CalledPolicy(
        spec, horizon, lambda raw, batch: _read(raw, batch, horizon, spec.size), lambda: gripper
    )
    original, task = policy.step, _Task(policy)

    def given(*args: Any, **kwargs: Any) -> list[Any]:
        return list(inspect.signature(original).bind(*args, **kwargs).arguments.values())

    def observe(*args: Any, **kwargs: Any) -> Observation:
        if settings.told:
            return settings.observe(*args, **kwargs)
        image = np.asarray(given(*args, **kwargs)[0])
        return settings.observe({"image": image, "state": np.zeros(0, np.float32), "task": task.words})

    def methods(lookahead: Lookahead) -> dict[str, Callable[..., Any]]:
        foreign = ForeignCall(called, lookahead, observe, queue)

        def step(*args: Any, **kwargs: Any) -> Any:
            if task.changes(*given(*args, **kwargs)[1:2]):
                lookahead.reset()
                queue.clear()
            return foreign(original, *args, **kwargs)

        return {"step": step}

    def on_reset() -> None:
        queue.clear()
        task.words = None

    return Adapter(called, methods, on_reset)


class _Task:
    """The task that is being done, in words, or None before it is known."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self.words: str | None = None

    def changes(self, words: Any = None) -> bool:
        """Takes note of what ``step`` was told; whether that is another task than before."""
        words = words if isinstance(words, str) else self.words
        before, self.words = self.words, words or getattr(self._policy, "task_description", None)
        return before is not None and before != self.words


def _read(raw: Any, batch: int, horizon: int, size: int) -> Answer:
    action = raw[1] if isinstance(raw, tuple) and len(raw) > 1 else raw
    if batch != 1 or not isinstance(action, Mapping) or any(name not in action for name in PARTS):
        found = list(action) if isinstance(action, Mapping) else type(action).__name__
        raise ForethoughtError(
            f"step must return (raw action, action) with {list(PARTS)} in the second, of one robot; got "
            f"{found}."
        )
    parts = [np.asarray(action[name]) for name in PARTS]
    numbers = np.concatenate([part.ravel() for part in parts]).astype(np.float32)
    if numbers.size != size:
        raise ForethoughtError(
            f"step returned {numbers.size} numbers in {list(PARTS)}; the models' actions have {size}. "
            "Use models that were trained on this environment's episodes."
        )

    def write(chunk: np.ndarray) -> Any:
        pieces = np.split(np.ravel(chunk[0, 0]), np.cumsum([part.size for part in parts])[:-1])
        planned = {
            name: piece.reshape(part.shape).astype(part.dtype)
            for name, part, piece in zip(PARTS, parts, pieces, strict=True)
        }
        written = {**action, **planned}
        return (*raw[:1], written, *raw[2:]) if isinstance(raw, tuple) else written

    return Answer(raw, held(numbers[None], horizon), single=True, write=write)
