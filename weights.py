"""Weights on disk: one safetensors file that says what it holds. Imports nothing of ours but the
vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .interfaces import ForethoughtError

_KEY = "forethought"

_SCALE = ".scale"
_LARGE = 4096
"""Numbers from which a matrix is worth 8 bits."""


def save_weights(path: Path, kind: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Writes ``tensors`` and a JSON ``header`` to ``path``, under a temporary name first: no half file stays.

    Floating-point numbers are stored in half precision: small files, and a relative rounding of 5e-4.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {_KEY: json.dumps({"kind": kind, **header})}
    partial = path.with_suffix(".partial")
    save_file({name: _compact(tensor) for name, tensor in tensors.items()}, partial, metadata=metadata)
    partial.replace(path)


def load_weights(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors (floating-point ones in single precision) of a file that ``save_weights`` wrote.

    Raises:
        ForethoughtError: The file is missing, unreadable, or holds another kind.
    """
    if not path.is_file():
        raise ForethoughtError(
            f"No {kind} weights at {path}. Give a folder that `forethought train` wrote, "
            "or the name of shipped ones."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        tensors = load_file(path)
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ForethoughtError(
            f"{path} is not a readable safetensors file ({error}). Train or copy it again."
        ) from error
    if header.get("kind") != kind:
        raise ForethoughtError(f"{path} should hold a {kind}; its header says {header.get('kind')!r}.")
    return header, _expand(tensors)


def shrink(path: Path) -> None:
    """Stores the large matrices of a file that ``save_weights`` wrote in 8 bits, with a scale for each
    output: half the size, and a rounding of at most 1/254 of an output's largest weight. ``load_weights``
    reads it as before."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    stored: dict[str, Tensor] = {}
    for name, tensor in load_file(path).items():
        small = tensor.dim() < 2 or tensor.numel() < _LARGE
        if small or not tensor.is_floating_point() or name.endswith(_SCALE):
            stored[name] = tensor
            continue
        inputs = [1] if tensor.dim() == 3 else list(range(1, tensor.dim()))  # an ensemble's are [E, in, out]
        scale = (tensor.float().abs().amax(dim=inputs, keepdim=True) / 127).clamp_min(1e-12)
        stored[name] = (tensor.float() / scale).round().to(torch.int8)
        stored[name + _SCALE] = scale
    partial = path.with_suffix(".partial")
    save_file(stored, partial, metadata=metadata)
    partial.replace(path)


def _expand(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Single precision from whatever was stored."""
    whole = {}
    for name, tensor in tensors.items():
        scale = tensors.get(name + _SCALE)
        if scale is not None:
            whole[name] = tensor.float() * scale
        elif not name.endswith(_SCALE):
            whole[name] = tensor.float() if tensor.is_floating_point() else tensor
    return whole


def _compact(tensor: Tensor) -> Tensor:
    stored = tensor.detach().contiguous().cpu()
    return stored.half() if stored.is_floating_point() else stored
