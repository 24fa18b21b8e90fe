"""Width, depth and wave of a search from what the world model says it costs.

The numbers of each tier are what was measured, or follow from it: 32 candidates at depth 1 is where more
width stopped paying on libero_object; a second chunk paid where no memory offered good candidates (65 to 79
of 100 at equal cost) and not where one did; the video model was measured with as many candidates as a latent;
dearer models afford few, all of them in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..interfaces import ActionSpec, ImaginationCost, Planner, RewardModel, WorldModel
from .presets import forethought
from .sources import DEFAULT_AVERAGES, ChunkMemory

UNDECLARED = ImaginationCost("vector")
"""What a world model without ``cost`` is taken for."""

FEWEST = 2
"""Candidates below which a decision cannot be one: the policy's chunk and another."""

SPENT = 0.8
"""Share of the milliseconds that candidates may take; encoding and the tree want the rest."""


@dataclass(frozen=True)
class SearchShape:
    """How a search is laid out.

    Attributes:
        simulations: Distinct evaluations of a decision.
        children: Candidates at the root, the policy's own included.
        depth: Longest imagined sequence of chunks.
        wave: Leaves evaluated together.
    """

    simulations: int
    children: int
    depth: int
    wave: int


MOST = {"vector": 32, "tokens": 32, "video": 32, "foundation": 4, "simulator": 32}
"""Candidates of a decision by tier, if time allows."""


def search_shape(
    cost: ImaginationCost | None, *, memory: bool, milliseconds: float | None = None
) -> SearchShape:
    """The layout for a world model of that cost.

    Args:
        cost: What the model declares; None is taken for the cheapest tier.
        memory: Whether recorded chunks are among the candidates; without, the cheapest tier looks a second
            chunk ahead, at twice the simulations.
        milliseconds: Wall time of a decision. It narrows the search where the model says what a candidate
            costs; None: nothing narrows it.
    """
    cost = cost or UNDECLARED
    deep = cost.tier == "vector" and not memory
    children, simulations = MOST[cost.tier], MOST[cost.tier] * (2 if deep else 1)
    if milliseconds is not None and cost.milliseconds is not None:
        affordable = max(FEWEST, int(SPENT * milliseconds / cost.milliseconds))
        deep = deep and affordable > children
        children, simulations = min(children, affordable), min(simulations, affordable)
    return SearchShape(simulations, children, 2 if deep else 1, max(1, min(cost.wave, simulations)))


def declared_cost(world_model: WorldModel) -> ImaginationCost | None:
    """What a world model declares, or None."""
    cost = getattr(world_model, "cost", None)
    return cost if isinstance(cost, ImaginationCost) else None


def fitted(
    world_model: WorldModel,
    reward_model: RewardModel,
    *,
    action_spec: ActionSpec,
    memory: ChunkMemory | None = None,
    milliseconds: float | None = None,
    memory_share: float = 0.5,
    average_over: Sequence[int] | None = DEFAULT_AVERAGES,
    bandwidths: Sequence[float] = (0.02,),
    pessimism: float = 1.0,
    disagreement: float = 0.0,
    discount: float = 0.99,
    margin: float = 0.0,
) -> Planner:
    """``forethought`` with width, depth and wave from the world model's declared cost.

    Args:
        world_model: Predicts the state after a chunk; its attribute ``cost`` decides.
        reward_model: Scores states.
        action_spec: Meaning and bounds of the action.
        memory: Chunks of successful offline states, or None.
        milliseconds: Wall time of a decision, also kept by the clock; None: no limit.
        memory_share: Share of the proposals that the memory offers.
        average_over: See ``forethought``.
        bandwidths: Ladder of kernel widths, units of half the range of the bounds.
        pessimism: λ on the reward model's spread.
        disagreement: Weight of the world model's disagreement.
        discount: γ per control step.
        margin: Value that another chunk must have over the policy's own.
    """
    shape = search_shape(declared_cost(world_model), memory=memory is not None, milliseconds=milliseconds)
    return forethought(
        world_model,
        reward_model,
        action_spec=action_spec,
        memory=memory,
        simulations=shape.simulations,
        children=shape.children,
        depth=shape.depth,
        wave=shape.wave,
        milliseconds=milliseconds,
        memory_share=memory_share,
        average_over=average_over,
        bandwidths=bandwidths,
        pessimism=pessimism,
        disagreement=disagreement,
        discount=discount,
        margin=margin,
    )
