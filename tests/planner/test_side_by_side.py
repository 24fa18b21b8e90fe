"""Loops over many trees that several threads share: the same trees to the bit; no threads where these would
end the process."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from planner_fakes import (
    ARM,
    ArmWorld,
    FixedMemory,
    FunctionReward,
    FunctionWorld,
    NearTarget,
    observe,
    policy_samples,
)

from forethought.planner import (
    Budget,
    DatasetKernels,
    KernelProposals,
    PolicyKernels,
    PolicySamples,
    TreeSearch,
    parallel,
)
from forethought.planner.parallel import at_most, side_by_side
from forethought.planner.selection import SequentialHalving

ENDING = FunctionWorld(
    lambda state, chunks: np.where(
        chunks[:, :1, 0] > 0.9, np.nan, state + chunks.astype(np.float64).mean(axis=1)
    ),
    done=lambda state: np.where(state[:, 1] > 0.3, 1.0, 0.1),
    disagreement=lambda state: np.abs(state[:, 2]),
)
SEARCHES = {
    "drawn by the walk": {"proposals": KernelProposals(ARM, (PolicyKernels(1.0, (0.1, 0.3)),))},
    "the policy's samples": {"proposals": PolicySamples(ARM), "inner_children": 6},
    "drawn elsewhere": {
        "proposals": KernelProposals(ARM, (PolicyKernels(), DatasetKernels(FixedMemory().all_chunks())))
    },
    "noise at the root": {"root_rule": SequentialHalving(90, gumbel_scale=1.0)},
    "rows that end": {
        "world_model": ENDING,
        "reward_model": FunctionReward(lambda state: np.tanh(state[:, 0]), lambda state: np.abs(state[:, 3])),
    },
    "rows that are exhausted": {"children": 3, "inner_children": 2, "depth": 2, "wave": 32},
    "trees that grow": {"budget": Budget(milliseconds=1e9, simulations=None), "children": 2},
}


def grown(planner: TreeSearch, rows: int, threads: int):
    observation, samples = (
        observe(np.random.default_rng(3).normal(size=(rows, 7))),
        policy_samples(ARM, rows, 6, 8),
    )
    with at_most(threads):
        latent = planner.world_model.encode(observation)
        waves = planner.waves(
            latent,
            observation.instruction,
            samples.chunks,
            40 + np.arange(rows),
            planner.budget.start(),
            np.arange(rows) % 5 != 3,
        )
        run = next(waves)
        for _ in range(6):
            run = next(waves, run)
    return run


@pytest.fixture(autouse=True)
def several_threads():
    """There is nothing to share on a machine with one core."""
    with at_most(3):
        if side_by_side(12) < 2:
            pytest.skip("numba has no second thread here")


@pytest.mark.parametrize("name", SEARCHES)
def test_parts_grow_the_same_trees(name):
    base = TreeSearch(
        ArmWorld(),
        NearTarget(),
        KernelProposals(ARM, (PolicyKernels(),)),
        ARM,
        budget=Budget(simulations=90),
        children=6,
        inner_children=5,
        depth=3,
        wave=16,
    )
    planner = dataclasses.replace(base, **SEARCHES[name])
    one, several = grown(planner, 13, 1), grown(planner, 13, 3)
    assert int(one.spent.max()) > 6
    np.testing.assert_array_equal(one.spent, several.spent)
    np.testing.assert_array_equal(one.disqualified, several.disqualified)
    np.testing.assert_array_equal(one.tree.size, several.tree.size)
    known = one.tree.known()
    np.testing.assert_array_equal(known, several.tree.known())
    for field in (
        "parent",
        "latent",
        "visits",
        "pending",
        "value",
        "prior",
        "own",
        "spread",
        "source",
        "closed",
    ):
        ours, theirs = getattr(one.tree, field)[known], getattr(several.tree, field)[known]
        np.testing.assert_array_equal(ours, theirs, err_msg=field)
    np.testing.assert_array_equal(one.tree.chunk[known], several.tree.chunk[known])


def test_as_many_parts_as_threads_and_rows_allow():
    with at_most(2):
        assert side_by_side(7) == 1
        assert side_by_side(8) == side_by_side(100) == 2
        with at_most(1):
            assert side_by_side(100) == 1


@pytest.mark.parametrize("layer", ["workqueue", "forksafe"])
def test_a_layer_that_two_threads_may_not_call_at_once_is_left_alone(monkeypatch, layer):
    monkeypatch.setattr(parallel._config, "THREADING_LAYER", layer)
    parallel._has_threads.cache_clear()
    with at_most(2):
        assert side_by_side(100) == 1
    parallel._has_threads.cache_clear()


FORKED = """
import os
import sys

import numpy as np

sys.path.insert(0, sys.argv[1])
from planner_fakes import ARM, ArmWorld, NearTarget, observe, policy_samples

from forethought.planner import Budget, KernelProposals, PolicyKernels, TreeSearch
from forethought.planner.parallel import at_most, side_by_side

proposals, budget = KernelProposals(ARM, (PolicyKernels(),)), Budget(simulations=40)
planner = TreeSearch(ArmWorld(), NearTarget(), proposals, ARM, budget=budget, depth=3)
asked = observe(np.zeros((12, 7))), policy_samples(ARM, 12, 6, 8), np.arange(12)
with at_most(2):
    assert side_by_side(12) == 2
    before = planner.plan(*asked).chunk
    child = os.fork()
    if not child:
        same = side_by_side(12) == 1 and (planner.plan(*asked).chunk == before).all()
        os._exit(7 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert (planner.plan(*asked).chunk == before).all()
print("both planned")
"""


def test_a_child_of_a_fork_plans_on(request):
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(request.path.parent)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "both planned\n", done.stderr
