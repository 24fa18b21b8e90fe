"""Fingerprints of weights, so that results of retrained weights in the same folder do not pass for the old
ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_UNFINISHED = (".partial", ".checkpoint", ".tmp")


def with_weights(settings: Any) -> Any:
    """Settings with every existing path replaced by a digest of what lies there.

    A mapping that names a ``file`` beside a folder counts that file alone.
    """
    if isinstance(settings, Mapping):
        file = settings.get("file")
        digested = {}
        for name, value in settings.items():
            path = _existing(value)
            if path is not None and path.is_dir() and isinstance(file, str) and (path / file).is_file():
                path = path / file
            digested[name] = with_weights(value) if path is None else digest(path)
        return digested
    if isinstance(settings, list | tuple):
        return [with_weights(value) for value in settings]
    path = _existing(settings)
    return settings if path is None else digest(path)


def digest(path: Path) -> str:
    """Digest of a file, or of the finished files that lie directly in a folder."""
    files = [path] if path.is_file() else sorted(entry for entry in path.iterdir() if entry.is_file())
    whole = hashlib.sha256()
    for file in files:
        if file.suffix not in _UNFINISHED:
            whole.update(file.name.encode())
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{whole.hexdigest()[:32]}"


def _existing(value: Any) -> Path | None:
    if not isinstance(value, str) or "/" not in value or len(value) > 4096:
        return None
    path = Path(value)
    return path if path.exists() else None
