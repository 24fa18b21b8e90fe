"""The search: phase one evaluates every root candidate, then waves of simulate, expand, backward.

Those who know mctx find its functions here; new are continuous actions, waves, budgets and rows that end on
their own. The algorithm with waves of one simulation is the sequential one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from ..interfaces import (
    ActionSamples,
    ActionSpec,
    Decision,
    ForethoughtError,
    Latent,
    Observation,
    Prediction,
    RewardModel,
    Score,
    WorldModel,
)
from .array_form import ArrayForm
from .backup import Backup, TemporalDifferenceMix
from .budget import Budget, Clock
from .context import Context
from .decision import DecisionRule, RootStatistics, with_candidates
from .graft import INHERITED, Subtree, graft
from .inputs import Inputs, checked, every, without_search
from .kernels import claim_unknown, close_roots
from .opening import Drawing, drawing
from .proposals import Proposals, draw, planted, propose
from .scoring import Scoring
from .selection import ProgressiveWidening, Puct, SelectionRule, SequentialHalving
from .settling import Carry, Gathered, gather, root_candidates, scatter, settle
from .tree import LatentPool, Tree, finite_rows
from .walk import Walk

Correct: TypeAlias = Callable[[np.ndarray, Latent, np.ndarray, Prediction], Prediction]
"""From rows ``int64 [L]``, states ``[L, ...]``, chunks ``[L, H, A]`` and what the model predicts of them to a
corrected prediction."""

Evaluated: TypeAlias = tuple[int, Prediction, Score]
"""Of claims: the slot of the first one's latent, which the others follow, and what the models said."""


MOST_RESERVED = 1 << 17
"""Nodes that a row reserves at most before it needs them. What nobody writes to takes no memory, and growing
copies what is there."""


@dataclass(eq=False)
class Run:
    """One decision under way, for B rows.

    Attributes:
        tree: The trees.
        pool: Latents of evaluated nodes.
        samples: The policy's chunks, ``float32 [B, N, H, A]``, finite.
        instruction: B strings.
        seeds: ``int64 [B]``.
        spent: Distinct evaluations, ``int64 [B]``.
        disqualified: Evaluations that were not finite, ``int64 [B]``.
        source_names: Names of the proposal sources.
        root_rule: Selection at the root.
        walk: The compiled ``simulate``, or None where a rule has no compiled form.
        carry: The compiled ``backward``, or None where the backup has no compiled form.
        memo: What proposals remember of this decision.
        weights: Of the policy's chunks by their likelihoods, ``float64 [B, N]``, or None.
        correct: Corrects what the world model predicts, or None; see ``EpisodicCorrection``.
        gathered: Claims, and what the models need of them, where that was gathered as they were claimed;
            whoever changes the claims or their chunks before they are evaluated sets it to None.
        drawing: How candidates below the root are drawn, where that is known since the root's were.
    """

    tree: Tree
    pool: LatentPool
    samples: np.ndarray
    instruction: tuple[str, ...]
    seeds: np.ndarray
    spent: np.ndarray
    disqualified: np.ndarray
    source_names: tuple[str, ...]
    root_rule: SelectionRule
    walk: Walk | None = None
    carry: Carry | None = None
    memo: dict[str, Any] = field(default_factory=dict)
    weights: np.ndarray | None = None
    correct: Correct | None = None
    gathered: tuple[np.ndarray, Gathered] | None = None
    drawing: Drawing | None = None

    def needed(self, claims: np.ndarray) -> tuple[Latent, np.ndarray]:
        """The states ``[L, ...]`` of the parents of claims ``int64 [L, 2]``, and the claims' chunks ``[L, H,
        A]``."""
        tree, pool = self.tree, self.pool
        if self.gathered is not None and self.gathered[0] is claims:
            (chunks, states), self.gathered = self.gathered[1], None  # the models' own from now on
        else:
            chunks, states = gather(tree.nodes, tree.chunk, pool.numbers, claims)
        if pool.numbers.size:
            return pool.latents(states), chunks
        rows, nodes = claims[:, 0], claims[:, 1]
        return pool.take(tree.latent[rows, tree.parent[rows, nodes]]), chunks

    def instructions(self, rows: np.ndarray) -> list[str]:
        """The instruction of each of the rows ``[L]``."""
        if len(self.instruction) == 1 or len(set(self.instruction)) == 1:
            return [self.instruction[0]] * len(rows)
        return [self.instruction[row] for row in rows.tolist()]


