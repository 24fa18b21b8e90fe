"""openpi (github.com/Physical-Intelligence/openpi): ``infer(observation) -> {"actions": [H, A], …}``.

A chunk may be longer than what the models plan; its first steps are planned. π0 and π0.5 take the noise that
they start from, so that further samples are further calls with other noise, and the policy's own generator is
left as it was. Each is a whole inference: ``wrap(samples=...)`` says how many. π0-FAST and the client of a
server take no noise; the planner spreads its kernels around their one chunk.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..actions import Queue, read
from ..foreign import CalledPolicy, ForeignCall, More
from ..lookahead import Lookahead
from . import Adapter, Settings, needed_spec

RANK = 100
PACKAGES = ("openpi", "openpi_client")


def matches(policy: Any) -> bool:
    """Whether it descends from openpi's policies, or infers from noise as they do."""
    if isinstance(policy, type) or not callable(getattr(policy, "infer", None)):
        return False
    descends = any(base.__module__.split(".")[0] in PACKAGES for base in type(policy).__mro__)
    return descends or _takes_noise(policy.infer)


def adapt(policy: Any, settings: Settings) -> Adapter:
    """Takes over ``infer``."""
    spec, horizon = needed_spec(policy, settings)
    gripper, queue = settings.gripper(spec), Queue()
    called = CalledPolicy(
        spec,
        horizon,
        lambda raw, batch: read(raw, batch, horizon, spec.size, longer=True),
        lambda: gripper,
    )
    original, sizes = policy.infer, _noise_shape(policy)

    def ask(
        method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, More | None]:
        raw = method(*args, **kwargs)

        def draw(n: int, seeds: np.ndarray) -> tuple[np.ndarray, None]:
            noise = np.random.default_rng(int(seeds[0])).standard_normal((n, *(sizes or ())), np.float32)
            generator = getattr(policy, "_rng", None)
            try:
                answers = [method(*args, **{**kwargs, "noise": one}) for one in noise]
            finally:
                if generator is not None:
                    policy._rng = generator
            return np.stack([called.read(answer, 1).chunk for answer in answers], axis=1), None

        return raw, draw if sizes else None

    def methods(lookahead: Lookahead) -> dict[str, Callable[..., Any]]:
        foreign = ForeignCall(called, lookahead, settings.observe, queue, ask)
        return {"infer": lambda *args, **kwargs: foreign(original, *args, **kwargs)}

    return Adapter(called, methods, on_reset=queue.clear)


def _takes_noise(function: Callable[..., Any]) -> bool:
    try:
        return "noise" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _noise_shape(policy: Any) -> tuple[int, int] | None:
    """``(steps, numbers)`` of the noise that the model starts from, or None where it starts from none."""
    model = getattr(policy, "_model", None)
    if model is None or not _takes_noise(policy.infer):
        return None
    if not _takes_noise(getattr(type(model), "sample_actions", policy)):
        return None
    for owner in (model, getattr(model, "config", None)):
        sizes = getattr(owner, "action_horizon", None), getattr(owner, "action_dim", None)
        if all(isinstance(size, int) for size in sizes):
            return sizes  # type: ignore[return-value]
    return None
