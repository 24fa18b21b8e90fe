"""The compiled loops against the array form that they replace."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from planner_fakes import ARM, ArmWorld, FunctionReward, FunctionWorld, NearTarget, observe, policy_samples

from forethought.interfaces import ForethoughtError
from forethought.planner import (
    Budget,
    DensityUcb,
    ImprovedPolicy,
    KernelProposals,
    KernelRegression,
    MaximumBackup,
    MeanBackup,
    ProgressiveWidening,
    Puct,
    SequentialHalving,
    TemporalDifferenceMix,
    TreeSearch,
)
from forethought.planner.settling import Carry
from forethought.planner.walk import Walk

ROOT_RULES = {
    "halving": None,
    "halving that ends early": SequentialHalving(simulations=40),
    "gumbel": SequentialHalving(simulations=150, gumbel_scale=1.0),
    "puct": Puct(),
    "density": DensityUcb(),
    "improved": ImprovedPolicy(),
}
INNER_RULES = {"puct": Puct(), "density": DensityUcb(), "improved": ImprovedPolicy()}
BACKUPS = {"mix": TemporalDifferenceMix(), "max": MaximumBackup(), "mean": MeanBackup()}


def search(**options) -> TreeSearch:
    settings = {"budget": Budget(simulations=150), "children": 9, "inner_children": 6, "depth": 4, "wave": 8}
    return TreeSearch(ArmWorld(), NearTarget(), KernelProposals(ARM), ARM, **(settings | options))


def trees(planner: TreeSearch, rows: int = 3, seed: int = 4):
    state = np.random.default_rng(seed).uniform(-0.5, 0.5, (rows, 7))
    samples = policy_samples(ARM, rows, 5, 8, seed)
    observation = observe(state)
    clock = planner.budget.start()
    latent = planner.world_model.encode(observation)
    seeds = np.arange(rows) + seed
    return planner.search(latent, observation.instruction, samples.chunks, seeds, clock)


def without_kernels(monkeypatch) -> None:
    monkeypatch.setattr(Walk, "of", staticmethod(lambda *rules, **settings: None))
    monkeypatch.setattr(Carry, "of", staticmethod(lambda *settings: None))


def assert_same(compiled, arrays) -> None:
    assert (compiled.tree.size == arrays.tree.size).all()
    used = int(compiled.tree.size.max())
    known = compiled.tree.known()[:, :used]
    np.testing.assert_array_equal(known, arrays.tree.known()[:, :used])
    for name in ("parent", "first_child", "child_count", "depth", "visits", "pending", "closed", "source"):
        ours, theirs = getattr(compiled.tree, name)[:, :used], getattr(arrays.tree, name)[:, :used]
        np.testing.assert_array_equal(ours[known], theirs[known], err_msg=name)
    for name in ("prior", "own", "spread", "done", "value", "chunk"):
        ours, theirs = getattr(compiled.tree, name)[:, :used], getattr(arrays.tree, name)[:, :used]
        np.testing.assert_allclose(ours[known], theirs[known], rtol=0.0, atol=1e-12, err_msg=name)
    assert (compiled.spent == arrays.spent).all()


@pytest.mark.parametrize("wave", [1, 8, 32])
@pytest.mark.parametrize("inner", INNER_RULES)
@pytest.mark.parametrize("root", ROOT_RULES)
def test_both_forms_grow_the_same_tree(monkeypatch, root, inner, wave):
    planner = search(root_rule=ROOT_RULES[root], inner_rule=INNER_RULES[inner], wave=wave)
    compiled = trees(planner)
    assert compiled.walk is not None and compiled.carry is not None
    without_kernels(monkeypatch)
    assert_same(compiled, trees(planner))


@pytest.mark.parametrize("backup", BACKUPS)
@pytest.mark.parametrize("widening", [ProgressiveWidening(0.5, 0.3), ProgressiveWidening(2.0, 0.8)])
def test_both_forms_agree_for_every_backup_and_widening(monkeypatch, backup, widening):
    planner = search(backup=BACKUPS[backup], widening=widening)
    compiled = trees(planner)
    without_kernels(monkeypatch)
    assert_same(compiled, trees(planner))


def test_both_forms_agree_where_states_end_or_are_not_finite(monkeypatch):
    world = FunctionWorld(
        lambda state, chunks: np.where(
            chunks[:, :1, 0] > 0.7, np.nan, state + chunks.astype(np.float64).mean(axis=1)
        ),
        done=lambda state: np.where(state[:, 1] > 0.4, 1.0, 0.1),
        disagreement=lambda state: np.abs(state[:, 2]),
    )
    reward = FunctionReward(lambda state: np.tanh(state[:, 0]), lambda state: np.abs(state[:, 3]))
    planner = dataclasses.replace(search(depth=3), world_model=world, reward_model=reward)
    compiled = trees(planner)
    assert (compiled.disqualified > 0).any()
    assert (compiled.tree.done == 1.0).any()
    without_kernels(monkeypatch)
    arrays = trees(planner)
    assert_same(compiled, arrays)
    assert (compiled.disqualified == arrays.disqualified).all()


def test_an_exhausted_tree_ends_in_both_forms(monkeypatch):
    planner = search(children=3, inner_children=2, depth=2, budget=Budget(simulations=100), wave=32)
    compiled = trees(planner)
    assert (compiled.spent == 3 + 3 * 2).all()
    without_kernels(monkeypatch)
    assert_same(compiled, trees(planner))


def test_a_rule_without_a_compiled_form_takes_the_array_form():
    class Careful(Puct):
        """Scores otherwise than what it inherits."""

        def __call__(self, siblings):
            return -super().__call__(siblings)

    assert trees(search(inner_rule=KernelRegression(Puct(), ARM))).walk is None
    assert trees(search(inner_rule=Careful())).walk is None
    assert trees(search(root_rule=Careful())).walk is None


def test_a_model_that_answers_for_too_few_states_is_said():
    class Short(ArmWorld):
        def step(self, latent, chunks):
            return super().step(latent[:-1], chunks[:-1])

    with pytest.raises(ForethoughtError, match="asked about 27 states and predicted 26"):
        trees(dataclasses.replace(search(), world_model=Short()))


def test_a_row_does_not_depend_on_its_neighbours():
    planner = search(wave=16)
    together, alone = trees(planner, rows=3), trees(planner, rows=1)
    used = int(alone.tree.size[0])
    known = alone.tree.known()[0]
    for name in ("visits", "value", "chunk"):
        ours, theirs = getattr(together.tree, name)[0, :used], getattr(alone.tree, name)[0, :used]
        np.testing.assert_array_equal(ours[known[:used]], theirs[known[:used]])


@pytest.mark.parametrize("root", [SequentialHalving(simulations=20, value_scale=50.0), None])
def test_both_forms_agree_where_values_weigh_so_much_that_only_differences_can_be_exponentiated(
    monkeypatch, root
):
    planner = search(root_rule=root, inner_rule=ImprovedPolicy(value_scale=50.0))
    compiled = trees(planner)
    without_kernels(monkeypatch)
    assert_same(compiled, trees(planner))
