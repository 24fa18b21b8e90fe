"""Stand-ins for OpenVLA and OpenVLA-OFT: their published interface over a real tiny Llama.

Everything around the language model is small and random. What the adapters rely on is as published: the
prompt is completed by the empty token, the image comes after the first word, a call decodes greedily with a
cache (OpenVLA) or in one pass over placeholders (OFT), tokens are bins from the end of the vocabulary, and
statistics unnormalise what is not masked.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GenerationMixin, LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel

EMPTY, STOP, BINS, PADDING, PATCHES = 29871, 2, 256, 64, 4
WORDS, CHUNK, SIZE = 32000, 8, 7
STATISTICS = {
    "libero_object": {
        "action": {
            "q01": [-0.9, -0.8, -0.7, -0.2, -0.2, -0.3, 0.0],
            "q99": [0.9, 0.8, 0.7, 0.2, 0.2, 0.3, 1.0],
            "mask": [True] * 6 + [False],
        }
    }
}


class TinyConfig(PretrainedConfig):
    """Sizes of the stand-in."""

    model_type = "tiny_openvla"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size, self.num_hidden_layers = WORDS + PADDING, 32, 2


class Tiny(PreTrainedModel, GenerationMixin):
    """What both have in common."""

    config_class = TinyConfig
    _supports_sdpa = True

    def __init__(self, seed: int = 0, statistics: dict | None = None) -> None:
        super().__init__(TinyConfig())
        torch.manual_seed(seed)
        llama = LlamaConfig(
            vocab_size=WORDS + PADDING,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
        )
        self.language_model = LlamaForCausalLM(llama)
        with torch.no_grad():  # so that actions differ from one another, and are the likeliest words
            self.language_model.lm_head.weight.mul_(2.0)
            self.language_model.lm_head.weight[WORDS - BINS : WORDS].mul_(12.0)
        self.projector = nn.Linear(3, 32)
        self.norm_stats = statistics or STATISTICS
        self.bins = np.linspace(-1, 1, BINS)
        self.bin_centers = (self.bins[:-1] + self.bins[1:]) / 2.0
        self.vocab_size = WORDS
        self.passes = 0
        self.language_model.register_forward_hook(self._count)
        self.eval()

    def _count(self, *_: Any) -> None:
        self.passes += 1

    def get_action_stats(self, unnorm_key: str | None = None) -> dict:
        if unnorm_key is None:
            assert len(self.norm_stats) == 1
            unnorm_key = next(iter(self.norm_stats))
        return self.norm_stats[unnorm_key]["action"]

    def get_action_dim(self, unnorm_key: str | None = None) -> int:
        return len(self.get_action_stats(unnorm_key)["q01"])

    def patches(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """``[1, 3, h, w]`` to the embeddings of four patches."""
        pooled = nn.functional.adaptive_avg_pool2d(pixel_values, 2).flatten(2).transpose(1, 2)
        return self.projector(pooled)

    def with_image(self, input_ids: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
        words = self.language_model.get_input_embeddings()(input_ids)
        return torch.cat([words[:, :1], self.patches(pixel_values), words[:, 1:]], dim=1)

    def normalised(self, tokens: np.ndarray) -> np.ndarray:
        index = np.clip(self.vocab_size - tokens - 1, 0, len(self.bin_centers) - 1)
        return self.bin_centers[index]


def completed(input_ids: torch.Tensor) -> torch.Tensor:
    if torch.all(input_ids[:, -1] == EMPTY):
        return input_ids
    return torch.cat([input_ids, torch.tensor([[EMPTY]])], dim=1)


class TinyOpenVLA(Tiny):
    """One action a call, token by token."""

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        pixel_values: Any = None,
        past_key_values: Any = None,
        use_cache: Any = None,
        **_: Any,
    ) -> Any:
        if input_ids.shape[1] == 1:
            assert input_ids.shape[0] == 1 and past_key_values is not None
            return self.language_model(
                input_ids=input_ids, past_key_values=past_key_values, use_cache=use_cache, return_dict=True
            )
        words = self.with_image(input_ids, pixel_values)
        return self.language_model(
            inputs_embeds=words,
            attention_mask=torch.ones(words.shape[:2], dtype=torch.long),
            use_cache=use_cache,
            return_dict=True,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: Any = None,
        past_key_values: Any = None,
        pixel_values: Any = None,
        attention_mask: Any = None,
        **kwargs: Any,
    ) -> dict:
        if input_ids.shape[0] > 1:
            raise ValueError("Generation with batch size > 1 is not currently supported!")
        filled = past_key_values is not None and past_key_values.get_seq_length() > 0
        return {
            "input_ids": input_ids[:, -1:] if filled else input_ids,
            "attention_mask": attention_mask,
            "pixel_values": pixel_values,
            "past_key_values": past_key_values if filled else None,
            "use_cache": kwargs.get("use_cache"),
        }

    def predict_action(self, input_ids: Any = None, unnorm_key: str | None = None, **kwargs: Any) -> Any:
        """Decodes an action."""
        size = self.get_action_dim(unnorm_key)
        words = self.generate(completed(input_ids), max_new_tokens=size, **kwargs)
        normalised = self.normalised(words[0, -size:].cpu().numpy())
        statistics = self.get_action_stats(unnorm_key)
        low, high = np.array(statistics["q01"]), np.array(statistics["q99"])
        mask = statistics.get("mask", np.ones_like(low, dtype=bool))
        return np.where(mask, 0.5 * (normalised + 1) * (high - low) + low, normalised)


class TinyOpenVLAOFT(Tiny):
    """A chunk a call, all tokens in one pass; heads other than words come with the call."""

    def _unnormalize_actions(self, normalized_actions: np.ndarray, unnorm_key: str | None = None) -> Any:
        statistics = self.get_action_stats(unnorm_key)
        low, high = np.array(statistics["q01"]), np.array(statistics["q99"])
        mask = statistics.get("mask", np.ones_like(low, dtype=bool))
        return np.where(mask, 0.5 * (normalized_actions + 1) * (high - low + 1e-8) + low, normalized_actions)

    def predict_action(
        self,
        input_ids: Any = None,
        unnorm_key: str | None = None,
        proprio: Any = None,
        proprio_projector: Any = None,
        action_head: Any = None,
        noisy_action_projector: Any = None,
        use_film: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Returns ``(actions [H, A], hidden states)``."""
        prompt = self.with_image(completed(input_ids), kwargs["pixel_values"])
        end = self.language_model.get_input_embeddings()(torch.tensor([[STOP]]))
        words = torch.cat([prompt, torch.zeros(1, CHUNK * SIZE, prompt.shape[-1]), end], dim=1)
        output = self.language_model(inputs_embeds=words, output_hidden_states=True, return_dict=True)
        start = prompt.shape[1] - 1
        hidden = output.hidden_states[-1][:, start : start + CHUNK * SIZE]
        if action_head is None:
            tokens = output.logits[0, start : start + CHUNK * SIZE].argmax(-1).cpu().numpy()
            normalised = self.normalised(tokens).reshape(CHUNK, SIZE)
        elif noisy_action_projector is not None and hasattr(action_head, "noise_scheduler"):
            noise = torch.randn(1, CHUNK, SIZE)
            normalised = action_head(hidden, noise)[0].detach().numpy()
        else:
            normalised = action_head(hidden)[0].detach().numpy()
        return self._unnormalize_actions(normalised, unnorm_key), hidden


class RegressionHead(nn.Module):
    """Deterministic."""

    def forward(self, hidden: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        means = hidden.mean(-1).view(1, CHUNK, SIZE)
        return torch.tanh(means if noise is None else means + 0.3 * noise)


class DiffusionHead(RegressionHead):
    """Draws."""

    noise_scheduler = SimpleNamespace(timesteps=[1])


def inputs(seed: int = 0) -> dict:
    """What the processor makes of a prompt and an image."""
    rng = torch.Generator().manual_seed(seed)
    return {
        "input_ids": torch.randint(3, 1000, (1, 9), generator=rng),
        "attention_mask": torch.ones(1, 9, dtype=torch.long),
        "pixel_values": torch.randn(1, 3, 8, 8, generator=rng),
    }
