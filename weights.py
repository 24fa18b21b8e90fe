"""Weights on disk: one safetensors file that says what it holds. Imports nothing of ours but the
vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .interfaces import ForethoughtError

_KEY = "forethought"


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
    return header, {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }


def _compact(tensor: Tensor) -> Tensor:
    stored = tensor.detach().contiguous().cpu()
    return stored.half() if stored.is_floating_point() else stored
