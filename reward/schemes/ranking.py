"""Pairwise ranking within a decision, on top of discounted success.

A planner only compares futures of the same state, and a value that tells phases of an episode apart well may
tell those apart badly. Two imagined futures of one start are compared by how the episodes went on from which
their chunks come (Bradley and Terry 1952; learned rewards from comparisons: Christiano et al. 2017, arXiv
1706.03741). Differences say nothing about the level, which margins and the mix with "done" need: the labels
keep it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import Batch
from .outcome import DISCOUNTED


@dataclass(frozen=True)
class Ranking:
    """Cross-entropy on discounted success, plus Bradley-Terry on pairs of futures of one start.

    Attributes:
        name: See ``Scheme``.
        uses_failures: See ``Scheme``.
        weight: Of the comparisons beside the labels. A pair counts by how far its labels are apart.
    """

    name: str = "ranking"
    uses_failures: bool = True
    weight: float = 0.3

    def learner(self, network: nn.Module) -> nn.Module:
        """See ``Scheme.learner``."""
        return network

    def loss(self, learner: nn.Module, batch: Batch) -> Tensor:
        """See ``Scheme.loss``."""
        level = DISCOUNTED.loss(learner, batch)
        one, other = batch.rivals()
        gap = torch.from_numpy(DISCOUNTED.of(one, batch.discount) - DISCOUNTED.of(other, batch.discount))
        lead = learner(one.latent, one.text) - learner(other.latent, other.text)
        gap = gap * one.weight * other.weight
        order = (gap.abs() * F.softplus(-lead * gap.sign())).sum() / gap.abs().sum().clamp_min(1e-3)
        return level + self.weight * order


SCHEMES = (Ranking(),)
