"""Model predictive path integral control: every sequence weighs in, by the exponential of its value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError, Planner, RewardModel, WorldModel
from .budget import Budget
from .decision import DecisionRule
from .mixtures import kernel_proposals
from .refinement import Distribution, Noise, SharedNoise, fit
from .scoring import Scoring
from .sequences import SequenceSearch
from .sources import DEFAULT_BANDWIDTHS, ChunkMemory


@dataclass(frozen=True)
class PathIntegral:
    """Mean Σ w_i·x_i with w_i ∝ exp((v_i − max v) / temperature), deviation fixed (Williams et al. 2017,
    "Information Theoretic MPC for Model-Based Reinforcement Learning", equations 8 and 10, without the cost
    of control: actions cost nothing here).

    Attributes:
        temperature: In units of the value, > 0. Small: the best alone; large: the mean of all.
        deviation: Of the draws, units of half the range of the bounds; rotations times ``rotation_scale``.
        rotation_scale: Factor on the deviation of rotations.
        noise: How draws vary over time.
        name: Source that the draws are accounted to.
    """

    temperature: float = 0.05
    deviation: float = 0.08
    rotation_scale: float = 0.4
    noise: Noise = field(default_factory=SharedNoise)
    name: str = "mppi"

    def __post_init__(self) -> None:
        if not self.temperature > 0.0 or not self.deviation > 0.0 or not self.rotation_scale > 0.0:
            raise ForethoughtError(
                "temperature, deviation and rotation_scale must be positive; got "
                f"{self.temperature}, {self.deviation}, {self.rotation_scale}."
            )

    def kept(self, number: int) -> int:
        return 0

    def update(
        self, previous: Distribution | None, sequences: np.ndarray, value: np.ndarray, spec: ActionSpec
    ) -> Distribution:
        finite = np.isfinite(value)
        best = np.where(finite, value, -np.inf).max(axis=1, keepdims=True)
        lead = np.where(finite, value - np.where(np.isfinite(best), best, 0.0), 0.0)
        weight = np.where(finite, np.exp(lead / self.temperature), 0.0)
        fitted = fit(sequences, weight, spec)
        factor = [self.rotation_scale if index in spec.rotation else 1.0 for index in spec.continuous]
        deviation = np.broadcast_to(self.deviation * np.asarray(factor), fitted.deviation.shape)
        return replace(fitted, deviation=deviation)


def mppi(
    world_model: WorldModel,
    reward_model: RewardModel,
    *,
    action_spec: ActionSpec,
    memory: ChunkMemory | None = None,
    simulations: int | None = 32,
    milliseconds: float | None = None,
    depth: int = 1,
    iterations: int = 3,
    population: int = 32,
    temperature: float = 0.05,
    deviation: float = 0.08,
    carry: int = 1,
    tolerance: float = 0.5,
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
    """MPPI, started from kernels around the policy's samples.

    Unlike the original it imagines the mean and decides among all that was imagined, instead of executing the
    mean unseen.

    Args:
        world_model: Predicts the state after a chunk.
        reward_model: Scores states.
        action_spec: Meaning and bounds of the action.
        memory: Chunks of successful offline states, for ``memory_share``.
        simulations: Distinct evaluations per decision and row, or None for no such limit.
        milliseconds: Wall time per decision, or None for no such limit.
        depth: Chunks of a sequence.
        iterations: Populations that share the simulations.
        population: Sequences of a population when only milliseconds limit the search.
        temperature: Of the weights, units of the value.
        deviation: Of the draws around the mean, units of half the range of the bounds.
        carry: Sequences whose rest joins the next decision's first population.
        tolerance: Largest error of the prediction for that, as a share of the predicted motion.
        memory_share: Share of the first population that the memory offers, in [0, 1).
        bandwidths: Ladder of kernel widths of the first population, units of half the range of the bounds.
        shared_noise: Share of the variance common to all steps of a chunk.
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
        PathIntegral(temperature, deviation, rotation_scale, SharedNoise(shared_noise)),
        Budget(simulations, milliseconds),
        depth=depth,
        iterations=iterations,
        population=population,
        flip_probability=flip_probability,
        carry=carry,
        tolerance=tolerance,
        scoring=Scoring(pessimism=pessimism, disagreement=disagreement, discount=discount),
        decision=DecisionRule(margin=margin),
    )
