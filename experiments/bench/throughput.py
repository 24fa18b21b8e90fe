"""Simulations per second, where the time goes, and what a node weighs."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...planner import Budget, KernelProposals, PolicyKernels, PolicySamples, TreeSearch
from ...planner.parallel import at_most
from ...planner.search import Run
from .peer import Peer
from .problem import ARM, CLOCKS, NETWORKS, Question, Sizes, Stopwatch, question, timed

PROPOSALS: dict[str, Callable[[], KernelProposals | PolicySamples]] = {
    "shared": lambda: PolicySamples(ARM),
    "sampled": lambda: KernelProposals(ARM, (PolicyKernels(bandwidths=(0.08,)),), flip_probability=0.0),
}
"""Where a node's chunks come from: the same for all nodes of a decision, or each node's own."""

DEPTH = 8
"""Longest sequence of chunks. mctx has no limit by default; at 4,096 simulations trees rarely get deeper."""


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        actions: ``shared`` or ``sampled``, a name of ``PROPOSALS``.
        batch: Trees side by side.
        simulations: Of one decision and row.
        wave: Leaves of a row that are evaluated together; None for the peer, which has no waves.
        network: A name of ``NETWORKS``; None for the peer, whose networks are XLA's.
        threads: Of the networks.
    """

    actions: str
    batch: int
    simulations: int
    wave: int | None
    threads: int
    network: str | None = "numpy"


@dataclass
class Measured:
    """What was found for a setting.

    Attributes:
        seconds: Of a decision, for each that counts.
        evaluated: Distinct evaluations of a decision, all rows together.
        parts: Share of the time by part, for each round.
    """

    seconds: list[float] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)

    def rate(self) -> float:
        """Median of distinct evaluations per second."""
        return statistics.median(n / max(s, 1e-9) for n, s in zip(self.evaluated, self.seconds))

    def shares(self) -> dict[str, float]:
        """Share of the time by part: medians over rounds, and the tree what they leave. Each round has its
        own whole: a machine that is slower in some does not set one's seconds against another's."""
        if not self.parts:
            return {}
        found = {name: statistics.median(part[name] for part in self.parts) for name in self.parts[0]}
        return {**found, "tree": 1.0 - sum(share for name, share in found.items() if name != "tree")}


def grid(
    actions: Sequence[str],
    batch: Sequence[int],
    simulations: Sequence[int],
    wave: Sequence[int],
    threads: Sequence[int],
    networks: Sequence[str],
    with_peer: bool,
) -> list[Setting]:
    """All settings; the peer's have neither wave nor network of ours."""
    kinds: list[tuple[int | None, str | None]] = [(None, None)] if with_peer else []
    kinds += list(itertools.product(wave, networks))
    cells = itertools.product(threads, actions, batch, simulations, kinds)
    return [Setting(a, b, n, w, t, net) for t, a, b, n, (w, net) in cells]


IN_A_ROW = 3
"""Decisions of a setting that count when it is its turn; one goes before them, which finds the caches full of
another's data."""

LONG = 2.0
"""Seconds from which a decision hardly notices that, so that the one counts and is enough."""


def search(setting: Setting, sizes: Sizes, device: str = "cpu") -> TreeSearch:
    """The planner that a setting describes, with random weights."""
    assert setting.wave is not None and setting.network is not None
    world, value = NETWORKS[setting.network]
    return TreeSearch(
        world(sizes, device),
        value(sizes, device),
        PROPOSALS[setting.actions](),
        ARM,
        budget=Budget(simulations=setting.simulations),
        children=sizes.actions,
        inner_children=sizes.actions,
        depth=DEPTH,
        wave=setting.wave,
    )


class Ours:
    """A setting of ours, on the clock."""

    def __init__(
        self, setting: Setting, sizes: Sizes, question: Question, now: Callable[[], float], device: str
    ) -> None:
        self._watch, self._question, self._now = Stopwatch(now), question, now
        self._planner = search(setting, sizes, device)
        self._timed = timed(self._planner, self._watch)

    def __call__(self, seed: int) -> tuple[float, int]:
        """Makes a decision: seconds, and distinct evaluations."""
        return self._decide(self._planner, seed)

    def parts(self, seed: int) -> dict[str, float]:
        """Makes a decision that notes where its time goes, which takes time itself: seconds by part."""
        self._watch.reset()
        self._decide(self._timed, seed)
        return dict(self._watch.seconds)

    def _decide(self, planner: TreeSearch, seed: int) -> tuple[float, int]:
        asked, start = self._question, self._now()
        decision = planner.plan(asked.observation, asked.samples, asked.seeds + seed)
        return self._now() - start, int(decision.simulations.sum())


