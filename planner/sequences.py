"""Planners that imagine whole sequences of chunks and draw the next where the best were.

Random shooting, CEM, iCEM and MPPI are this loop with another ``Refinement``: draw a population, imagine it,
update the distribution, draw again until the budget is spent. Budget, scoring and decision are those of the
tree search, and so is what counts: one simulation is one distinct evaluation of the world model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..interfaces import (
    ActionSamples,
    ActionSpec,
    Decision,
    ForethoughtError,
    Latent,
    Observation,
    RewardModel,
    WorldModel,
)
from .backup import Backup, TemporalDifferenceMix
from .budget import Budget, Clock
from .carry import Carried, Leftover
from .context import Context
from .decision import DecisionRule, RootStatistics, with_candidates
from .inputs import checked, distinct, without_search
from .population import Population, Run, advance, back_up, best, going
from .proposals import Proposals, propose
from .refinement import Distribution, Refinement, draw
from .scoring import Scoring
from .tree import NONE, LatentPool, finite_rows


@dataclass(frozen=True, eq=False)
class SequenceSearch:
    """A planner that samples sequences of chunks and refines where they are drawn from.

    The first population comes from ``proposals``, state by imagined state; its sequence 0 is the policy's own
    chunk, repeated. A later one holds the mean of the refined distribution, draws from it, and, with
    sequences of more than one chunk, the policy's chunk followed by the mean's rest, so that the policy is
    judged by more than one future. The value of a first chunk is that of the best sequence that begins with
    it. Priors play no part and are reported uniform.

    Between decisions the planner remembers the ``carry`` best sequences. Where the next state is the
    predicted one (see ``Leftover.continues``) their rest joins its first population, to be imagined again.
    Rows are told apart as in ``TreeReuse``. Call ``reset`` when an episode starts.

    Attributes:
        world_model: Predicts the state after a chunk.
        reward_model: Scores states.
        proposals: Offers the first population's chunks.
        action_spec: Meaning and bounds of the action.
        refinement: Where to draw next; None draws everything from the proposals (random shooting).
        budget: What a decision may spend.
        depth: Chunks of a sequence, >= 1; fewer if the budget has fewer simulations.
        iterations: Populations that share the budget's simulations; fewer where it has too few for two
            sequences each.
        decay: Factor γ >= 1 by which populations shrink.
        population: Sequences of a population when only milliseconds limit the search.
        flip_probability: Probability that a refined draw's binary gripper is inverted for a chunk.
        carry: Sequences carried to the next decision; only those of two chunks or more have a rest.
        tolerance: How large the error of the prediction may be against the predicted motion for that.
        backup: How the values of later states reach the first.
        scoring: How a state becomes a score.
        decision: Which chunk is executed in the end.
    """

    world_model: WorldModel
    reward_model: RewardModel
    proposals: Proposals
    action_spec: ActionSpec
    refinement: Refinement | None = None
    budget: Budget = field(default_factory=lambda: Budget(simulations=32))
    depth: int = 1
    iterations: int = 1
    decay: float = 1.0
    population: int = 32
    flip_probability: float = 0.0
    carry: int = 0
    tolerance: float = 0.5
    backup: Backup = field(default_factory=TemporalDifferenceMix)
    scoring: Scoring = field(default_factory=Scoring)
    decision: DecisionRule = field(default_factory=DecisionRule)
    _carried: Carried = field(default_factory=Carried, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, least in (("depth", 1), ("iterations", 1), ("population", 1), ("carry", 0)):
            number = getattr(self, name)
            if number != int(number) or number < least:
                raise ForethoughtError(f"{name} must be an integer >= {least}; got {number}.")
        if not self.decay >= 1.0 or not self.tolerance >= 0.0 or not 0.0 <= self.flip_probability < 1.0:
            raise ForethoughtError(
                "Populations shrink by decay >= 1, tolerance must not be negative, and flip_probability lies "
                f"in [0, 1); got decay={self.decay}, tolerance={self.tolerance}, "
                f"flip_probability={self.flip_probability}."
            )

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names that ``Candidates.source`` points to."""
        refined = () if self.refinement is None else (self.refinement.name, f"{self.refinement.name}_mean")
        return (*self.proposals.source_names, "carried", *refined)

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """Forget what was carried, for all rows or for some: an episode starts."""
        self._carried.forget(rows)

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        """One decision per row. Exceptions of the models pass through; numbers that are not finite do not: a
        sequence that leads to them is out, and a row whose policy chunk does returns that chunk as a
        fallback."""
        self._carried.same_rows(observation.batch)
        return self.plan_rows(observation, samples, seeds, np.arange(observation.batch))

    def plan_rows(
        self, observation: Observation, samples: ActionSamples, seeds: np.ndarray, rows: np.ndarray
    ) -> Decision:
        """The same for rows that have names, distinct integers ``[B]``; others keep what they remember."""
        names = distinct(rows, observation.batch)
        clock = self.budget.start()
        inputs = checked(samples, observation, seeds, self.action_spec)
        latent = self.world_model.encode(observation)
        encoded = clock.milliseconds
        alive = finite_rows(latent)
        if not alive.any():
            self.reset(names)
            decision = without_search(inputs, self.action_spec, "fallback: the encoded state is not finite")
        else:
            # No model is asked about a state that is not finite: another row's stands in, unheard.
            if not alive.all():
                latent = latent[np.where(alive, np.arange(alive.size), int(alive.argmax()))]
            alive = alive & inputs.whole
            carried = self._carried.taken(names, latent, observation.instruction, self.tolerance)
            run = self.search(
                latent,
                observation.instruction,
                inputs.chunks,
                inputs.seeds,
                clock,
                alive,
                carried,
                inputs.weights,
            )
            decision = self._decide(run, alive)
            self._remember(run, latent, decision, names)
            # A policy chunk that is not finite leaves as it came: whoever guards the robot must see it.
            decision.chunk[~inputs.whole] = inputs.own[~inputs.whole]
        return replace(decision, milliseconds={"encode": encoded, "search": clock.milliseconds - encoded})

    def search(
        self,
        latent: Latent,
        instruction: tuple[str, ...],
        samples: np.ndarray,
        seeds: np.ndarray,
        clock: Clock,
        alive: np.ndarray,
        carried: Sequence[np.ndarray | None] = (),
        weights: np.ndarray | None = None,
    ) -> Run:
        """Imagine populations for B rows from latents ``[B, ...]`` and finite policy chunks ``[B, N, H, A]``,
        until the budget is spent. Rows that are not ``alive`` (``bool [B]``) stop after the first; those that
        ``carried`` chunks ``[c, d-1, H, A]`` over from their last decision imagine these among the first."""
        pool = LatentPool(latent, seeds.size * (1 + (self.budget.simulations or self.population)))
        nothing = np.zeros(seeds.size, np.int64)
        everywhere = np.ones(seeds.size, bool)
        run = Run(pool, np.arange(seeds.size), samples, instruction, seeds, everywhere, nothing)
        run.carried, run.weights = carried, weights
        discount = self.scoring.discount ** samples.shape[2]
        distribution: Distribution | None = None
        kept: tuple[np.ndarray, np.ndarray] | None = None
        for number in self._sizes():
            if not clock.wave_begins() and run.populations:
                break
            if distribution is None:
                population = self._proposed(run, number)
            else:
                population = self._refined(run, number, distribution)
            back_up(population, self.backup, discount)
            run.populations.append(population)
            if len(run.populations) == 1:
                run.open = alive & np.isfinite(population.value[:, 0])
            if self.refinement is not None:
                value = np.where(np.isnan(population.value), -np.inf, population.value)
                both = population.chunks, value
                if kept is not None:
                    both = np.concatenate([kept[0], both[0]], 1), np.concatenate([kept[1], both[1]], 1)
                distribution = self.refinement.update(distribution, *both, self.action_spec)
                kept = best(*both, self.refinement.kept(both[1].shape[1]))
            clock.wave_ends()
        return run

    def _sizes(self) -> Iterator[int]:
        """Sequences of each population."""
        most, depth = self.budget.simulations, self._depth
        if most is None:
            while True:
                yield self.population
        iterations = self.iterations
        if self.refinement is not None:
            iterations = max(1, min(iterations, most // depth // 2))
        weight = self.decay ** -np.arange(iterations, dtype=np.float64)
        left = most
        for index in range(iterations):
            # From the second population on the policy's first chunk is known: that sequence costs one less.
            known = int(index > 0 and self.refinement is not None and depth > 1)
            share = left * weight[index] / weight[index:].sum()
            number = (int(share + 0.5 if index < iterations - 1 else left) + known) // depth
            if number < 1:
                return
            left -= number * depth - known
            yield number

    @property
    def _depth(self) -> int:
        most = self.budget.simulations
        return self.depth if most is None else min(self.depth, int(most))

    def _proposed(self, run: Run, number: int) -> Population:
        """A population drawn from the proposals, each chunk where the one before leads, imagined. The first
        has the policy's sequence and what the last decision left."""
        rows, depth, round_ = np.arange(run.seeds.size), self._depth, len(run.populations)
        node = round_ << 32
        context = self._context(run, rows, run.root, node)
        offered = propose(self.proposals, context, number, keep_policy=not round_)
        number = offered.chunks.shape[1]
        chunks = np.repeat(offered.chunks[:, :, None], depth, axis=2)  # the policy's own stays so
        population = Population(chunks, offered.source.copy())
        fixed = np.zeros((rows.size, number), bool)
        if not round_:
            self._take_over(run, population)
            fixed = population.source == len(self.proposals.source_names)
            fixed[:, 0] = True
        self._imagine(run, population, 0)
        for at in range(1, depth):
            row, sequence = np.nonzero(going(run, population, at, self.scoring.terminal) & ~fixed)
            if row.size:
                context = self._context(
                    run, row, population.slot[row, sequence, at - 1], node + 1 + (at - 1) * number + sequence
                )
                following = propose(self.proposals, context, SHUFFLED, keep_policy=False)
                population.chunks[row, sequence, at] = following.chunks[:, 0]
            self._imagine(run, population, at)
        return population

    def _take_over(self, run: Run, population: Population) -> None:
        """Put the rest of the last decision's best sequences in the place of the last draws; the policy's
        chunk ends them."""
        chunks = population.chunks
        for row, rest in enumerate(run.carried):
            if rest is None or rest.shape[1:] != (chunks.shape[2] - 1, *chunks.shape[3:]):
                continue
            number = min(len(rest), chunks.shape[1] - 1)
            if number:
                chunks[row, -number:, :-1] = rest[:number]
                chunks[row, -number:, -1] = chunks[row, 0, 0]
                population.source[row, -number:] = len(self.proposals.source_names)

    def _refined(self, run: Run, number: int, distribution: Distribution) -> Population:
        """The population drawn from a distribution: the policy's chunk and the mean's rest where there is a
        rest, the mean itself, and draws; imagined."""
        assert self.refinement is not None
        depth, label = distribution.mean.shape[1], len(self.proposals.source_names) + 1
        chunks = np.empty((run.seeds.size, number, *distribution.mean.shape[1:]), np.float32)
        source = np.full((run.seeds.size, number), label, np.int8)
        known = int(depth > 1)
        if known:
            chunks[:, 0] = distribution.mean
            chunks[:, 0, 0] = run.populations[0].chunks[:, 0, 0]
            source[:, 0] = 0
        if number > known:
            chunks[:, known] = distribution.mean
            source[:, known] = label + 1
        rest = number - known - 1
        if rest > 0:
            chunks[:, known + 1 :] = draw(
                distribution,
                rest,
                run.seeds,
                -len(run.populations),
                self.refinement.noise,
                self.flip_probability,
                self.action_spec,
            )
        population = Population(chunks, source, after_policy=bool(known))
        if known:
            first = run.populations[0]
            for name in ("slot", "own", "spread", "done"):
                getattr(population, name)[:, 0, 0] = getattr(first, name)[:, 0, 0]
        for at in range(depth):
            self._imagine(run, population, at)
        return population

    def _imagine(self, run: Run, population: Population, at: int) -> None:
        advance(run, population, at, self.world_model, self.reward_model, self.scoring)

    def _decide(self, run: Run, alive: np.ndarray) -> Decision:
        def joined(name: str) -> np.ndarray:
            return np.concatenate(
                [getattr(p, name)[:, int(p.after_policy) :] for p in run.populations], axis=1
            )

        value, visits, own = joined("value"), joined("visits"), joined("own")[:, :, 0]
        for population in run.populations:
            if population.after_policy:  # the policy's chunk is worth its best future
                value[:, 0] = np.fmax(value[:, 0], population.value[:, 0])
                visits[:, 0] += population.visits[:, 0]
        value[~alive] = -np.inf
        root = RootStatistics(
            chunks=joined("chunks")[:, :, 0],
            source=joined("source"),
            source_names=self.source_names,
            value=value,
            spread=joined("spread")[:, :, 0],
            visits=visits,
            closed=~np.isnan(own),
        )
        choice = self.decision(root, self.action_spec)
        return with_candidates(choice, root, np.full(value.shape, 1.0 / value.shape[1]), run.spent)

    def _remember(self, run: Run, latent: Latent, decision: Decision, names: Sequence[int]) -> None:
        """Keep the rest of the best sequences and what the executed chunk is expected to do."""
        first = run.populations[0]
        if not self.carry or first.chunks.shape[2] < 2:
            return
        chunks = np.concatenate([p.chunks for p in run.populations], axis=1)
        value = np.concatenate([p.value for p in run.populations], axis=1)
        slot = np.concatenate([p.slot for p in run.populations], axis=1)[:, :, 0]
        # The one executed is found by its numbers: an injected blend was never imagined.
        same = (chunks[:, :, 0] == decision.chunk[:, None]).all(axis=(2, 3)) & (slot != NONE)
        ranked = np.where(np.isfinite(value), value, -np.inf)
        leading, _ = best(chunks, ranked, min(self.carry, value.shape[1]))
        at = same.argmax(axis=1)
        for row in np.flatnonzero(same.any(axis=1) & ~decision.fallback).tolist():
            expected = run.pool.take(slot[row, at[row : row + 1]])
            self._carried.rows[names[row]] = Leftover(
                leading[row, :, 1:], latent[np.array([row])], expected, run.instruction[row]
            )

    @staticmethod
    def _context(run: Run, rows: np.ndarray, slots: np.ndarray, nodes: np.ndarray | int) -> Context:
        return Context(
            samples=run.samples[rows],
            latent=run.pool.take(slots),
            instruction=tuple(run.instruction[row] for row in rows),
            seeds=run.seeds[rows],
            nodes=np.broadcast_to(np.asarray(nodes, np.int64), rows.shape),
            weights=None if run.weights is None else run.weights[rows],
        )


SHUFFLED = 4
"""Chunks drawn where one is needed: proposals shuffle them, so that the first is a sample of all sources."""
