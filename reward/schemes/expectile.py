"""Expectile regression on temporal differences with a target network: the value of IQL (Kostrikov et al.
2021, arXiv 2110.06169) without actions, as HIQL has it (Park et al. 2023, arXiv 2307.11949).

    y = γ^k          where the chunk ended in success after k control steps
    y = 0            where it ended in failure, which running out of time is
    y = γ^k V'(s')   elsewhere; V' follows V slowly, s' is the recorded moment after the chunk

With τ > 0.5 the value leans towards the better of what happened from like states, so that it can join the
good part of one episode to the good part of another. A Monte-Carlo label is what *followed*; this is what
*could* follow.

The loss is |τ − 1[y < V]| times the cross-entropy of y under V. Its gradient with respect to the logit is
|τ − 1[y < V]| (V − y): the same zero as expectile regression's, without the vanishing slope of a squared
error through a sigmoid near 0.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import Batch


class Followed(nn.Module):
    """A network and the slow copy of it that targets come from; both are in a checkpoint."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.target = copy.deepcopy(network).requires_grad_(False)

    def forward(self, latent: Tensor, text: Tensor) -> Tensor:
        """Logits of the network."""
        return self.network(latent, text)

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """Move the copy towards the network."""
        for slow, fast in zip(self.target.parameters(), self.network.parameters(), strict=True):
            slow.lerp_(fast, rate)


@dataclass(frozen=True)
class Expectile:
    """Temporal differences over chunks.

    Attributes:
        name: See ``Scheme``.
        uses_failures: See ``Scheme``.
        expectile: τ; 0.5 is the mean over what happened.
        rate: How fast the target network follows, per gradient step. Values travel back by one chunk in about
            1 / rate steps: too slow a target leaves the early moments of long episodes unlearned.
    """

    name: str = "expectile"
    uses_failures: bool = True
    expectile: float = 0.7
    rate: float = 0.02

    def learner(self, network: nn.Module) -> nn.Module:
        """See ``Scheme.learner``."""
        return Followed(network)

    def loss(self, learner: nn.Module, batch: Batch) -> Tensor:
        """See ``Scheme.loss``."""
        assert isinstance(learner, Followed)
        learner.follow(self.rate)
        now, then = batch.moments, batch.following()
        with torch.no_grad():
            ahead = learner.target(then.latent, then.text).sigmoid()
        over = torch.from_numpy(then.step == then.length) | torch.from_numpy(now.mismatched)
        outcome = torch.from_numpy((then.success & ~now.mismatched).astype(np.float32))
        elapsed = torch.from_numpy((batch.discount ** (then.step - now.step)).astype(np.float32))
        target = elapsed * torch.where(over, outcome, ahead)
        known = torch.where(over, 1.0, then.weight)
        logit = learner(now.latent, now.text)
        tilt = torch.where(target < logit.detach().sigmoid(), 1 - self.expectile, self.expectile)
        miss = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
        return (2 * tilt * miss * now.weight * known).mean()


SCHEMES = (Expectile(), Expectile("temporal_difference", expectile=0.5))
