"""The cross-entropy method, and iCEM: fit a Gaussian to the best, draw again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..interfaces import ActionSpec, ForethoughtError, Planner, RewardModel, WorldModel
from .budget import Budget
from .decision import DecisionRule
from .mixtures import kernel_proposals
from .refinement import ColouredNoise, Distribution, Noise, SharedNoise, blend_means, fit
from .scoring import Scoring
from .sequences import SequenceSearch
from .sources import DEFAULT_BANDWIDTHS, ChunkMemory


@dataclass(frozen=True)
class CrossEntropy:
    """The distribution of the elites (Rubinstein 1999); for planning Pinneri et al. 2020, arXiv 2008.06389.

    Attributes:
        elites: Share of the sequences imagined last that the next distribution is fitted to, in (0, 1]; at
            least two, disqualified ones never.
        momentum: Weight α of the last mean and deviation, in [0, 1).
        least_deviation: Below this no deviation shrinks, units of half the range of the bounds.
        keep: Share of the elites that stay for the next update, in [0, 1]; 0.3 in iCEM.
        noise: How draws vary over time.
        name: Source that the draws are accounted to.
    """

    elites: float = 0.25
    momentum: float = 0.1
    least_deviation: float = 0.005
    keep: float = 0.0
    noise: Noise = field(default_factory=SharedNoise)
    name: str = "cem"

    def __post_init__(self) -> None:
        if not 0.0 < self.elites <= 1.0 or not 0.0 <= self.keep <= 1.0 or not 0.0 <= self.momentum < 1.0:
            raise ForethoughtError(
                "Shares must lie in (0, 1] for elites, [0, 1] for keep and [0, 1) for momentum; got "
                f"elites={self.elites}, keep={self.keep}, momentum={self.momentum}."
            )
        if not self.least_deviation > 0.0:
            raise ForethoughtError(
                f"least_deviation must be positive, or draws repeat the mean; got {self.least_deviation}."
            )

    def _elites(self, number: int) -> int:
        return min(number, max(2, round(self.elites * number)))

    def kept(self, number: int) -> int:
        return round(self.keep * self._elites(number))

    def update(
        self, previous: Distribution | None, sequences: np.ndarray, value: np.ndarray, spec: ActionSpec
    ) -> Distribution:
        rank = np.argsort(np.argsort(-value, axis=1, kind="stable"), axis=1)
        weight = ((rank < self._elites(value.shape[1])) & np.isfinite(value)).astype(np.float64)
        fitted = fit(sequences, weight, spec)
        mean, deviation = fitted.mean, fitted.deviation
        if previous is not None and self.momentum:
            mean = blend_means(previous.mean, mean, self.momentum, spec)
            deviation = self.momentum * previous.deviation + (1.0 - self.momentum) * deviation
        return replace(fitted, mean=mean, deviation=np.maximum(deviation, self.least_deviation))


def cem(
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
    elites: float = 0.25,
    momentum: float = 0.1,
    least_deviation: float = 0.005,
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
    """The cross-entropy method, started from kernels around the policy's samples.

    Unlike the textbook's it decides among all that was imagined, the mean included, and never executes what
    it has not imagined.

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
        elites: Share of the sequences imagined last that the next distribution is fitted to.
        momentum: Weight of the last mean and deviation.
        least_deviation: Below this no deviation shrinks, units of half the range of the bounds.
        memory_share: Share of the first population that the memory offers, in [0, 1).
        bandwidths: Ladder of kernel widths of the first population, units of half the range of the bounds.
        shared_noise: Share of the variance common to all steps of a chunk.
        rotation_scale: Factor on the deviation of rotations in the first population.
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
        CrossEntropy(elites, momentum, least_deviation, noise=SharedNoise(shared_noise)),
        Budget(simulations, milliseconds),
        depth=depth,
        iterations=iterations,
        population=population,
        flip_probability=flip_probability,
        scoring=Scoring(pessimism=pessimism, disagreement=disagreement, discount=discount),
        decision=DecisionRule(margin=margin),
    )


def icem(
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
    decay: float = 1.25,
    elites: float = 0.25,
    keep: float = 0.3,
    carry: int = 3,
    tolerance: float = 0.5,
    momentum: float = 0.1,
    least_deviation: float = 0.005,
    colour: float = 2.5,
    memory_share: float = 0.0,
    bandwidths: Sequence[float] = DEFAULT_BANDWIDTHS,
    rotation_scale: float = 0.4,
    flip_probability: float = 0.0,
    pessimism: float = 1.0,
    disagreement: float = 0.0,
    discount: float = 0.99,
    margin: float = 0.0,
) -> Planner:
    """iCEM (Pinneri et al. 2020, arXiv 2008.06389): coloured noise, shrinking populations, elites that stay
    within a decision and, shifted by a chunk, for the next.

    Sequences of one chunk leave nothing to shift; a longer one's rest is carried where the next state is the
    predicted one. Its first population is the mixture's, as that of ``cem``; colour begins with the second.

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
        decay: Factor by which populations shrink.
        elites: Share of the sequences imagined last that the next distribution is fitted to.
        keep: Share of the elites that stay for the next update, without being imagined again.
        carry: Sequences whose rest joins the next decision's first population.
        tolerance: Largest error of the prediction for that, as a share of the predicted motion.
        momentum: Weight of the last mean and deviation.
        least_deviation: Below this no deviation shrinks, units of half the range of the bounds.
        colour: Exponent β of the noise's power 1/f^β.
        memory_share: Share of the first population that the memory offers, in [0, 1).
        bandwidths: Ladder of kernel widths of the first population, units of half the range of the bounds.
        rotation_scale: Factor on the deviation of rotations in the first population.
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
            rotation_scale=rotation_scale,
            flip_probability=flip_probability,
        ),
        action_spec,
        CrossEntropy(elites, momentum, least_deviation, keep, ColouredNoise(colour), "icem"),
        Budget(simulations, milliseconds),
        depth=depth,
        iterations=iterations,
        decay=decay,
        population=population,
        flip_probability=flip_probability,
        carry=carry,
        tolerance=tolerance,
        scoring=Scoring(pessimism=pessimism, disagreement=disagreement, discount=discount),
        decision=DecisionRule(margin=margin),
    )
