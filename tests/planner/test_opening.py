"""Chunks that the compiled walk draws where it opens children: the same as when proposals are asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from planner_fakes import ARM, ArmWorld, FixedMemory, NearTarget, observe, policy_samples

from forethought.interfaces import ActionSamples, ForethoughtError
from forethought.planner import (
    Budget,
    DatasetKernels,
    KernelProposals,
    PolicyKernels,
    PolicySamples,
    RetrievedKernels,
    TreeSearch,
)
from forethought.planner.parallel import at_most

MEMORY = FixedMemory()
PROPOSALS = {
    "samples": PolicySamples(ARM),
    "policy": KernelProposals(ARM, (PolicyKernels(1.0, (0.1, 0.3)),), flip_probability=0.2),
    "dataset": KernelProposals(ARM, (DatasetKernels(MEMORY.all_chunks()),), temperature=5.0),
}
ASKED = {
    "two sources": KernelProposals(ARM, (PolicyKernels(), DatasetKernels(MEMORY.all_chunks()))),
    "the state": KernelProposals(ARM, (RetrievedKernels(MEMORY, 4),)),
}


@dataclasses.dataclass
class Asked:
    """The same proposals, of which compiled loops know nothing; counts what it is asked."""

    inner: KernelProposals | PolicySamples
    draws: int = 0

    @property
    def source_names(self):
        return self.inner.source_names

    def propose(self, context, count, *, keep_policy):
        return self.inner.propose(context, count, keep_policy=keep_policy)

    def draw(self, context, places):
        self.draws += places.size
        return self.inner.draw(context, places)


def grown(proposals, rows=3, log_probability=False, inner_children=5, world=None, search=TreeSearch):
    planner = search(
        world or ArmWorld(),
        NearTarget(),
        proposals,
        ARM,
        budget=Budget(simulations=90),
        children=6,
        inner_children=inner_children,
        depth=3,
        wave=16,
    )
    samples, given = policy_samples(ARM, rows, 6, 8), None
    if log_probability:
        given = np.random.default_rng(1).normal(size=samples.chunks.shape[:2]).astype(np.float32)
    asked = ActionSamples(samples.chunks, given)
    _, run = planner.imagine(observe(np.zeros((rows, 7))), asked, 40 + np.arange(rows))
    return run


def assert_same(one, other) -> None:
    known = one.tree.known()
    np.testing.assert_array_equal(known, other.tree.known())
    for name in ("visits", "value", "prior", "log_prior", "source", "chunk"):
        ours, theirs = getattr(one.tree, name), getattr(other.tree, name)
        np.testing.assert_array_equal(ours[known], theirs[known], err_msg=name)


@pytest.mark.parametrize("log_probability", [False, True])
@pytest.mark.parametrize("name", PROPOSALS)
def test_the_walk_draws_what_the_proposals_would(name, log_probability):
    asked = Asked(PROPOSALS[name])
    assert_same(grown(PROPOSALS[name], 3, log_probability), grown(asked, 3, log_probability))
    assert asked.draws > 50


@pytest.mark.parametrize("name", PROPOSALS)
def test_threads_change_nothing(name):
    with at_most(1):
        one = grown(PROPOSALS[name], rows=12)
    with at_most(3):
        assert_same(one, grown(PROPOSALS[name], rows=12))


@pytest.mark.parametrize("name", ASKED)
def test_what_depends_on_more_is_asked(name):
    asked = Asked(ASKED[name])
    assert_same(grown(ASKED[name]), grown(asked))
    assert asked.draws > 50


def test_a_subclass_that_draws_otherwise_is_asked():
    class Middle(KernelProposals):
        """Opens the policy's own chunk, every time."""

        def draw(self, context, places):
            drawn = super().draw(context, places)
            return dataclasses.replace(drawn, chunks=context.samples[:, 0].copy())

    run = grown(Middle(ARM))
    below = run.tree.known() & (run.tree.depth > 1)
    rows = np.nonzero(below)[0]
    assert rows.size > 50
    np.testing.assert_array_equal(run.tree.chunk[below], run.samples[rows, 0])


def test_a_subclass_that_proposes_otherwise_is_asked():
    class Still(KernelProposals):
        """Offers the root the policy's own chunk, every time."""

        def propose(self, context, count, *, keep_policy):
            proposed = super().propose(context, count, keep_policy=keep_policy)
            return dataclasses.replace(proposed, chunks=np.repeat(proposed.chunks[:, :1], count, axis=1))

    run = grown(Still(ARM))
    np.testing.assert_array_equal(run.tree.chunk[:, 1:7], np.repeat(run.tree.chunk[:, 1:2], 6, axis=1))


def test_whoever_evaluates_claims_again_gathers_them_again():
    class Careless(ArmWorld):
        """Writes to what it is given."""

        def step(self, latent, chunks):
            prediction = super().step(latent.copy(), chunks.copy())
            latent[:], chunks[:] = np.nan, np.nan
            return prediction

    class Twice(TreeSearch):
        def evaluate(self, run, claims):
            super().evaluate(run, claims)
            return super().evaluate(run, claims)

    once, twice = grown(PROPOSALS["policy"]), grown(PROPOSALS["policy"], world=Careless(), search=Twice)
    assert_same(once, twice)


def test_samples_that_run_out_are_missed_where_they_are_asked_for():
    with pytest.raises(ForethoughtError, match="must offer inner_children=8 chunks; got 6"):
        grown(PROPOSALS["samples"], inner_children=10)
