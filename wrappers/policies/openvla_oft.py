"""OpenVLA-OFT (arXiv 2502.19645, github.com/moojink/openvla-oft): a whole chunk from one pass.

``predict_action`` takes an action head as well and returns ``(actions [H, A], hidden states)``. How further
samples come depends on the head that the call brings:

    none        the words of a chunk are independent given the prompt: drawn from the logits of the call
    L1          deterministic; the planner perturbs
    diffusion   the call again with other noise, the global generator of torch left as it was
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError
from ..action_tokens import ActionTokens, drawn, taken
from ..foreign import More
from ..gripper import standardised_gripper
from . import Adapter, Settings, needed_spec, openvla

RANK = 101  # before OpenVLA, whose attributes it has too


def matches(policy: Any) -> bool:
    """Whether it is an OpenVLA whose ``predict_action`` takes an action head."""
    return openvla.matches(policy) and "action_head" in inspect.signature(policy.predict_action).parameters


def adapt(policy: Any, settings: Settings) -> Adapter:
    """Takes over ``predict_action``."""
    spec, horizon = needed_spec(policy, settings)
    return openvla.token_adapter(policy, settings, _ChunkCalls(policy, spec, horizon, settings.gripper_open))


class _ChunkCalls(openvla.TokenCalls):
    def ask(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, More | None]:
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        key, head = given.get("unnorm_key"), given.get("action_head")
        name = key if key is not None else next(iter(self.policy.norm_stats), "")
        self.gripper = standardised_gripper(self.spec, name, self._gripper_open)
        if head is None:
            # The words stand before the stop token, and each is read off at the position before its own.
            with openvla.noted(self.policy.language_model, last=self.horizon * self.spec.size + 2) as outputs:
                raw = original(*args, **kwargs)
            return raw, self.more(raw, outputs, key, kwargs)
        raw = original(*args, **kwargs)
        noisy = given.get("noisy_action_projector") is not None and hasattr(head, "noise_scheduler")
        return raw, self._again(original, args, kwargs) if noisy else None

    def more(
        self, raw: Any, outputs: list[openvla.Output], key: str | None, kwargs: dict[str, Any]
    ) -> More | None:
        own = np.asarray(raw[0], np.float64)
        tokens = ActionTokens(
            self.policy.vocab_size,
            self.policy.bin_centers,
            lambda chunk: self.policy._unnormalize_actions(chunk, key),
        )

        def draw(n: int, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if len(outputs) != 1 or len(outputs[0].logits) != own.size + 2:
                raise ForethoughtError(
                    f"Expected one pass of the language model over a prompt and {own.size} action tokens; "
                    f"there were {len(outputs)}. Its own chunk alone is planned around."
                )
            log_probability = tokens.log_probability(outputs[0].logits[:-2])
            log_probability = log_probability.reshape(*own.shape, -1)
            bins, moves = tokens.bins(own)
            uniform = np.random.default_rng(int(seeds[0])).random((n, *own.shape))
            sampled = np.concatenate([bins[None], drawn(log_probability[None], uniform)])
            likely = (
                taken(np.broadcast_to(log_probability, (n + 1, *log_probability.shape)), sampled)
            ) * moves
            return tokens.actions(sampled[1:])[None], likely.sum(axis=(1, 2)).astype(np.float32)[None]

        return draw

    def _again(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> More:
        def draw(n: int, seeds: np.ndarray) -> tuple[np.ndarray, None]:
            import torch

            chunks = []
            with torch.random.fork_rng():
                torch.manual_seed(int(seeds[0]))
                for _ in range(n):
                    chunks.append(original(*args, **kwargs)[0])
            return np.stack(chunks)[None], None

        return draw
