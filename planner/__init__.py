"""Search over action chunks. Knows arrays and the protocols; no policy, no benchmark, no file.

    planner = forethought(world_model, reward_model, action_spec=spec, memory=memory, simulations=32)
    decision = planner.plan(observation, samples, seeds)

``presets`` are the planners by name. ``search`` holds the tree's algorithm; ``proposals`` (drawn from
``sources``), ``selection`` (by name in ``rules``), ``scoring``, ``backup``, ``budget`` and ``decision`` each
hold one of its choices; ``tree`` the arrays it works on; ``walk``, ``kernels`` and ``settling`` its loops,
compiled, ``opening`` what they draw themselves, ``parallel`` who runs them, and ``array_form`` the same under
any rule. ``sequences`` holds the loop of the sampling planners; ``cross_entropy`` and ``path_integral`` say
how each refines it. ``reuse`` and ``gate`` wrap a planner, ``explain`` puts a decision into words.
"""

from __future__ import annotations

from .backup import BACKUPS, Backup, MaximumBackup, MeanBackup, TemporalDifferenceMix
from .bandwidth import Bandwidth, choose_bandwidth
from .best_of_n import BestOfN
from .budget import Budget
from .chunk_space import ChunkSpace
from .context import Context
from .cross_entropy import CrossEntropy, cem, icem
from .decision import DecisionRule
from .episodic import EpisodicCorrection
from .explain import explain
from .fitting import SearchShape, fitted, search_shape
from .gate import Gate, StateValue
from .kernel_mixture import KernelProposals
from .mixtures import kernel_proposals
from .path_integral import PathIntegral, mppi
from .presets import PRESETS, best_of_n, forethought, vla_reasoner
from .primitives import PrimitiveKernels
from .proposals import Drawn, OneByOne, PolicySamples, Proposals, Proposed
from .refinement import ColouredNoise, Distribution, Refinement, SharedNoise
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
from .sequences import SequenceSearch
from .shooting import random_shooting
from .sources import (
    AveragedKernels,
    AveragedPolicyKernels,
    ChunkMemory,
    DatasetKernels,
    PolicyKernels,
    RetrievedKernels,
    running_averages,
)
from .tree import LatentPool, Tree

__all__ = [
    "BACKUPS",
    "INNER_RULES",
    "PRESETS",
    "ROOT_RULES",
    "AveragedKernels",
    "AveragedPolicyKernels",
    "Backup",
    "Bandwidth",
    "BestOfN",
    "Budget",
    "ChunkMemory",
    "ChunkSpace",
    "ColouredNoise",
    "Context",
    "CrossEntropy",
    "DatasetKernels",
    "DecisionRule",
    "DensityUcb",
    "Distribution",
    "Drawn",
    "EpisodicCorrection",
    "Gate",
    "ImprovedPolicy",
    "KernelProposals",
    "KernelRegression",
    "LatentPool",
    "MaximumBackup",
    "MeanBackup",
    "OneByOne",
    "PathIntegral",
    "PolicyKernels",
    "PolicySamples",
    "PrimitiveKernels",
    "ProgressiveWidening",
    "Proposals",
    "Proposed",
    "Puct",
    "Refinement",
    "RetrievedKernels",
    "Scoring",
    "SearchShape",
    "SelectionRule",
    "SequenceSearch",
    "SequentialHalving",
    "SharedNoise",
    "StateValue",
    "TemporalDifferenceMix",
    "Tree",
    "TreeReuse",
    "TreeSearch",
    "best_of_n",
    "cem",
    "choose_bandwidth",
    "explain",
    "fitted",
    "forethought",
    "icem",
    "kernel_proposals",
    "latent_distance",
    "mppi",
    "random_shooting",
    "running_averages",
    "search_shape",
    "vla_reasoner",
]