def measure(
    settings: Sequence[Setting],
    *,
    sizes: Sizes,
    repeats: int,
    seconds: float,
    clock: str,
    peer: Peer | None = None,
    device: str = "cpu",
) -> Iterator[tuple[Setting, Measured]]:
    """Measures settings in rounds, a few decisions of each in turn, so that whatever else the machine does
    meets all of them alike. Settings of one cell (all waves, and the peer) go round together.

    A cell ends after ``repeats`` rounds, or after 3 once it has taken ``seconds``. The first round is not
    counted.
    """
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    try:
        for _, group in itertools.groupby(settings, lambda s: (s.threads, s.actions, s.batch, s.simulations)):
            cell = list(group)
            torch.set_num_threads(cell[0].threads)
            threadpool_limits(1, "blas")  # torch has threads of its own, and NumpyMlp shares rows
            asked = question(sizes, cell[0].batch)
            ours = {s: Ours(s, sizes, asked, CLOCKS[clock], device) for s in cell if s.wave is not None}
            found = {s: Measured() for s in cell}
            taken = 0.0
            with at_most(cell[0].threads):
                for number in range(-1, repeats):
                    for setting in cell:
                        decide = ours.get(setting) or functools.partial(_ask, peer, setting, sizes)
                        seed = number * (IN_A_ROW + 1)
                        first = decide(seed)
                        counted = [first]
                        if first[0] < LONG:
                            counted = [decide(seed + 1 + again) for again in range(IN_A_ROW)]
                        taken += sum(took for took, _ in counted)
                        if number >= 0:
                            found[setting].seconds += [took for took, _ in counted]
                            found[setting].evaluated += [evaluated for _, evaluated in counted]
                        if number >= 0 and setting in ours:
                            # Of decisions that noted nothing: noting is no part of a search.
                            whole = statistics.median(took for took, _ in counted)
                            found[setting].parts.append(shares(ours[setting].parts(seed), whole))
                    if number >= 2 and taken > seconds:
                        break
            yield from found.items()
    finally:
        torch.set_num_threads(before)
        threadpool_limits(before, "blas")


def _ask(peer: Peer | None, setting: Setting, sizes: Sizes, seed: int) -> tuple[float, int]:
    assert peer is not None
    return peer.ask(setting, sizes)


def shares(seconds: dict[str, float], whole: float) -> dict[str, float]:
    """Shares of the whole: the networks, encoding included; the gather (latents and chunks from the nodes,
    latents to the pool); sampling of proposals with their densities, as far as they are asked (the compiled
    walk draws most below the root itself); and the tree, which is the rest."""
    network, sampling = seconds.get("network", 0.0), seconds.get("sampling", 0.0)
    gather = seconds.get("evaluate", 0.0) - network
    network += seconds.get("encode", 0.0)
    whole = max(whole, network + gather + sampling, 1e-9)
    tree = whole - network - gather - sampling
    named = {"network": network, "gather": gather, "sampling": sampling, "tree": tree}
    return {name: part / whole for name, part in named.items()}


def memory(setting: Setting, sizes: Sizes) -> dict[str, float]:
    """Bytes of one node, of one evaluated latent, and of all that a decision keeps per simulation."""
    planner = search(setting, sizes)
    asked = question(sizes, setting.batch)
    run = planner.search(
        planner.world_model.encode(asked.observation),
        asked.observation.instruction,
        asked.samples.chunks,
        asked.seeds,
        planner.budget.start(),
    )
    return weigh(run)


def weigh(run: Run) -> dict[str, float]:
    """What the arrays of a finished search take."""
    tree, latent = run.tree, run.pool.take(np.zeros(1, np.int64))
    node = (tree.nodes.nbytes + tree.chunk.nbytes) / tree.nodes.size
    of_latent = float(torch.as_tensor(latent).nbytes)
    used, spent = int(tree.size.sum()), int(run.spent.sum())
    return {
        "node_bytes": node,
        "latent_bytes": of_latent,
        "nodes_per_simulation": used / spent,
        "bytes_per_simulation": node * used / spent + of_latent,
    }


def linearity(rows: Sequence[dict[str, Any]]) -> float | None:
    """Time per simulation at the largest number of simulations over that at the smallest but one, worst over
    the settings that only differ in it; 1 is linear, None when there is nothing to compare."""
    worst: float | None = None
    own = [row for row in rows if row["wave"] is not None]
    for row in own:
        same = [
            r for r in own if all(r[k] == row[k] for k in ("actions", "batch", "wave", "threads", "network"))
        ]
        same.sort(key=lambda r: r["simulations"])
        if len(same) < 2:
            continue
        ratio = same[min(1, len(same) - 2)]["per_second"] / same[-1]["per_second"]
        worst = ratio if worst is None else max(worst, ratio)
    return worst
