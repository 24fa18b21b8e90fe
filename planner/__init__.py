"""Search over action chunks. Knows arrays and the protocols; no policy, no benchmark, no file.

    planner = forethought(world_model, reward_model, action_spec=spec, memory=memory, simulations=32)
    decision = planner.plan(observation, samples, seeds)

``presets`` are the planners by name. ``search`` holds the algorithm; ``proposals``, ``selection`` (by name in
``rules``), ``scoring``, ``backup``, ``budget`` and ``decision`` each hold one of its choices; ``tree`` the
arrays it works on. ``reuse`` and ``gate`` wrap a planner, ``explain`` puts a decision into words.
"""

from __future__ import annotations

from .backup import BACKUPS, Backup, MaximumBackup, MeanBackup, TemporalDifferenceMix
from .best_of_n import BestOfN
from .budget import Budget
from .chunk_space import ChunkSpace
from .decision import DecisionRule
from .explain import explain
from .gate import Gate, StateValue
from .presets import PRESETS, best_of_n, forethought, vla_reasoner
from .proposals import (
    AveragedKernels,
    ChunkMemory,
    Context,
    DatasetKernels,
    KernelProposals,
    PolicyKernels,
    PolicySamples,
    Proposals,
    Proposed,
    RetrievedKernels,
    running_averages,
)
from .reuse import TreeReuse, latent_distance
from .rules import INNER_RULES, ROOT_RULES, ImprovedPolicy
from .scoring import Scoring
from .search import TreeSearch
from .selection import (
    DensityUcb,
    KernelRegression,
    ProgressiveWidening,
    Puct,
    SelectionRule,
    SequentialHalving,
)
from .tree import LatentPool, Tree

__all__ = [
    "BACKUPS",
    "INNER_RULES",
    "PRESETS",
    "ROOT_RULES",
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
    "Gate",
    "ImprovedPolicy",
    "KernelProposals",
    "KernelRegression",
    "LatentPool",
    "MaximumBackup",
    "MeanBackup",
    "PolicyKernels",
    "PolicySamples",
    "ProgressiveWidening",
    "Proposals",
    "Proposed",
    "Puct",
    "RetrievedKernels",
    "Scoring",
    "SelectionRule",
    "SequentialHalving",
    "StateValue",
    "TemporalDifferenceMix",
    "Tree",
    "TreeReuse",
    "TreeSearch",
    "best_of_n",
    "explain",
    "forethought",
    "latent_distance",
    "running_averages",
    "vla_reasoner",
]
