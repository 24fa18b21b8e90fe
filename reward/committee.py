"""The values of a committee of world models as one ensemble: every member judges what it imagined itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..interfaces import ForethoughtError, Latent, Score
from .value import FILE, ValueModel
from .value import load as load_member


class CommitteeValue:
    """Values of latents ``[M, E, D₁ + D₂ + …]`` of ``world_models.committee``.

    All heads of all members are one ensemble: the value is their mean, and their spread holds the members'
    disagreement with one another beside each one's own doubt.

    Attributes:
        members: The values, in the order of the committee.
        scheme: What they were trained by.
    """

    def __init__(self, members: Sequence[ValueModel]) -> None:
        if not members:
            raise ForethoughtError("A committee needs the value of one member at least; got none.")
        self.members = tuple(members)
        self.scheme = ", ".join(dict.fromkeys(value.scheme for value in members))
        self._sizes = [int(value.network.shape["latent_size"]) for value in members]

    @torch.inference_mode()
    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        """See ``RewardModel.score``.

        Raises:
            ForethoughtError: The latents are not those of the members, one behind the other.
        """
        shape = getattr(latent, "shape", ())
        if len(shape) < 2 or shape[-1] != sum(self._sizes):
            raise ForethoughtError(
                f"This committee judges latents of {' + '.join(map(str, self._sizes))} numbers; got shape "
                f"{list(shape)}. Use world_model=committee with the same members in the same order."
            )
        parts = torch.as_tensor(latent).split(self._sizes, dim=-1)
        heads = [
            value.heads(part.contiguous(), value.words(instruction).to(part.device))
            for value, part in zip(self.members, parts, strict=True)
        ]
        every = torch.cat(heads)
        return Score(
            value=every.mean(dim=0).cpu().numpy(), spread=every.std(dim=0, unbiased=False).cpu().numpy()
        )


def load(folder: str | Path = ".", members: Sequence[str | Path] = (), file: str = FILE) -> CommitteeValue:
    """The values in several models folders, in the order of the committee.

    Args:
        folder: What relative paths are relative to.
        members: Models folders.
        file: File name in each of them.

    Raises:
        ForethoughtError: A folder holds no such value.
    """
    return CommitteeValue([load_member(Path(folder) / member, file) for member in members])
