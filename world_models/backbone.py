"""Frozen eyes: a pretrained image model of transformers, and a small tower that reads its patch tokens.

DINOv2 and DINOv3, SigLIP and SigLIP 2, V-JEPA 2, or any other whose last tokens are the patches. The weights
are the user's: they are loaded from where they lie, never downloaded, and a models folder names them without
a copy.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..interfaces import ForethoughtError
from .optional import require

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class FrozenBackbone:
    """Pictures to patch tokens, without a gradient. Not a module: no optimiser, checkpoint or copy holds it.

    Attributes:
        name: Where the weights came from.
        image_size: Side of the pictures it is shown, pixels.
        side: Patches along a side.
        width: Numbers of a token.
    """

    def __init__(
        self,
        model: nn.Module,
        image_size: int,
        colour: tuple[Any, Any] = IMAGENET,
        name: str = "",
    ) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.name, self.image_size = name, image_size
        config: Any = self.model.config
        patch = int(config.patch_size)
        if image_size % patch:
            raise ForethoughtError(
                f"The backbone {name} sees patches of {patch} pixels; image_size={image_size} is no "
                f"multiple. Take {patch * max(1, round(image_size / patch))}."
            )
        self.side, self.width = image_size // patch, int(config.hidden_size)
        self._patch = patch
        self._accepts = inspect.signature(self.model.forward).parameters
        self._colour = tuple(torch.tensor(part, dtype=torch.float32).view(3, 1, 1) for part in colour)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenBackbone:
        return self

    @torch.no_grad()
    def tokens(self, pixels: Tensor) -> Tensor:
        """Patch tokens ``[B, side², width]`` of pixels ``[B, 3, size, size]`` in [-1, 1]."""
        if next(self.model.parameters()).device != pixels.device:
            self.model.to(pixels.device)
        mean, deviation = (part.to(pixels.device) for part in self._colour)
        seen = ((pixels.float() + 1) / 2 - mean) / deviation
        found = self.model(**self._arguments(seen)).last_hidden_state
        return found[:, -(self.side**2) :].float()  # class and register tokens stand before the patches

    def _arguments(self, seen: Tensor) -> dict[str, Any]:
        """The picture as the model wants it, which its forward tells."""
        if "pixel_values_videos" in self._accepts:  # V-JEPA 2: a still film
            film = seen[:, None].expand(-1, int(self.model.config.tubelet_size), -1, -1, -1)
            return {"pixel_values_videos": film, "skip_predictor": True}
        if "spatial_shapes" in self._accepts:  # SigLIP 2 with pictures of any shape: cut into patches
            cells = F.unfold(seen.unflatten(1, (3,)), self._patch, stride=self._patch)
            patches = cells.unflatten(1, (3, self._patch**2)).permute(0, 3, 2, 1).flatten(2)
            shape = torch.full((len(seen), 2), self.side, device=seen.device)
            mask = torch.ones(patches.shape[:2], dtype=torch.int32, device=seen.device)
            name = "attention_mask" if "attention_mask" in self._accepts else "pixel_attention_mask"
            return {"pixel_values": patches, name: mask, "spatial_shapes": shape}
        if "interpolate_pos_encoding" in self._accepts:
            return {"pixel_values": seen, "interpolate_pos_encoding": True}
        return {"pixel_values": seen}

    def precompute(self, image: np.ndarray, batch: int = 64) -> np.ndarray:
        """Tokens of pictures ``uint8 [F, h, w, 3]``, ``float16 [F, side², width]``: a tower trains on them
        as on pictures, and the backbone has run once."""
        device = next(self.model.parameters()).device
        found = np.empty((len(image), self.side**2, self.width), np.float16)
        for start in range(0, len(image), batch):
            pixels = torch.from_numpy(np.ascontiguousarray(image[start : start + batch])).to(device)
            pixels = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
            size = (self.image_size, self.image_size)
            pixels = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
            found[start : start + batch] = self.tokens(pixels).half().cpu().numpy()
        return found


class FrozenTower(nn.Module):
    """Reads patch tokens: where attention points (spatial soft-argmax) and what stands there, modulated by
    the instruction. Takes the place of ``encoder.ImageTower``."""

    cells: Tensor

    def __init__(
        self, backbone: FrozenBackbone, text_size: int, width: int = 64, points: int = 32, out: int = 192
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.norm = nn.LayerNorm(backbone.width)
        self.inputs = nn.Linear(backbone.width, width)
        self.modulation = nn.Linear(text_size, 2 * width)
        self.attention = nn.Linear(width, points)
        self.head = nn.Linear(points * (2 + width), out)
        axis = torch.linspace(-1, 1, backbone.side)
        cells = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1)
        self.register_buffer("cells", cells, persistent=False)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """``image`` is ``[B, 3, size, size]`` in [-1, 1] or tokens ``[B, side², width]``, ``text`` is
        ``[B, T]``; returns ``[B, out]``."""
        tokens = image.float() if image.dim() == 3 else self.backbone.tokens(image)
        scale, shift = self.modulation(text)[:, None].chunk(2, dim=-1)
        hidden = F.silu(self.inputs(self.norm(tokens)) * (1 + scale) + shift)
        weight = (4 * self.attention(hidden)).transpose(1, 2).softmax(-1)
        places = torch.cat([self.cells.T.to(hidden).expand(len(hidden), -1, -1), hidden], dim=-1)
        return self.head((weight @ places).flatten(1))


def load_backbone(name: str, image_size: int) -> FrozenBackbone:
    """A pretrained image model from a folder, or from the local cache of the Hugging Face hub by its name.

    Args:
        name: Folder or name. Only safetensors are read; nothing is downloaded.
        image_size: Side of the pictures it is shown, a multiple of its patches, such as 224.

    Raises:
        ForethoughtError: It is not there, or transformers is not installed.
    """
    transformers = require("transformers", "A frozen backbone", "'forethought[encoders]'")
    try:
        model = transformers.AutoModel.from_pretrained(name, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ForethoughtError(
            f"No image model at {name!r} ({error}). Give a folder with config.json and model.safetensors, or "
            "download it first: huggingface-cli download NAME."
        ) from error
    model = getattr(model, "vision_model", model)  # SigLIP brings a text model along
    return FrozenBackbone(model, image_size, _colour(name, model), name)


def _colour(name: str, model: Any) -> tuple[Any, Any]:
    """Mean and deviation of colours: what the folder says, else what the family uses."""
    file = Path(name) / "preprocessor_config.json"
    said: Mapping[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    if "image_mean" in said and "image_std" in said:
        return said["image_mean"], said["image_std"]
    return ((0.5,) * 3, (0.5,) * 3) if "siglip" in str(model.config.model_type) else IMAGENET
