"""Decisions put to the test: every candidate carried out in the simulator, and followed to the end.

At some moments of an episode the planner decides; then each candidate is executed from the same snapshot and
the policy alone goes on from where it leads. What came of it is the truth that the candidates' imagined
values are compared with. Some candidates are wider than the planner's own: only they can show that its
proposals are too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...interfaces import (
    ActionSamples,
    Decision,
    ForethoughtError,
    Latent,
    Observation,
    Planner,
    Policy,
    RewardModel,
    WorldModel,
)
from ...planner import Context
from ...planner.mixtures import kernel_proposals
from ..evaluation.seeds import decision_seed, episode_seed

POLICY, OWN, WIDE, BIGGER = range(4)
"""Kinds of candidates: the policy's chunk, the planner's further candidates, wider ones, and what the planner
chooses with a larger budget."""

WIDE_BANDWIDTHS = (0.02, 0.1, 0.3)
"""The first leaves what the memory offers as it is."""


@dataclass(frozen=True)
class Trial:
    """What is tried.

    Attributes:
        decisions: Decisions put to the test in all.
        per_episode: Of one episode, spread over it.
        candidates: Of the planner's own, the policy's chunk and the chosen one among them.
        wide: Wider ones.
        rollouts: Times that each is followed to the end, with other seeds of the policy.
        samples: Chunks asked of the policy for a decision.
        discount: γ per control step of what a success is worth.
        pessimism: λ on the value's spread, as the planner has it.
        seed: Of everything.
    """

    decisions: int = 16
    per_episode: int = 3
    candidates: int = 6
    wide: int = 6
    rollouts: int = 2
    samples: int = 8
    discount: float = 0.99
    pessimism: float = 1.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Tried:
    """D decisions with C candidates each.

    Attributes:
        kind: ``int64 [C]``, one of POLICY, OWN, WIDE, BIGGER; the same for all decisions.
        returns: γ^steps where the episode succeeded, 0 where it did not, ``float64 [D, C, R]``.
        imagined: Value of the predicted next state, ``float64 [D, C]``.
        seen: Value of the true next state as the encoder sees it, ``float64 [D, C]``.
        exact: Value of the true next state as the simulator knows it, ``float64 [D, C]``; NaN where the
            models cannot read that.
        chosen: The candidate that the planner chose, ``int64 [D]``.
        spread: Standard deviation of the planner's own candidates, units of half the range of the bounds,
            mean over steps and continuous numbers, ``float64 [D]``.
    """

    kind: np.ndarray
    returns: np.ndarray
    imagined: np.ndarray
    seen: np.ndarray
    exact: np.ndarray
    chosen: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, eq=False)
class Parts:
    """What decides. ``memory`` serves the wider candidates, whether the planner uses it or not; ``bigger`` is
    the planner with a larger budget, or None."""

    policy: Policy
    planner: Planner
    world_model: WorldModel
    reward: RewardModel
    memory: Any = None
    bigger: Planner | None = None


def try_decisions(
    make: Callable[[int], Any],
    tasks: Sequence[Any],
    init_states: Sequence[int],
    parts: Parts,
    trial: Trial,
    report: Callable[[int], None] = lambda count: None,
) -> Tried:
    """Plays episodes with the planner and tests decisions of them.

    Args:
        make: From a task's id to an environment (see ``benchmarks.base.Environment``).
        tasks: Tasks, taken in turn.
        init_states: Initial states, taken in turn.
        parts: Policy, planner and models.
        trial: What is tried.
        report: Told how many decisions are done.

    Raises:
        ForethoughtError: No decision could be tested.
    """
    rows: list[_Row] = []
    round_, environment = 0, None
    order = [(task, state) for state in init_states for task in tasks]
    try:
        while len(rows) < trial.decisions and round_ < 4 * len(order):
            task, state = order[round_ % len(order)]
            if environment is None or environment.task.id != task.id:
                if environment is not None:
                    environment.close()
                environment = make(task.id)
            for row in _episode(environment, state, round_ // len(order), parts, trial):
                rows.append(row)
                report(len(rows))
                if len(rows) == trial.decisions:
                    break
            round_ += 1
    finally:
        if environment is not None:
            environment.close()
    if not rows:
        raise ForethoughtError(
            "No decision of the planner could be tested: it fell back to the policy everywhere. "
            "`forethought eval` shows why."
        )
    return Tried(
        kind=rows[0].kind,
        returns=np.stack([row.returns for row in rows]),
        imagined=np.stack([row.imagined for row in rows]),
        seen=np.stack([row.seen for row in rows]),
        exact=np.stack([row.exact for row in rows]),
        chosen=np.array([row.chosen for row in rows]),
        spread=np.array([row.spread for row in rows]),
    )


@dataclass(frozen=True, eq=False)
class _Row:
    kind: np.ndarray
    returns: np.ndarray
    imagined: np.ndarray
    seen: np.ndarray
    exact: np.ndarray
    chosen: int
    spread: float


def _episode(environment: Any, state: int, again: int, parts: Parts, trial: Trial) -> Any:
    """Plays an episode and yields the decisions that it tests, so that whoever has enough stops it."""
    attach = getattr(parts.world_model, "attach", None)
    if callable(attach):
        attach(environment)
    for part in (parts.policy, parts.planner):
        reset = getattr(part, "reset", None)
        if callable(reset):
            reset()
    seed = episode_seed(trial.seed + again, "diagnose", environment.task.name, state)
    observation, _ = environment.reset(options={"init_state": state})
    most = max(-(-environment.task.step_limit // parts.policy.horizon), 1)
    generator = np.random.default_rng(seed)
    due = set(generator.choice(most, min(trial.per_episode, most), replace=False).tolist())
    over, index = False, 0
    while not over:
        if index:
            observation = environment.observe()
        seeds = np.array([decision_seed(seed, index)], np.int64)
        samples = parts.policy.propose(observation, trial.samples, seeds)
        decision = parts.planner.plan(observation, samples, seeds)
        if index in due and not decision.fallback[0] and decision.candidates is not None:
            yield _test(environment, observation, samples, decision, seeds, parts, trial)
        outcome = environment.execute(decision.chunk[0])
        over = bool(outcome.success or outcome.truncated)
        index += 1


def _test(
    environment: Any,
    observation: Observation,
    samples: ActionSamples,
    decision: Decision,
    seeds: np.ndarray,
    parts: Parts,
    trial: Trial,
) -> _Row:
    assert decision.candidates is not None
    latent = parts.world_model.encode(observation)
    generator = np.random.default_rng([int(seeds[0]), 11])
    every = decision.candidates.chunks[0]
    slots = _slots(len(every), int(decision.slot[0]), trial.candidates, generator)
    chunks = [every[slots], _wider(observation, latent, samples, seeds, parts, trial)]
    kind = [POLICY] + [OWN] * (len(slots) - 1) + [WIDE] * len(chunks[1])
    if parts.bigger is not None:
        chunks.append(parts.bigger.plan(observation, samples, seeds).chunk)
        kind.append(BIGGER)
    tried = np.concatenate(chunks).astype(np.float32)
    home = environment.save()
    returns = np.zeros((len(tried), trial.rollouts))
    seen, exact = np.zeros(len(tried)), np.full(len(tried), np.nan)
    try:
        for index, chunk in enumerate(tried):
            environment.restore(home)
            first = environment.execute(chunk)
            if first.success:
                seen[index] = exact[index] = 1.0
                returns[index] = trial.discount**first.steps
                continue
            after = environment.save()
            there = environment.observe()
            seen[index] = _worth(parts, parts.world_model.encode(there), there.instruction, trial)[0]
            exact[index] = _exactly(environment, parts, there, trial)
            for rollout in range(trial.rollouts):
                environment.restore(after)
                returns[index, rollout] = _follow(
                    environment, parts.policy, trial, first.steps, int(seeds[0]), rollout, first.truncated
                )
    finally:
        environment.restore(home)
    many = latent[np.zeros(len(tried), np.int64)]
    prediction = parts.world_model.step(many, tried)
    imagined = _worth(parts, prediction.latent, observation.instruction * len(tried), trial)
    done = np.asarray(prediction.done, np.float64)
    spec = parts.policy.action_spec
    reach = (0.5 * (spec.high - spec.low))[list(spec.continuous)]
    apart = every[..., list(spec.continuous)].std(axis=0) / reach
    return _Row(
        kind=np.array(kind),
        returns=returns,
        imagined=done + (1 - done) * imagined,
        seen=seen,
        exact=exact,
        chosen=int(np.flatnonzero(slots == int(decision.slot[0]))[0]),
        spread=float(apart.mean()),
    )


def _slots(count: int, chosen: int, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """The policy's slot, the chosen one, and others at random; the policy's first."""
    kept = list(dict.fromkeys([0, chosen]))
    others = generator.permutation([slot for slot in range(count) if slot not in kept])
    wanted = min(max(wanted, 2), count)
    return np.array([*kept, *others[: wanted - len(kept)].tolist()])


def _wider(
    observation: Observation,
    latent: Latent,
    samples: ActionSamples,
    seeds: np.ndarray,
    parts: Parts,
    trial: Trial,
) -> np.ndarray:
    """Chunks far from the policy's, and those of the memory where there is one: ``[W, H, A]``."""
    spec = parts.policy.action_spec
    proposals = kernel_proposals(
        spec,
        parts.memory or None,
        bandwidths=WIDE_BANDWIDTHS,
        flip_probability=0.1,
        primitive_share=0.25 if spec.position else 0.0,
        primitive_reach=1.0,
    )
    context = Context(
        samples=samples.chunks,
        latent=latent,
        instruction=observation.instruction,
        seeds=seeds + 1,
        nodes=np.zeros(1, np.int64),
    )
    return proposals.propose(context, trial.wide, keep_policy=False).chunks[0]


