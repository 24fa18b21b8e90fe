"""Seeds of episodes and decisions, the same in every arm, process and Python version."""

from __future__ import annotations

import hashlib


def _stable(*parts: object) -> int:
    """63 bits that depend on nothing but ``parts``."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def episode_seed(seed: int, benchmark: str, task: str, init_state: int, repeat: int = 0) -> int:
    """Seed of an episode. Arms are not named, so that paired episodes draw the same numbers. The first of an
    initial state's episodes has the same seed however many there are."""
    return _stable(seed, benchmark, task, init_state, *([repeat] if repeat else []))


def decision_seed(episode: int, index: int) -> int:
    """Seed of the ``index``-th decision of an episode."""
    return _stable(episode, index)
