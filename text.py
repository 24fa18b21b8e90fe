"""Instructions as vectors, without a language model. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from sklearn.feature_extraction.text import HashingVectorizer
from torch import Tensor

TEXT_SIZE = 128


@lru_cache(maxsize=4096)
def _hashed(text: str) -> Tensor:
    vectorizer = HashingVectorizer(n_features=TEXT_SIZE, ngram_range=(1, 2), alternate_sign=False)
    counts: Any = vectorizer.transform([text])
    return torch.from_numpy(counts.toarray()[0]).float()


def text_features(instructions: Sequence[str]) -> Tensor:
    """Hashed words and word pairs of each instruction, unit length: ``float32 [B, TEXT_SIZE]``."""
    return torch.stack([_hashed(text) for text in instructions])