def _worth(parts: Parts, latent: Latent, instruction: Sequence[str], trial: Trial) -> np.ndarray:
    score = parts.reward.score(latent, instruction)
    return np.asarray(score.value, np.float64) - trial.pessimism * np.asarray(score.spread, np.float64)


def _exactly(environment: Any, parts: Parts, there: Observation, trial: Trial) -> float:
    """Value of the state that the simulator is in, past the encoder; NaN where the models cannot read it."""
    embed: Any = getattr(parts.world_model, "embed_state", None)
    if embed is None or not getattr(parts.world_model, "reads_states", False):
        return float("nan")
    state: Any = embed(there.proprioception, environment.privileged_state()[None], there.instruction)
    particles: Any = getattr(parts.world_model, "particles", None)
    if callable(particles):
        import torch

        state = particles(torch.from_numpy(state))
    return float(_worth(parts, state, there.instruction, trial)[0])


def _follow(
    environment: Any, policy: Policy, trial: Trial, steps: int, seed: int, rollout: int, over: bool
) -> float:
    """What the policy alone makes of the present state: γ^steps, the steps before it included, or 0."""
    index = 0
    reset = getattr(policy, "reset", None)
    if callable(reset):
        reset()
    while not over:
        seeds = np.array([decision_seed(seed + 1 + rollout, index)], np.int64)
        outcome = environment.execute(policy.propose(environment.observe(), 1, seeds).chunks[0, 0])
        steps += outcome.steps
        if outcome.success:
            return trial.discount**steps
        over, index = bool(outcome.truncated), index + 1
    return 0.0


def only(tested: Tried, decisions: np.ndarray) -> Tried:
    """Some of the decisions, by index."""
    names = ("returns", "imagined", "seen", "exact", "chosen", "spread")
    return replace(tested, **{name: getattr(tested, name)[decisions] for name in names})
