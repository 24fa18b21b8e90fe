"""Progress that learns from undone work, after ReWiND (Zhang et al. 2025, arXiv 2505.10911).

ReWiND plays stretches of successful videos backwards, so that a reward over videos sees progress fall. A
value of single latents sees the same states either way; what it lacks are the *imagined* ones that a
candidate reaches by undoing what was done. So the world model carries out the last chunk reversed in time,
increments negated, and the latent that it predicts is worth the progress of the moment before that chunk.
Real failures are worth 0, as are mismatched instructions where they are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from . import Batch
from .outcome import SCHEMES as OUTCOMES

PROGRESS = next(scheme for scheme in OUTCOMES if scheme.name == "progress")


@dataclass(frozen=True)
class Rewound:
    """Progress on recorded and predicted latents, and on rewound ones.

    Attributes:
        name: See ``Scheme``.
        uses_failures: See ``Scheme``.
        share: Weight of the rewound latents beside the others.
    """

    name: str = "progress_rewind"
    uses_failures: bool = True
    share: float = 0.5

    def learner(self, network: nn.Module) -> nn.Module:
        """See ``Scheme.learner``."""
        return network

    def loss(self, learner: nn.Module, batch: Batch) -> Tensor:
        """See ``Scheme.loss``."""
        recorded = PROGRESS.fit(learner, batch.moments, batch.discount)
        return recorded + self.share * PROGRESS.fit(learner, batch.rewound(), batch.discount)


SCHEMES = (Rewound(), Rewound("progress_rewind_successes_only", uses_failures=False))
