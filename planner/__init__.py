"""Search over action chunks. Knows arrays and the protocols; no policy, no benchmark, no file.

    planner = forethought(world_model, reward_model, action_spec=spec, memory=memory, simulations=32)
    decision = planner.plan(observation, samples, seeds)

``presets`` are the planners by name. ``search`` holds the algorithm; ``proposals``, ``selection``,
``backup``, ``budget`` and ``decision`` each hold one of its choices; ``tree`` the arrays it works on.
"""

from __future__ import annotations

from .backup import BACKUPS, Backup, MaximumBackup, MeanBackup, TemporalDifferenceMix
from .best_of_n import BestOfN
from .budget import Budget
from .chunk_space import ChunkSpace
from .decision import DecisionRule
from .mixtures import kernel_proposals
from .presets import PRESETS, best_of_n, forethought, vla_reasoner
from .primitives import PrimitiveKernels
from .proposals import Context, KernelProposals, PolicySamples, Proposals, Proposed
from .search import Scoring, TreeSearch
from .selection import (
    DensityUcb,
    KernelRegression,
    ProgressiveWidening,
    Puct,
    SelectionRule,
    SequentialHalving,
)
from .sources import (
    AveragedKernels,
    ChunkMemory,
    DatasetKernels,
    PolicyKernels,
    RetrievedKernels,
    running_averages,
)
from .tree import LatentPool, Tree

__all__ = [
    "BACKUPS",
    "PRESETS",
    "AveragedKernels",
    "Backup",
    "BestOfN",
    "Budget",
    "ChunkMemory",
    "ChunkSpace",
    "Context",
    "DatasetKernels",
    "DecisionRule",
    "DensityUcb",
    "KernelProposals",
    "KernelRegression",
    "LatentPool",
    "MaximumBackup",
    "MeanBackup",
    "PolicyKernels",
    "PolicySamples",
    "PrimitiveKernels",
    "ProgressiveWidening",
    "Proposals",
    "Proposed",
    "Puct",
    "RetrievedKernels",
    "Scoring",
    "SelectionRule",
    "SequentialHalving",
    "TemporalDifferenceMix",
    "Tree",
    "TreeSearch",
    "best_of_n",
    "forethought",
    "kernel_proposals",
    "running_averages",
    "vla_reasoner",
]
