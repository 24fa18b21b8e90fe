"""OpenVLA (arXiv 2406.09246, github.com/openvla/openvla): ``predict_action(input_ids, pixel_values, …)``.

One action of seven numbers a call, written as tokens. The call is made as it came; while it runs, the
language model's cache and logits are noted, and further samples are decoded from that cache in one batch,
each with its log-probability, without reading the prompt and the image again.

Its gripper is 1 for open and 0 for closed, whatever the environment's is; chunks are converted on the way to
the planner and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...interfaces import ActionSpec, ForethoughtError, Observation
from ..action_tokens import ActionTokens, drawn, taken
from ..actions import Queue, held
from ..foreign import CalledPolicy, ForeignCall, More
from ..gripper import Gripper, standardised_gripper
from ..lookahead import Lookahead
from . import Adapter, Settings, needed_spec

RANK = 100
METHOD = "predict_action"


def matches(policy: Any) -> bool:
    """Whether it unnormalises what a language model writes."""
    methods = (METHOD, "get_action_stats")
    parts = ("norm_stats", "bin_centers", "vocab_size", "language_model")
    return (
        not isinstance(policy, type)
        and all(callable(getattr(policy, name, None)) for name in methods)
        and all(hasattr(policy, name) for name in parts)
    )


def adapt(policy: Any, settings: Settings) -> Adapter:
    """Takes over ``predict_action``."""
    spec, horizon = needed_spec(policy, settings)
    return token_adapter(policy, settings, TokenCalls(policy, spec, horizon, settings.gripper_open))


def token_adapter(policy: Any, settings: Settings, calls: TokenCalls) -> Adapter:
    """The adapter of a policy whose ``predict_action`` is called through ``calls``."""
    called = CalledPolicy(calls.spec, calls.horizon, gripper=lambda: calls.gripper)
    queue = Queue()
    original = getattr(policy, METHOD)

    def observe(*args: Any, **kwargs: Any) -> Observation:
        try:
            return settings.observe(*args, **kwargs)
        except ForethoughtError as error:
            raise ForethoughtError(
                f"{METHOD} gets tokens and normalised pixels, which do not tell what the models look at "
                f"({error}) Call it within `with forethought.seeing(observation, task):`, put "
                "forethought.watching around the function that calls it, or hand wrap(observation=...)."
            ) from error

    def methods(lookahead: Lookahead) -> dict[str, Callable[..., Any]]:
        foreign = ForeignCall(called, lookahead, observe, queue, calls.ask)
        return {METHOD: lambda *args, **kwargs: foreign(original, *args, **kwargs)}

    return Adapter(called, methods, on_reset=queue.clear)


class TokenCalls:
    """Makes one call, keeps what the language model computed in it, and draws from that.

    Attributes:
        policy: The model.
        spec: Meaning and bounds of the environment's action.
        horizon: Chunk length H to plan with.
        gripper: How the statistics of the latest call write open and closed.
    """

    def __init__(self, policy: Any, spec: ActionSpec, horizon: int, gripper_open: float | None) -> None:
        self.policy, self.spec, self.horizon = policy, spec, horizon
        self._gripper_open = gripper_open
        self.gripper: Gripper | None = None

    def ask(
        self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, More | None]:
        """The call, and how to draw more from it."""
        key = kwargs.get("unnorm_key", args[1] if len(args) > 1 else None)
        name = key if key is not None else next(iter(self.policy.norm_stats), "")
        self.gripper = standardised_gripper(self.spec, name, self._gripper_open)
        with noted(self.policy.language_model) as outputs:
            raw = original(*args, **kwargs)
        return raw, self.more(raw, outputs, key, kwargs)

    def more(self, raw: Any, outputs: list[Output], key: str | None, kwargs: dict[str, Any]) -> More | None:
        """How to draw further samples after a call that made the language model return ``outputs``."""
        own = np.asarray(raw, np.float64)
        tokens = ActionTokens(
            self.policy.vocab_size, self.policy.bin_centers, lambda chunk: self._unnormalised(chunk, key)
        )

        def draw(n: int, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            import torch

            if len(outputs) < own.size or outputs[0].cache is None:
                raise ForethoughtError(
                    f"Expected {self.policy.__class__.__name__} to decode {own.size} tokens with a cache; it "
                    f"made {len(outputs)} passes. Its own action alone is planned around."
                )
            bins, moves = tokens.bins(own)
            steps = np.stack([tokens.log_probability(output.logits) for output in outputs[: own.size]])
            with torch.inference_mode():
                sampled, likely = _decode(self.policy.language_model, outputs[0], tokens, n, moves, seeds)
            mine = (taken(steps, bins) * moves).sum()
            chunks = held(tokens.actions(sampled), self.horizon)
            return chunks[None], np.concatenate([[mine], likely]).astype(np.float32)[None]

        return draw

    def _unnormalised(self, normalised: np.ndarray, key: str | None) -> np.ndarray:
        statistics = self.policy.get_action_stats(key)
        low, high = np.asarray(statistics["q01"]), np.asarray(statistics["q99"])
        mask = np.asarray(statistics.get("mask", np.ones_like(low, dtype=bool)))
        return np.where(mask, 0.5 * (normalised + 1.0) * (high - low) + low, normalised)


class Output:
    """One pass of the language model.

    Attributes:
        logits: Tensor ``[V]`` after the last word; of OFT's parallel decoding ``[S, V]``, see ``noted``.
        cache: Keys and values of all words so far, or None.
        length: Number of words in the cache.
    """

    def __init__(self, logits: Any, cache: Any) -> None:
        self.logits, self.cache = logits, cache
        self.length = _length(cache)


@contextmanager
def noted(language_model: Any, last: int = 1) -> Iterator[list[Output]]:
    """Within it, what the language model returns is put on a list, of the logits those of the last words."""
    outputs: list[Output] = []

    def note(_module: Any, _inputs: Any, output: Any) -> None:
        logits = (output.logits[0, -last:] if last > 1 else output.logits[0, -1]).clone()
        cache = getattr(output, "past_key_values", None)
        outputs.append(Output(logits, cache if not outputs else None))

    handle = language_model.register_forward_hook(note)
    try:
        yield outputs
    finally:
        handle.remove()


def _length(cache: Any) -> int:
    if cache is None:
        return 0
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else int(cache[0][0].shape[-2])


def _repeated(output: Output, n: int) -> Any:
    """The cache as it was after the prompt, for n samples. The call that filled it is over: it is ours."""
    cache = output.cache
    if isinstance(cache, (tuple, list)):  # transformers up to 4.43 or so; passes never change these in place
        return tuple(tuple(part.repeat_interleave(n, dim=0) for part in layer) for layer in cache)
    if beyond := _length(cache) - output.length:
        cache.crop(-beyond)  # transformers 5 takes nothing but what to remove
    cache.batch_repeat_interleave(n)
    output.cache = None
    return cache


def _decode(
    language_model: Any, prompt: Output, tokens: ActionTokens, n: int, moves: np.ndarray, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bins ``[n, A]`` of n sampled actions, and the log-probability ``[n]`` of each."""
    import torch

    uniform = np.random.default_rng(int(seeds[0])).random((n, len(moves)))
    cache = _repeated(prompt, n)
    logits = prompt.logits.expand(n, -1)
    bins, likely = np.zeros((n, len(moves)), np.int64), np.zeros(n)
    for index, counts in enumerate(moves):
        log_probability = tokens.log_probability(logits)
        bins[:, index] = drawn(log_probability, uniform[:, index])
        likely += taken(log_probability, bins[:, index]) * counts
        if index + 1 < len(moves):
            words = torch.from_numpy(tokens.tokens(bins[:, index : index + 1])).to(logits.device)
            output = language_model(input_ids=words, past_key_values=cache, use_cache=True, return_dict=True)
            cache, logits = output.past_key_values, output.logits[:, -1]
    return bins, likely
