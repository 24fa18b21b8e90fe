"""Random shooting: sequences drawn once, the best first chunk executed."""

from __future__ import annotations

from collections.abc import Sequence

from ..interfaces import ActionSpec, Planner, RewardModel, WorldModel
from .budget import Budget
from .decision import DecisionRule
from .mixtures import kernel_proposals
from .scoring import Scoring
from .sequences import SequenceSearch
from .sources import DEFAULT_BANDWIDTHS, ChunkMemory


def random_shooting(
    world_model: WorldModel,
    reward_model: RewardModel,
    *,
    action_spec: ActionSpec,
    memory: ChunkMemory | None = None,
    simulations: int | None = 32,
    milliseconds: float | None = None,
    depth: int = 1,
    population: int = 32,
    memory_share: float = 0.0,
    bandwidths: Sequence[float] = DEFAULT_BANDWIDTHS,
    shared_noise: float = 0.85,
    rotation_scale: float = 0.4,
    flip_probability: float = 0.0,
    pessimism: float = 1.0,
    disagreement: float = 0.0,
    discount: float = 0.99,
    margin: float = 0.0,
) -> Planner:
    """Sequences drawn around the policy's samples, none of them refined: what a search has to beat.

    With one chunk, and equal proposals, it is the search of ``forethought`` at depth 1.

    Args:
        world_model: Predicts the state after a chunk.
        reward_model: Scores states.
        action_spec: Meaning and bounds of the action.
        memory: Chunks of successful offline states, for ``memory_share``.
        simulations: Distinct evaluations per decision and row, or None for no such limit.
        milliseconds: Wall time per decision, or None for no such limit.
        depth: Chunks of a sequence.
        population: Sequences imagined together when only milliseconds limit the search.
        memory_share: Share of the proposals that the memory offers, in [0, 1).
        bandwidths: Ladder of kernel widths, units of half the range of the bounds.
        shared_noise: Share of a kernel's variance common to all steps of a chunk.
        rotation_scale: Factor on the deviation of rotations.
        flip_probability: Probability that a candidate's binary gripper is inverted.
        pessimism: λ on the reward model's spread.
        disagreement: Weight of the world model's disagreement.
        discount: γ per control step.
        margin: Value that another chunk must have over the policy's own.
    """
    return SequenceSearch(
        world_model,
        reward_model,
        kernel_proposals(
            action_spec,
            memory,
            memory_share=memory_share,
            bandwidths=bandwidths,
            shared_noise=shared_noise,
            rotation_scale=rotation_scale,
            flip_probability=flip_probability,
        ),
        action_spec,
        budget=Budget(simulations, milliseconds),
        depth=depth,
        population=population,
        scoring=Scoring(pessimism=pessimism, disagreement=disagreement, discount=discount),
        decision=DecisionRule(margin=margin),
    )
