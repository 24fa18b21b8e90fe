"""Real policies of LeRobot with random weights, small enough for a test: two cameras or one, 32 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
from lerobot.policies.factory import make_pre_post_processors
from torch.nn import init

MEAN_STD = NormalizationMode.MEAN_STD
PIXELS = 32
CHUNK = 8
"""Actions that a policy makes at once, and that models plan with."""


def features(state: int, action: int, cameras: tuple[str, ...], pixels: int = PIXELS) -> dict[str, Any]:
    """What goes in and out, as a configuration of LeRobot has it."""
    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (state,))}
    inputs |= {
        f"observation.{name}": PolicyFeature(FeatureType.VISUAL, (3, pixels, pixels)) for name in cameras
    }
    return {
        "input_features": inputs,
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (action,))},
        "device": "cpu",
    }


def statistics(state: int, action: int, cameras: tuple[str, ...], span: float = 0.5) -> dict[str, Any]:
    """Statistics that differ from number to number, so that a mix-up shows."""
    rising = lambda size: np.linspace(0.5, 1.5, size, dtype=np.float32)  # noqa: E731
    vector = lambda size, scale: {  # noqa: E731
        "mean": 0.1 * scale * rising(size),
        "std": 0.4 * scale * rising(size),
        "min": -0.5 * scale * rising(size),
        "max": 0.6 * scale * rising(size),
    }
    colours = {"mean": np.full((3, 1, 1), 0.45, np.float32), "std": np.full((3, 1, 1), 0.25, np.float32)}
    return {
        "observation.state": vector(state, 1.0),
        "action": vector(action, span),
        **{f"observation.{name}": colours for name in cameras},
    }


def act(**given: Any) -> Any:
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    shape = given.pop("shape")
    sizes = {
        "pretrained_backbone_weights": None,
        "dim_model": 32,
        "n_heads": 4,
        "dim_feedforward": 32,
        "n_encoder_layers": 1,
        "n_vae_encoder_layers": 1,
        "latent_dim": 4,
    }
    return ACTPolicy(ACTConfig(**shape, **({"chunk_size": CHUNK, "n_action_steps": CHUNK} | sizes | given)))


def diffusion(**given: Any) -> Any:
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    shape = given.pop("shape")
    sizes = {
        "horizon": 16,
        "n_action_steps": CHUNK,
        "down_dims": (16, 32),
        "diffusion_step_embed_dim": 16,
        "spatial_softmax_num_keypoints": 4,
        "num_inference_steps": 2,
        "n_groups": 4,
        "crop_shape": None,
    }
    return DiffusionPolicy(DiffusionConfig(**shape, **(sizes | given)))


def vqbet(**given: Any) -> Any:
    from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig
    from lerobot.policies.vqbet.modeling_vqbet import VQBeTPolicy

    shape = given.pop("shape")
    sizes = {
        "action_chunk_size": CHUNK,
        "n_obs_steps": 2,
        "crop_shape": (28, 28),
        "spatial_softmax_num_keypoints": 4,
        "vqvae_n_embed": 4,
        "vqvae_embedding_dim": 8,
        "vqvae_enc_hidden_dim": 16,
        "gpt_block_size": 32,
        "gpt_input_dim": 32,
        "gpt_output_dim": 32,
        "gpt_n_layer": 1,
        "gpt_n_head": 2,
        "gpt_hidden_dim": 32,
    }
    policy = VQBeTPolicy(VQBeTConfig(**shape, **(sizes | given)))
    policy.vqbet.action_head.vqvae_model.discretized.fill_(True)
    return policy


def words() -> Any:
    """A tokenizer of a few words, with the special ones that SmolVLM's processor asks for."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<pad>", "<s>", "</s>", "<image>", "<fake_token_around_image>", "<global-img>"]
    special += ["<end_of_utterance>", "<row_1_col_1>"]
    plain = ["pick", "up", "push", "the", "and", "place", "it", "in", "basket", "block", "\n"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(special + plain)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[4:],
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )


def vision_language_folder(folder: Path) -> Path:
    """What `from_pretrained` finds of a vision-language model of SmolVLM's kind, but its weights."""
    from transformers import SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": PIXELS,
        "patch_size": 8,
    }
    language = {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "pad_token_id": 1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    SmolVLMConfig(
        vision_config=vision, text_config=language, scale_factor=2, image_token_id=4, pad_token_id=1
    ).save_pretrained(folder)
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(), tokenizer=words(), video_processor=SmolVLMVideoProcessor()
    ).save_pretrained(folder)
    return folder


def smolvla(folder: Path, **given: Any) -> Any:
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    shape = given.pop("shape")
    sizes = {
        "chunk_size": CHUNK,
        "n_action_steps": CHUNK,
        "vlm_model_name": str(vision_language_folder(folder / "vlm")),
        "num_vlm_layers": 4,
        "resize_imgs_with_padding": (PIXELS, PIXELS),
        "num_steps": 3,
    }
    return SmolVLAPolicy(SmolVLAConfig(**shape, **(sizes | given)))


def xvla(folder: Path, **given: Any) -> Any:
    from lerobot.policies.xvla.configuration_xvla import XVLAConfig
    from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

    shape = given.pop("shape")
    words().save_pretrained(folder / "words")
    vision = {
        "dim_embed": [8, 8, 16, 16],
        "num_heads": [1, 1, 2, 2],
        "num_groups": [1, 1, 2, 2],
        "depths": [1, 1, 1, 1],
        "window_size": 2,
        "projection_dim": 32,
        "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
        "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": 8},
    }
    language = {
        "vocab_size": 64,
        "d_model": 32,
        "encoder_layers": 1,
        "encoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "decoder_layers": 1,
        "decoder_ffn_dim": 32,
        "decoder_attention_heads": 2,
    }
    sizes = {
        "chunk_size": CHUNK,
        "n_action_steps": CHUNK,
        "florence_config": {
            "vision_config": vision,
            "text_config": language,
            "vocab_size": 64,
            "projection_dim": 32,
        },
        "tokenizer_name": str(folder / "words"),
        "tokenizer_max_length": 8,
        "hidden_size": 32,
        "depth": 1,
        "num_heads": 2,
        "len_soft_prompts": 2,
        "action_mode": "auto",
        "num_denoising_steps": 2,
        "resize_imgs_with_padding": (64, 64),
    }
    policy = XVLAPolicy(XVLAConfig(**shape, **(sizes | given)))
    for parameter in policy.parameters():  # some of them are memory as it was found
        init.normal_(parameter, std=0.1)
    return policy


def processors(policy: Any, stats: dict[str, Any]) -> tuple[Any, Any]:
    """A policy's own processors. Where they would load a tokenizer of a public model, they get `words`."""
    from transformers import AutoProcessor, AutoTokenizer

    load = AutoTokenizer.from_pretrained

    def local(name: str, *args: Any, **kwargs: Any) -> Any:
        return load(name, *args, **kwargs) if Path(name).is_dir() else words()

    with (
        mock.patch.object(AutoTokenizer, "from_pretrained", local),
        mock.patch.object(AutoProcessor, "from_pretrained", mock.Mock()),  # π0-FAST's, for training
    ):
        return make_pre_post_processors(policy.config, dataset_stats=stats)
