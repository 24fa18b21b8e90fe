"""An ensemble that jumps over a whole action chunk in latent space.

One jump of H control steps is one small network call, so K candidates at depth d cost d calls however long
the chunk is (PETS, Chua et al. 2018, arXiv 1805.12114, with the step replaced by a chunk). Every member
propagates its own particle: the spread of the particles is the disagreement, and a value computed on each
tells how much it matters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EnsembleLinear(nn.Module):
    """E linear layers at once: ``[E, M, in]`` to ``[E, M, out]``."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` is ``[E, M, in]``."""
        return torch.baddbmm(self.bias, x, self.weight)


class ChunkDynamics(nn.Module):
    """Residual multi-layer perceptrons over (latent, chunk): the latent after the chunk, and whether it
    ended in success.

    Attributes:
        members: Ensemble size E.
        horizon: Chunk length H.
        shape: The constructor's arguments, for whoever saves it; ``constant`` numbers at the end of a latent
            never change.
        action_size: A.
    """

    step_scale: Tensor

    def __init__(
        self,
        latent_size: int,
        constant: int,
        horizon: int,
        action_size: int,
        members: int = 5,
        hidden: int = 256,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        self.members, self.horizon, self.action_size = members, horizon, action_size
        self.shape = {"latent_size": latent_size, "constant": constant}
        self.shape |= {"horizon": horizon, "action_size": action_size}
        self.shape |= {"members": members, "hidden": hidden, "blocks": blocks}
        self.inputs = EnsembleLinear(members, latent_size + horizon * action_size, hidden)
        self.blocks = nn.ModuleList(EnsembleLinear(members, hidden, hidden) for _ in range(blocks))
        self.outputs = EnsembleLinear(members, hidden, latent_size - constant + 1)
        self.register_buffer("step_scale", torch.ones(latent_size - constant))

    def forward(self, latent: Tensor, chunk: Tensor) -> tuple[Tensor, Tensor]:
        """One jump.

        Args:
            latent: ``[E, M, D]``, one particle per member.
            chunk: ``[E, M, H, A]`` or ``[M, H, A]``, environment units.

        Returns:
            The next particles ``[E, M, D]`` and the logit of success on the way ``[E, M]``.
        """
        if chunk.dim() == 3:
            chunk = chunk.unsqueeze(0).expand(self.members, -1, -1, -1)
        hidden = F.silu(self.inputs(torch.cat([latent, chunk.flatten(2)], dim=-1)))
        for block in self.blocks:
            hidden = hidden + F.silu(block(F.layer_norm(hidden, hidden.shape[-1:])))
        out = self.outputs(hidden)
        change = F.pad(self.step_scale * out[..., :-1], (0, latent.shape[-1] - len(self.step_scale)))
        return latent + change, out[..., -1]
