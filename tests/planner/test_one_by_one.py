"""Candidates drawn one at a time: which they are, how likely, and that nothing else matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planner_fakes import (
    ARM,
    ArmWorld,
    EveryAction,
    FixedMemory,
    NearTarget,
    action_set,
    observe,
    policy_samples,
)
from scipy import stats

from forethought.interfaces import ForethoughtError
from forethought.planner import (
    AveragedKernels,
    AveragedPolicyKernels,
    Budget,
    Context,
    DatasetKernels,
    KernelProposals,
    OneByOne,
    PolicyKernels,
    PolicySamples,
    PrimitiveKernels,
    RetrievedKernels,
    TreeSearch,
)
from forethought.planner.drawing import normal, pick
from forethought.planner.noise import uniforms
from forethought.planner.parallel import at_most, split, threads
from forethought.planner.sources import varies_with

MEMORY = FixedMemory()
SOURCES = {
    "policy": PolicyKernels(1.0, (0.1, 0.3)),
    "retrieved": RetrievedKernels(MEMORY, 5, 2.0, (0.2,)),
    "averaged": AveragedKernels(ARM, MEMORY, (2, 4), 1.0, (0.1,)),
    "policy_averaged": AveragedPolicyKernels(ARM, (2, 4), 1.0, (0.1,)),
    "dataset": DatasetKernels(MEMORY.all_chunks(), 1.0, (0.15,)),
    "primitives": PrimitiveKernels(ARM, share=0.5),
}


def asked(nodes, rows=None, trees=3, seed=2, memo=None) -> Context:
    nodes = np.asarray(nodes, np.int64)
    rows = np.zeros(len(nodes), np.int64) if rows is None else np.asarray(rows, np.int64)
    state = np.random.default_rng(9).uniform(-0.5, 0.5, (trees, 100, 7))
    return Context(
        policy_samples(ARM, trees, 5, 8, seed).chunks,
        lambda: state[rows, nodes],
        lambda: ["task"] * len(rows),
        np.arange(trees)[rows] + 40,
        nodes,
        rows,
        memo,
    )


@pytest.mark.parametrize("names", [["policy"], ["retrieved"], ["policy", "averaged"], list(SOURCES)])
def test_a_candidate_is_the_same_whatever_else_is_drawn(names):
    mixture = KernelProposals(ARM, tuple(SOURCES[name] for name in names))
    nodes, rows, places = [3, 7, 3, 9, 7], [0, 1, 0, 2, 1], np.array([0, 0, 1, 4, 2])
    together = mixture.draw(asked(nodes, rows), places)
    memo: dict = {}
    for i in range(5):
        for kept in (memo, None):
            alone = mixture.draw(asked(nodes[i : i + 1], rows[i : i + 1], memo=kept), places[i : i + 1])
            np.testing.assert_array_equal(alone.chunks[0], together.chunks[i])
            assert alone.source[0] == together.source[i]
            assert alone.log_prior[0] == together.log_prior[i]


def test_threads_change_nothing():
    mixture = KernelProposals(ARM, (SOURCES["policy"], SOURCES["averaged"]))
    nodes, rows = np.arange(900) % 97, np.arange(900) % 3
    places = np.arange(900) // 97
    with at_most(1):
        one = mixture.draw(asked(nodes, rows), places)
    with at_most(4):
        many = mixture.draw(asked(nodes, rows), places)
    np.testing.assert_array_equal(one.chunks, many.chunks)
    np.testing.assert_array_equal(one.log_prior, many.log_prior)


@pytest.mark.parametrize("names", [["policy"], ["dataset"], ["policy", "averaged"], list(SOURCES)])
@pytest.mark.parametrize("temperature", [None, 3.0])
def test_the_prior_is_the_density_of_the_mixture(names, temperature):
    mixture = KernelProposals(ARM, tuple(SOURCES[name] for name in names), temperature=temperature)
    context = asked(np.arange(12), np.arange(12) % 3)
    drawn = mixture.draw(context, np.arange(12) % 4)
    density = mixture.log_density(context, drawn.chunks[:, None])[:, 0]
    np.testing.assert_allclose(drawn.log_prior * (temperature or 48), density, rtol=1e-12)


def test_any_first_few_of_a_node_come_from_the_sources_by_their_shares():
    mixture = KernelProposals(ARM, (SOURCES["policy"], SOURCES["retrieved"]))  # shares 1 and 2
    nodes = np.arange(100)
    for place in range(4):
        drawn = mixture.draw(asked(nodes, trees=1), np.full(100, place))
        assert abs((drawn.source == 2).mean() - 2 / 3) < 0.15
    first = np.stack([mixture.draw(asked(nodes, trees=1), np.full(100, k)).source for k in range(6)], axis=1)
    counts = (first == 2).sum(axis=1)
    assert counts.min() >= 3  # systematic: within one of 4; independent draws would leave some nodes with 1
    assert counts.max() <= 5


def test_candidates_spread_over_the_kernels_of_a_node():
    narrow = KernelProposals(ARM, (PolicyKernels(1.0, (1e-4,)),), flip_probability=0.0)
    context = asked(np.full(5, 11))
    chunks = narrow.draw(context, np.arange(5)).chunks
    distance = np.abs(chunks[:, None] - context.policy[0][None]).max(axis=(2, 3))
    assert len(set(distance.argmin(axis=1).tolist())) >= 4  # of five samples


def test_the_first_places_are_fair_wherever_the_circle_begins():
    seeds, nodes = np.arange(4000), np.zeros(4000, np.int64)
    shares = np.array([0.3, 1.0])
    for place in (0, 1, 5):
        source, where, _ = pick(seeds, nodes, np.full(4000, place), shares)
        assert abs((source == 0).mean() - 0.3) < 0.03
        assert stats.kstest(where[source == 1], "uniform").pvalue > 1e-3


def test_the_noise_is_normal_to_the_last_digits():
    """Against the formula in NumPy on the same uniform numbers, and against the distribution."""
    found, expected = [], []
    for key in range(400):
        cosine, sine, scratch = np.empty(24), np.empty(24), np.empty(24)
        normal(np.uint64(key * 7919), cosine, sine, scratch)
        u = uniforms(np.array([key * 7919], np.uint64), 48)[0]
        radius = np.sqrt(-2.0 * np.log(u[:24]))
        found.append(np.concatenate([cosine, sine]))
        expected.append(
            np.concatenate([radius * np.cos(2 * np.pi * u[24:]), radius * np.sin(2 * np.pi * u[24:])])
        )
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-14)
    assert stats.kstest(np.ravel(found), "norm").pvalue > 1e-3


def test_the_kernels_of_a_state_are_looked_up_once():
    memory = FixedMemory()
    mixture = KernelProposals(ARM, (RetrievedKernels(memory, 3),))
    memo: dict = {}
    for place in range(3):
        mixture.draw(asked([4, 5, 4], memo=memo), np.array([place, place, 9]))
    mixture.draw(asked([6, 4], memo=memo), np.array([0, 7]))
    assert memory.asked == [2, 1]


def test_sources_say_what_they_vary_with():
    found = {name: varies_with(source) for name, source in SOURCES.items()}
    assert found == {
        "policy": "tree",
        "retrieved": "node",
        "averaged": "node",
        "policy_averaged": "tree",
        "dataset": "nothing",
        "primitives": "tree",
    }


def test_a_source_that_says_it_varies_with_the_tree_may_not_read_the_state():
    class Lying(RetrievedKernels):
        varies_with = "tree"

    with pytest.raises(ForethoughtError, match='varies_with be "node"'):
        KernelProposals(ARM, (Lying(MEMORY, 3),)).draw(asked([1]), np.array([0]))


def test_a_source_may_offer_all_trees_the_same():
    class Same(PolicyKernels):
        def centres(self, context):
            return context.samples[:1]

    class Each(PolicyKernels):
        def centres(self, context):
            return np.repeat(context.samples[:1], len(context.samples), axis=0)

    nodes, places = asked([1, 2, 3], rows=[0, 1, 2]), np.array([4, 5, 6])
    once, each = (KernelProposals(ARM, (source,)).draw(nodes, places) for source in (Same(), Each()))
    np.testing.assert_array_equal(once.chunks, each.chunks)
    np.testing.assert_array_equal(once.log_prior, each.log_prior)


def test_more_places_than_samples_are_refused():
    with pytest.raises(ForethoughtError, match="Lower inner_children"):
        PolicySamples(ARM).draw(asked([1]), np.array([5]))


def test_proposals_that_cannot_draw_singly_still_serve_a_tree():
    """They are asked for all candidates of a node, of which the tree takes the next."""
    offers = EveryAction(ARM.clip(np.random.default_rng(0).uniform(-1, 1, (6, 8, 7)).astype(np.float32)))
    assert not isinstance(offers, OneByOne)
    assert isinstance(KernelProposals(ARM), OneByOne)
    search = TreeSearch(
        ArmWorld(), NearTarget(), offers, ARM, Budget(simulations=80), children=6, inner_children=6, depth=3
    )
    samples = policy_samples(ARM, 2, 1, 8)
    run = search.search(np.zeros((2, 7)), ("a", "b"), samples.chunks, np.arange(2), search.budget.start())
    tree = run.tree
    for row, known in enumerate(tree.known()):
        for node in np.flatnonzero(known & (tree.first_child[row] > 1)):
            first, count = int(tree.first_child[row, node]), int(tree.child_count[row, node])
            np.testing.assert_array_equal(tree.chunk[row, first : first + count], offers.chunks[:count])
            np.testing.assert_allclose(tree.prior[row, first : first + count], 1.0 / count)
    assert (run.spent == 80).all()
    with pytest.raises(ForethoughtError, match="Lower inner_children"):
        plan_with(EveryAction(offers.chunks[:1]))


def plan_with(proposals):
    search = TreeSearch(ArmWorld(), NearTarget(), proposals, ARM, Budget(simulations=20), children=4, depth=2)
    return search.plan(observe(np.zeros((1, 7))), policy_samples(ARM, 1, 1, 8), np.zeros(1, np.int64))


def test_proposals_of_other_shapes_are_refused_before_compiled_loops_read_them():
    fine = ARM.clip(np.random.default_rng(0).uniform(-1, 1, (16, 8, 7)).astype(np.float32))
    plan_with(EveryAction(fine))
    with pytest.raises(
        ForethoughtError, match=r"EveryAction must offer chunks \[1, 1 to 4, 8, 7\].*\[1, 1, 1, 1\]"
    ):
        plan_with(EveryAction(action_set([0.0])))
    with pytest.raises(ForethoughtError, match="got shape"):
        plan_with(EveryAction(fine[:, :4]))

    class Changed(KernelProposals):
        def propose(self, context, count, *, keep_policy):
            return replace(super().propose(context, count, keep_policy=keep_policy), **at_root)

        def draw(self, context, places):
            return replace(super().draw(context, places), **below)

    at_root, below = {}, {}
    plan_with(Changed(ARM))
    at_root = {"prior": np.ones((1, 3))}
    with pytest.raises(ForethoughtError, match="a prior for each chunk"):
        plan_with(Changed(ARM))
    at_root = {"chunks": np.zeros((1, 0, 8, 7), np.float32)}
    with pytest.raises(ForethoughtError, match="1 to 4"):
        plan_with(Changed(ARM))
    at_root, below = {}, {"chunks": np.zeros((0, 8, 7), np.float32)}
    with pytest.raises(ForethoughtError, match="one for each node"):
        plan_with(Changed(ARM))
    below = {"log_prior": np.zeros(0)}
    with pytest.raises(ForethoughtError, match="a log_prior for each chunk"):
        plan_with(Changed(ARM))


def test_a_loop_is_shared_by_as_many_threads_as_it_may_have(monkeypatch):
    def pieces(count):
        return split(lambda start, stop: (start, stop), count, 10)

    with at_most(3):
        assert pieces(35) == [(0, 11), (11, 23), (23, 35)]
        assert pieces(20) == [(0, 10), (10, 20)]
        assert pieces(19) == [(0, 19)]
        with at_most(1):
            assert pieces(100) == [(0, 100)]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "4,1")
    assert threads() >= 1
