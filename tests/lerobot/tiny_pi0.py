"""LeRobot's π0 and π0-FAST with random weights, on a transformers from the registry.

LeRobot 0.4 runs π0 on a fork of transformers (`pip install "lerobot[pi]"` takes it from a branch). Of what
the fork changes, sampling actions needs two things, published as `transformers_replace` in openpi
(https://github.com/Physical-Intelligence/openpi): a module that says the fork is there, and attention that
reads a cache without adding to it. Both are put in place here, and the sizes are made small; everything else
is LeRobot's and transformers' own.
"""

from __future__ import annotations

import copy
import sys
import types
from typing import Any
from unittest import mock

import transformers
from lerobot.policies.pi0 import modeling_pi0
from lerobot.policies.pi0.configuration_pi0 import PI0Config
from lerobot.policies.pi0_fast import modeling_pi0_fast
from lerobot.policies.pi0_fast.configuration_pi0_fast import PI0FastConfig
from tiny_policies import CHUNK, PIXELS
from transformers.models import siglip
from transformers.models.auto import CONFIG_MAPPING

check: Any = types.ModuleType("transformers.models.siglip.check")
check.check_whether_transformers_replace_is_installed_correctly = lambda: True
sys.modules[check.__name__] = siglip.check = check

denoise = modeling_pi0.PI0Pytorch.denoise_step


def denoise_beside_a_cache(self: Any, *, past_key_values: Any, **given: Any) -> Any:
    return denoise(self, past_key_values=copy.deepcopy(past_key_values), **given)


def small_gemma(variant: str) -> modeling_pi0.GemmaConfig:
    return modeling_pi0.GemmaConfig(32, 2, 32, 2, 1, 16)


def small_paligemma() -> Any:
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": PIXELS,
        "patch_size": 16,
        "projection_dim": 32,
    }
    return CONFIG_MAPPING["paligemma"](
        vision_config=vision, text_config={"model_type": "gemma", "hidden_size": 32}, projection_dim=32
    )


paligemma = modeling_pi0.PaliGemmaForConditionalGeneration


def fitting_paligemma(config: Any) -> Any:
    config.vision_config.projection_dim = 32  # π0 sets that of the large model, whatever the variant
    return paligemma(config=config)


modeling_pi0.PI0Pytorch.denoise_step = denoise_beside_a_cache
for module in (modeling_pi0, modeling_pi0_fast):
    module.PaliGemmaForConditionalGeneration = fitting_paligemma
    module.get_gemma_config = small_gemma
    module.CONFIG_MAPPING = {"paligemma": small_paligemma, "gemma": CONFIG_MAPPING["gemma"]}


def pi0(folder: Any, **given: Any) -> Any:
    shape = given.pop("shape")
    sizes = {
        "chunk_size": CHUNK,
        "n_action_steps": CHUNK,
        "image_resolution": (PIXELS, PIXELS),
        "num_inference_steps": 3,
        "tokenizer_max_length": 8,
    }
    return modeling_pi0.PI0Policy(PI0Config(**shape, **(sizes | given)))


class Numbers:
    """Stands in for both tokenizers of π0-FAST: every token is a number, and an action coefficient."""

    vocab_size, bos_token_id = 257152, 2
    scale, min_token = 100.0, -50

    def __init__(self) -> None:
        self.bpe_tokenizer = self

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [str(one) for one in ids]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [int(one) for one in tokens]

    def encode(self, text: str, **given: Any) -> list[int]:
        return [0, 1]

    def decode(self, tokens: Any) -> str:
        return "".join(chr(int(token) % 100) for token in tokens)


def pi0_fast(folder: Any, **given: Any) -> Any:
    shape = given.pop("shape")
    sizes = {
        "chunk_size": CHUNK,
        "n_action_steps": CHUNK,
        "image_resolution": (PIXELS, PIXELS),
        "tokenizer_max_length": 8,
        "max_decoding_steps": 12,
        "validate_action_token_prefix": False,
    }
    numbers = mock.Mock(return_value=Numbers())
    with (
        mock.patch.object(transformers.AutoProcessor, "from_pretrained", numbers),
        mock.patch.object(transformers.AutoTokenizer, "from_pretrained", numbers),
    ):
        return modeling_pi0_fast.PI0FastPolicy(PI0FastConfig(**shape, **(sizes | given)))