@dataclass(frozen=True, eq=False)
class TreeSearch:
    """A planner that searches a tree of action chunks in imagination.

    Attributes:
        world_model: Predicts the state after a chunk.
        reward_model: Scores states.
        proposals: Offers chunks to a node.
        action_spec: Meaning and bounds of the action.
        budget: What a decision may spend.
        children: Candidates K of the root, the policy's own included; fewer if the budget has fewer
            simulations.
        depth: Longest imagined sequence of chunks, >= 1.
        inner_children: Candidates of every other node, drawn one by one as it widens.
        wave: Leaves per row that are evaluated together after phase one.
        root_rule: Selection at the root; None: sequential halving over the budget.
        inner_rule: Selection below the root.
        widening: How many candidates of an inner node are open, by its visits.
        backup: How children's values reach their parent.
        scoring: How a state becomes a score.
        decision: Which chunk is executed in the end.
    """

    world_model: WorldModel
    reward_model: RewardModel
    proposals: Proposals
    action_spec: ActionSpec
    budget: Budget = field(default_factory=lambda: Budget(simulations=32))
    children: int = 32
    depth: int = 1
    inner_children: int = 8
    wave: int = 8
    root_rule: SelectionRule | None = None
    inner_rule: SelectionRule = field(default_factory=Puct)
    widening: ProgressiveWidening = field(default_factory=ProgressiveWidening)
    backup: Backup = field(default_factory=TemporalDifferenceMix)
    scoring: Scoring = field(default_factory=Scoring)
    decision: DecisionRule = field(default_factory=DecisionRule)

    def __post_init__(self) -> None:
        for name in ("children", "depth", "inner_children", "wave"):
            number = getattr(self, name)
            if number != int(number) or number < 1:
                raise ForethoughtError(f"{name} must be an integer >= 1; got {number}.")

    @functools.cached_property
    def _halving(self) -> SequentialHalving:
        """The root's rule where none is given."""
        most = self.budget.simulations
        return SequentialHalving(4 * self.children if most is None else int(most))

    @functools.cached_property
    def _sizes(self) -> tuple[int, int, int]:
        """Candidates of the root; nodes and latents that room is made for in each row."""
        most = self.budget.simulations
        children = self.children if most is None else min(self.children, int(most))
        expected = 4 * children if most is None else int(most)
        nodes = 1 + children + max(expected - children, 0) * self.inner_children
        return children, min(nodes, MOST_RESERVED), 1 + min(expected, 4096)

    @functools.cached_property
    def _carries(self) -> dict[int, Carry | None]:
        """Compiled passes by the horizon."""
        return {}

    def _carry(self, horizon: int) -> Carry | None:
        """The compiled ``backward`` for chunks of this length, if the backup has one."""
        if horizon not in self._carries:
            ends = int(self.depth), self.scoring.weights
            discount = self.scoring.discount**horizon
            self._carries[horizon] = Carry.of(self.backup, discount, self.inner_children, *ends)
        return self._carries[horizon]

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        """One decision per row. Exceptions of the models pass through; numbers that are not finite do not: a
        candidate that leads to them is out, and a row whose policy chunk does returns that chunk as a
        fallback."""
        return self.imagine(observation, samples, seeds)[0]

    def imagine(
        self,
        observation: Observation,
        samples: ActionSamples,
        seeds: np.ndarray,
        inherit: Callable[[Latent], Sequence[Subtree | None]] | None = None,
        correct: Callable[[Latent, np.ndarray], Correct | None] | None = None,
    ) -> tuple[Decision, Run | None]:
        """What ``plan`` does, and the trees it grew; None when no row has a finite state.

        ``inherit`` is asked, with the encoded states ``[B, ...]``, for what each row has from a tree of
        before; ``correct``, with the same and which rows are searched, ``bool [B]`` (another row's state
        stands in for one that is not finite), for what corrects the world model's predictions.
        """
        clock = self.budget.start()
        inputs = checked(samples, observation, seeds, self.action_spec)
        latent = self.world_model.encode(observation)
        encoded = clock.milliseconds
        alive = finite_rows(latent)
        if not every(alive):
            # No model is asked about a state that is not finite: another row's stands in, unheard.
            stand_in = int(alive.argmax())
            if not alive[stand_in]:
                decision = without_search(
                    inputs, self.action_spec, "fallback: the encoded state is not finite"
                )
                return replace(decision, milliseconds={"encode": encoded, "search": 0.0}), None
            latent = latent[np.where(alive, np.arange(alive.size), stand_in)]
        if not inputs.intact:
            alive = alive & inputs.whole
        inherited = None
        if inherit is not None:
            inherited = [tree if row else None for tree, row in zip(inherit(latent), alive, strict=True)]
        run = self.search(
            latent,
            observation.instruction,
            inputs.chunks,
            inputs.seeds,
            clock,
            alive,
            inherited,
            inputs.weights,
            None if correct is None else correct(latent, alive),
        )
        times: dict[str, float] = {}
        decision = self.decide(run, inputs, alive, times)
        times["encode"], times["search"] = encoded, clock.milliseconds - encoded
        return decision, run

    def search(
        self,
        latent: Latent,
        instruction: tuple[str, ...],
        samples: np.ndarray,
        seeds: np.ndarray,
        clock: Clock,
        alive: np.ndarray | None = None,
        inherited: Sequence[Subtree | None] | None = None,
        weights: np.ndarray | None = None,
        correct: Correct | None = None,
    ) -> Run:
        """Build the trees of B rows until the budget is spent; the arguments are those of ``waves``."""
        *_, run = self.waves(latent, instruction, samples, seeds, clock, alive, inherited, weights, correct)
        return run

    def waves(
        self,
        latent: Latent,
        instruction: tuple[str, ...],
        samples: np.ndarray,
        seeds: np.ndarray,
        clock: Clock,
        alive: np.ndarray | None = None,
        inherited: Sequence[Subtree | None] | None = None,
        weights: np.ndarray | None = None,
        correct: Correct | None = None,
    ) -> Iterator[Run]:
        """Build the trees of B rows from root latents ``[B, ...]`` and finite policy chunks ``[B, N, H, A]``.

        Yields the run, always the same object, after phase one and after every wave: ``decide`` may be called
        at any of these moments, and whoever has heard enough stops asking. Rows that are not ``alive``
        (``bool [B]``) are closed after phase one. Rows start with the subtrees that they ``inherit``.
        ``weights`` of the policy's chunks by their likelihoods, ``[B, N]``, reach the proposals. ``correct``
        has the last word on every prediction.
        """
        batch, (children, nodes, slots) = seeds.size, self._sizes
        tree, pool = Tree(batch, nodes, *samples.shape[2:]), LatentPool(latent, batch * slots)
        spent, disqualified = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        names = self.proposals.source_names
        root_rule, carry = self.root_rule or self._halving, self._carry(samples.shape[2])
        run = Run(tree, pool, samples, instruction, seeds, spent, disqualified, names, root_rule)
        run.weights, run.correct, run.carry = weights, correct, carry

        clock.wave_begins()
        roots = self._context(run, np.arange(batch), np.zeros(batch, np.int64), seeds)
        candidates = self._phase_one(run, roots, children, inherited)
        clock.wave_ends()
        close_roots(tree.nodes, np.ones(batch, np.bool_) if alive is None else alive)
        yield run

        run.walk = Walk.of(
            root_rule,
            self.inner_rule,
            self.widening,
            depth=self.depth,
            root_children=candidates,
            inner_children=self.inner_children,
            seeds=seeds,
            drawing=run.drawing or drawing(self.proposals, roots, self.inner_children),
        )
        simulations = clock.simulations
        while min(run.spent.tolist()) < simulations and clock.wave_begins():
            claims, drawn = self.simulate(run, simulations)
            if not len(claims):  # nothing is left that can be claimed
                return
            self.expand(run, drawn)
            self.backward(run, claims, self.evaluate(run, claims))
            clock.wave_ends()
            yield run

    def _phase_one(
        self, run: Run, roots: Context, children: int, inherited: Sequence[Subtree | None] | None
    ) -> int:
        """Draw the root's candidates and evaluate all of them in one batch, but for those inherited. How many
        they are."""
        tree, numbers = run.tree, run.pool.numbers
        new = None if inherited is not None else planted(self.proposals, roots, children, tree, numbers)
        if new is not None:
            claims, gathered, run.drawing = new
        else:
            proposed = propose(self.proposals, roots, children, keep_policy=True)
            nodes = tree.add_roots(proposed.chunks, proposed.source, proposed.prior)
            if inherited is not None:
                run.source_names = (*run.source_names, INHERITED)
                source = len(run.source_names) - 1
                closing = self.depth, self.inner_children, self.scoring.terminal
                graft(inherited, tree, run.pool, np.arange(nodes.start, nodes.stop), source, *closing)
            children = nodes.stop - nodes.start
            claims, gathered = claim_unknown(tree.nodes, tree.chunk, run.pool.numbers)
        run.gathered = claims, gathered
        if len(claims):
            self.backward(run, claims, self.evaluate(run, claims))
        return children

    def simulate(self, run: Run, simulations: int) -> tuple[np.ndarray, np.ndarray]:
        """Claim a wave of distinct leaves in each row, one after the other under virtual visits, as long as
        the row has spent fewer than ``simulations``.

        Returns the claims ``int64 [L, 2]``, row and node of each, and the children that were opened on the
        way and whose chunks are yet to be drawn, ``int64 [3, D]``: row, parent, and which of its children;
        none where the compiled walk draws them itself (see ``opening``). A leaf that is claimed, and a node
        below which all is claimed, is blocked for the rest of the wave, so nothing is evaluated twice. What
        the models need of the claims is gathered on the way, where nothing is yet to be drawn.
        """
        allowance = run.spent, simulations, int(self.wave)
        if run.walk is None:
            return self._array_form(run).simulate(run.tree, allowance)
        claims, drawn, gathered = run.walk(run.tree, run.pool.numbers, allowance)
        run.gathered = None if gathered is None else (claims, gathered)
        return claims, drawn

    def expand(self, run: Run, drawn: np.ndarray) -> None:
        """Draw the chunks of the children ``int64 [3, D]`` that were opened, all in one call."""
        if not drawn.size:
            return
        rows, parents, places = drawn[0], drawn[1], drawn[2]
        offered = draw(self.proposals, self._context(run, rows, parents), places, self.inner_children)
        chunks = np.ascontiguousarray(offered.chunks, np.float32)
        scatter(run.tree.nodes, run.tree.chunk, drawn, chunks, offered.source, offered.log_prior)

    def evaluate(self, run: Run, claims: np.ndarray) -> Evaluated:
        """Predict and score the claims ``int64 [L, 2]`` (distinct) in one call of each model."""
        pool, count = run.pool, len(claims)
        states, chunks = run.needed(claims)
        prediction = self.world_model.step(states, chunks)
        if run.correct is not None:
            prediction = run.correct(claims[:, 0], states, chunks, prediction)
        latent = prediction.latent
        first = pool.add(latent)
        if pool.used - first != count:
            raise ForethoughtError(
                f"The world model was asked about {count} states and predicted {pool.used - first}."
            )
        return first, prediction, self.reward_model.score(latent, run.instructions(claims[:, 0]))

    def backward(self, run: Run, claims: np.ndarray, evaluated: Evaluated) -> None:
        """Write what was said of the claims, turn the wave's virtual visits into visits, and carry the new
        values up, deepest parents first."""
        tree, (first, prediction, score) = run.tree, evaluated
        totals = run.spent, run.disqualified
        if run.carry is not None and type(self.scoring) is Scoring:
            latents, said = run.pool.numbers, self.scoring.said(prediction, score, len(claims))
            if not latents.size:
                value = np.where(finite_rows(prediction.latent), said[0], np.float32(np.nan))
                said = value, *said[1:]
            run.carry.settle(tree, claims, totals, first, latents, said)
            return
        seen = self.scoring.judge(prediction, score)
        judged = seen.own, seen.value, seen.done, seen.qualified, seen.ended, seen.spread, seen.disagreement
        settle(tree.nodes, claims, totals, first, judged, int(self.depth))
        carry = self._array_form(run).backward if run.carry is None else run.carry
        carry(tree, claims)

    def _array_form(self, run: Run) -> ArrayForm:
        """``simulate`` and ``backward`` under rules without a compiled form."""
        discount = self.scoring.discount ** run.samples.shape[2]
        below = self.inner_rule, self.widening, self.backup, self.depth, self.inner_children
        return ArrayForm(run.root_rule, *below, discount, run.seeds)

    @staticmethod
    def _context(run: Run, rows: np.ndarray, nodes: np.ndarray, seeds: np.ndarray | None = None) -> Context:
        return Context(
            run.samples,
            lambda: run.pool.take(run.tree.latent[rows, nodes]),
            lambda: run.instructions(rows),
            run.seeds[rows] if seeds is None else seeds,
            nodes,
            rows,
            run.memo,
            run.weights,
        )

    def decide(
        self, run: Run, inputs: Inputs, alive: np.ndarray, milliseconds: Mapping[str, float] | None = None
    ) -> Decision:
        """The decision as things stand, from a run at any moment between two waves; ``milliseconds`` are
        those of the decision."""
        tree, times = run.tree, {} if milliseconds is None else milliseconds
        decision = None
        if isinstance(self.decision, DecisionRule):
            known = tree.nodes, tree.chunk, alive, run.spent
            decision = self.decision.of_trees(*known, run.source_names, times)
        if decision is None:
            *known, prior = root_candidates(tree.nodes, tree.chunk, alive)
            chunks, source, value, spread, visits, closed = known
            root = RootStatistics(chunks, source, run.source_names, value, spread, visits, closed)
            choice = self.decision(root, self.action_spec)
            decision = with_candidates(choice, root, prior, run.spent, times)
        if not inputs.intact:
            # A policy chunk that is not finite leaves as it came: whoever guards the robot must see it.
            decision.chunk[~inputs.whole] = inputs.own[~inputs.whole]
        return decision
