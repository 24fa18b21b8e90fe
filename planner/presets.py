"""The planners that are always compared, with their defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..interfaces import ActionSpec, ForethoughtError, Planner, RewardModel, WorldModel
from .backup import BACKUPS, Backup, MeanBackup, TemporalDifferenceMix
from .best_of_n import BestOfN
from .budget import Budget
from .cross_entropy import cem, icem
from .decision import DecisionRule
from .episodic import EpisodicCorrection
from .gate import Gate, StateValue
from .kernel_mixture import KernelProposals
from .mixtures import kernel_proposals
from .path_integral import mppi
from .reuse import TreeReuse
from .rules import inner_rule, root_rule
from .scoring import Scoring
from .search import TreeSearch
from .selection import DensityUcb, KernelRegression, ProgressiveWidening
from .shooting import random_shooting
from .sources import DEFAULT_AVERAGES, ChunkMemory, DatasetKernels, evenly_chosen


def forethought(
    world_model: WorldModel,
    reward_model: RewardModel,
    *,
    action_spec: ActionSpec,
    memory: ChunkMemory | None = None,
    simulations: int | None = 32,
    milliseconds: float | None = None,
    children: int | None = None,
    depth: int = 1,
    inner_children: int = 8,
    wave: int = 8,
    memory_share: float = 0.5,
    average_over: Sequence[int] | None = DEFAULT_AVERAGES,
    policy_average_over: Sequence[int] | None = None,
    neighbours: int = 16,
    bandwidths: Sequence[float] = (0.02,),
    shared_noise: float = 0.85,
    rotation_scale: float = 0.4,
    flip_probability: float = 0.0,
    primitive_share: float = 0.0,
    primitive_reach: float = 0.5,
    offline_share: float = 0.0,
    offline_kernels: int = 2000,
    root: str = "sequential_halving",
    inner: str = "puct",
    exploration: float = 1.25,
    kernel_regression: float | None = None,
    backup: str = "td_mix",
    beta: float = 0.5,
    pessimism: float = 1.0,
    disagreement: float = 0.0,
    discount: float = 0.99,
    margin: float = 0.0,
    visit_fraction: float = 0.25,
    confidence: float = 0.0,
    policy_weight: float = 0.0,
    reuse: bool = False,
    gate_spread: float | None = None,
    gate_drop: float | None = None,
    episodic: bool = False,
    episodic_state: float = 0.15,
    episodic_chunk: float = 0.25,
) -> Planner:
    """Our planner: kernels on the policy's chunks and on averages of retrieved ones, sequential halving,
    TD-mix backup, decision by value.

    Args:
        world_model: Predicts the state after a chunk.
        reward_model: Scores states.
        action_spec: Meaning and bounds of the action.
        memory: Chunks of successful offline states, or None for kernels on the policy's samples only.
        simulations: Distinct evaluations per decision and row, or None for no such limit.
        milliseconds: Wall time per decision, or None for no such limit.
        children: Root candidates, the policy's own included. None: all simulations at depth 1, half of them
            deeper (32 when only milliseconds limit the search).
        depth: Longest imagined sequence of chunks.
        inner_children: Candidates of every other node.
        wave: Leaves evaluated together after the root's candidates.
        memory_share: Share of the proposals that the memory offers for the state, in [0, 1), of what
            ``primitive_share`` and ``offline_share`` leave; without a memory the policy's kernels take all.
        average_over: Centre the memory's kernels on means over so many nearest states, for each number given;
            None: on the single chunks of ``neighbours`` states, noise of the recording included.
        policy_average_over: Centre the policy's kernels on means over so many of its samples, for each number
            given, as far as there are so many; None: on the single samples.
        neighbours: Offline states retrieved where nothing is averaged.
        bandwidths: Ladder of kernel widths, units of half the range of the bounds.
        shared_noise: Share of a kernel's variance common to all steps of a chunk.
        rotation_scale: Factor on the deviation of rotations.
        flip_probability: Probability that a candidate's binary gripper is inverted.
        primitive_share: Share of all proposals that are motion primitives (see ``PrimitiveKernels``), [0, 1).
        primitive_reach: Their translation command, as a share of the bound.
        offline_share: Share of all proposals that stand on chunks of the memory whatever the state, as
            ``vla_reasoner`` has all of them, in [0, 1]; with 1 only slot 0 is the policy's.
        offline_kernels: Chunks of the memory that carry such a kernel, evenly spaced through it.
        root: Selection at the root: ``sequential_halving``, the same under Gumbel noise (``gumbel``), or
            ``puct``.
        inner: Selection below the root: ``puct``, or the improved policy of ``gumbel``.
        exploration: c of PUCT.
        kernel_regression: Width of the kernel by which inner siblings share statistics, or None for no
            sharing.
        backup: ``td_mix``, ``max`` or ``mean``.
        beta: Weight of the tree in ``td_mix``.
        pessimism: λ on the reward model's spread.
        disagreement: Weight of the world model's disagreement.
        discount: γ per control step.
        margin: Value that another chunk must have over the policy's own.
        visit_fraction: Share of the most visited child's visits that a child needs to be chosen.
        confidence: z of the lower confidence bound; 0 compares the values.
        policy_weight: α of the injection; 0 executes the chunk found.
        reuse: Whether the next decision starts from what came true of this one's tree; needs depth >= 2.
        gate_spread: Spread of the policy's samples from which a decision is searched at all; see ``Gate``.
        gate_drop: Loss of the state's value from which it is. With neither, every decision is searched.
        episodic: Whether the world model is corrected by what came of this episode's chunks; see
            ``EpisodicCorrection``. Not together with ``reuse``.
        episodic_state: Width of its kernel over states.
        episodic_chunk: Width of its kernel over chunks.
    """
    if episodic and reuse:
        raise ForethoughtError(
            "episodic=true corrects what reuse=true would keep uncorrected. Choose one of them."
        )
    below = inner_rule(inner, exploration=exploration)
    if kernel_regression is not None:
        below = KernelRegression(below, action_spec, kernel_regression)
    candidates = _root_children(children, simulations, depth)
    search = TreeSearch(
        world_model,
        reward_model,
        kernel_proposals(
            action_spec,
            memory,
            memory_share=memory_share,
            average_over=average_over,
            policy_average_over=policy_average_over,
            neighbours=neighbours,
            bandwidths=bandwidths,
            shared_noise=shared_noise,
            rotation_scale=rotation_scale,
            flip_probability=flip_probability,
            primitive_share=primitive_share,
            primitive_reach=primitive_reach,
            offline_share=offline_share,
            offline_kernels=offline_kernels,
        ),
        action_spec,
        budget=Budget(simulations, milliseconds),
        children=candidates,
        depth=depth,
        inner_children=inner_children,
        wave=wave,
        root_rule=root_rule(root, children=candidates, simulations=simulations, exploration=exploration),
        inner_rule=below,
        backup=_backup(backup, beta),
        scoring=Scoring(pessimism=pessimism, disagreement=disagreement, discount=discount),
        decision=DecisionRule(
            margin=margin,
            visit_fraction=visit_fraction,
            confidence=confidence,
            policy_weight=policy_weight,
        ),
    )
    planner: Planner = TreeReuse(search) if reuse else search
    if episodic:
        weights = getattr(memory, "weights", None)
        planner = EpisodicCorrection(search, episodic_state, episodic_chunk, weights)
    if gate_spread is None and gate_drop is None:
        return planner
    return Gate(
        planner,
        action_spec,
        StateValue(world_model, reward_model, pessimism),
        spread=gate_spread,
        drop=gate_drop,
        shared=shared_noise,
        rotation_scale=rotation_scale,
    )


def vla_reasoner(
    world_model: WorldModel,
    reward_model: RewardModel,
    *,
    action_spec: ActionSpec,
    memory: ChunkMemory | None = None,
    simulations: int | None = 32,
    milliseconds: float | None = None,
    children: int | None = None,
    depth: int = 2,
    inner_children: int = 8,
    wave: int = 1,
    bandwidths: Sequence[float] = (0.08,),
    kernels: int = 2000,
    shared_noise: float = 0.0,
    flip_probability: float = 0.0,
    exploration: float = 0.5,
    discount: float = 1.0,
    policy_weight: float = 0.6,
) -> Planner:
    """VLA-Reasoner (arXiv 2509.22643): state-independent density, density as visit count, injection of α =
    0.6.

    The kernels stand on all chunks of the memory whatever the state; UCB counts by density; values are
    averaged on the way up; the best child is injected into the policy's action without a margin; every
    decision builds a new tree. What the paper leaves open (kernel width, exploration, tree size) is named
    below. Its reward is another matter: train it with the paper's labels and hand it in.

    Args:
        world_model: Predicts the state after a chunk.
        reward_model: Scores states; only its mean counts here.
        action_spec: Meaning and bounds of the action.
        memory: Holds the chunks of the offline data; needed.
        simulations: Distinct evaluations per decision and row, or None for no such limit.
        milliseconds: Wall time per decision, or None for no such limit.
        children: Root candidates, the policy's own included; None: half of the simulations (all at depth 1).
        depth: Longest imagined sequence of chunks.
        inner_children: Candidates of every other node.
        wave: Leaves evaluated together after the root's candidates.
        bandwidths: Kernel widths, units of half the range of the bounds.
        kernels: Chunks of the memory that carry a kernel, evenly spaced through it; all if it holds fewer.
        shared_noise: Share of a kernel's variance common to all steps of a chunk.
        flip_probability: Probability that a candidate's binary gripper is inverted.
        exploration: c of UCB.
        discount: γ per control step.
        policy_weight: α, read as the weight of the policy's own action; the paper's ablation suggests that
            reading, its equation was not at hand.
    """
    if memory is None:
        raise ForethoughtError(
            "vla_reasoner draws from all chunks of an offline data set and was given memory=None. "
            "Pass a memory (its all_chunks() is used), or use the preset forethought, which can do without."
        )
    if kernels < 1:
        raise ForethoughtError(f"kernels must be at least 1; got {kernels}.")
    chunks = evenly_chosen(memory, kernels)
    rule = DensityUcb(exploration)
    return TreeSearch(
        world_model,
        reward_model,
        KernelProposals(
            action_spec,
            (DatasetKernels(chunks, bandwidths=tuple(float(width) for width in bandwidths)),),
            shared=shared_noise,
            rotation_scale=1.0,
            flip_probability=flip_probability,
        ),
        action_spec,
        budget=Budget(simulations, milliseconds),
        children=_root_children(children, simulations, depth),
        depth=depth,
        inner_children=inner_children,
        wave=wave,
        root_rule=rule,
        inner_rule=rule,
        widening=ProgressiveWidening(factor=inner_children),
        backup=MeanBackup(),
        scoring=Scoring(pessimism=0.0, discount=discount),
        decision=DecisionRule(margin=0.0, visit_fraction=0.0, policy_weight=policy_weight),
    )


def best_of_n(
    world_model: WorldModel,
    reward_model: RewardModel,
    *,
    action_spec: ActionSpec,
    memory: ChunkMemory | None = None,
    n: int | None = None,
    simulations: int = 32,
    pessimism: float = 1.0,
    margin: float = 0.0,
) -> Planner:
    """The policy's own samples, scored after one chunk.

    Args:
        world_model: Predicts the state after a chunk.
        reward_model: Scores states.
        action_spec: Meaning and bounds of the action.
        memory: Not used; accepted so that all presets take the same arguments.
        n: Samples to compare; None: ``simulations``. Ask the policy for as many.
        simulations: The same number by the name that the other presets use.
        pessimism: λ on the reward model's spread.
        margin: Value that another sample must have over the policy's own.
    """
    return BestOfN(
        world_model,
        reward_model,
        action_spec,
        n=simulations if n is None else n,
        scoring=Scoring(pessimism=pessimism),
        decision=DecisionRule(margin=margin),
    )


PRESETS: dict[str, Callable[..., Planner]] = {
    "forethought": forethought,
    "vla_reasoner": vla_reasoner,
    "best_of_n": best_of_n,
    "random_shooting": random_shooting,
    "cem": cem,
    "icem": icem,
    "mppi": mppi,
}
"""Presets by name."""


def _root_children(children: int | None, simulations: int | None, depth: int) -> int:
    if children is not None:
        return children
    if simulations is None:
        return 32
    return max(1, simulations if depth == 1 else simulations // 2)


def _backup(name: str, beta: float) -> Backup:
    if name not in BACKUPS:
        raise ForethoughtError(f"Unknown backup {name!r}; choose one of {', '.join(sorted(BACKUPS))}.")
    return TemporalDifferenceMix(beta) if name == "td_mix" else BACKUPS[name]
