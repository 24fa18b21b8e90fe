"""A declared cost decides how wide, how deep and in what waves is searched."""

from __future__ import annotations

import pytest

from forethought.interfaces import ActionSpec, ImaginationCost
from forethought.planner import fitted, forethought, search_shape
from forethought.planner.fitting import MOST, SearchShape, declared_cost
from forethought.world_models.latent import LatentWorldModel
from forethought.world_models.simulator import SimulatorWorldModel

SPEC = ActionSpec(low=[-1, -1], high=[1, 1])


class Priced:
    def __init__(self, cost):
        self.cost = cost

    def encode(self, observation):
        raise NotImplementedError

    def step(self, latent, chunks):
        raise NotImplementedError


class Memory:
    def nearest(self, latent, instruction, k):
        raise NotImplementedError

    def all_chunks(self):
        raise NotImplementedError


def test_cheap_models_with_a_memory_are_searched_as_the_preset_does():
    shape = search_shape(LatentWorldModel.cost, memory=True)
    usual = forethought(Priced(None), None, action_spec=SPEC)
    assert shape == SearchShape(usual.budget.simulations, usual.children, usual.depth, usual.wave)


def test_without_a_memory_a_cheap_model_looks_a_second_chunk_ahead():
    shape = search_shape(LatentWorldModel.cost, memory=False)
    assert (shape.depth, shape.simulations, shape.children) == (2, 64, 32)


def test_an_undeclared_cost_counts_as_cheap():
    assert search_shape(None, memory=True) == search_shape(LatentWorldModel.cost, memory=True)
    assert declared_cost(Priced("cheap")) is None


def test_dear_models_are_asked_for_few_candidates_in_one_batch():
    shape = search_shape(ImaginationCost("video", wave=64), memory=False)
    assert shape == SearchShape(MOST["video"], MOST["video"], 1, MOST["video"])
    assert search_shape(ImaginationCost("foundation", wave=1), memory=True).simulations <= 4


def test_milliseconds_narrow_the_search_of_a_model_that_says_what_it_costs():
    cost = ImaginationCost("video", milliseconds=5.0, wave=16)
    assert search_shape(cost, memory=True, milliseconds=50).simulations == 8
    assert search_shape(cost, memory=True, milliseconds=1).simulations == 2
    assert search_shape(cost, memory=True, milliseconds=1e6) == search_shape(cost, memory=True)
    assert search_shape(ImaginationCost("video"), memory=True, milliseconds=1).simulations == MOST["video"]


def test_depth_goes_before_width_when_time_is_short():
    cost = ImaginationCost("vector", milliseconds=1.0)
    assert search_shape(cost, memory=False, milliseconds=30) == SearchShape(24, 24, 1, 8)
    assert search_shape(cost, memory=False, milliseconds=60) == SearchShape(48, 32, 2, 8)


def test_the_preset_is_laid_out_so():
    planner = fitted(Priced(ImaginationCost("video", wave=4)), None, action_spec=SPEC, milliseconds=70)
    assert (planner.children, planner.depth, planner.wave) == (32, 1, 4)
    assert planner.budget.simulations == 32 and planner.budget.milliseconds == 70
    deep = fitted(Priced(LatentWorldModel.cost), None, action_spec=SPEC)
    assert deep.depth == 2
    assert fitted(Priced(LatentWorldModel.cost), None, action_spec=SPEC, memory=Memory()).depth == 1


@pytest.mark.parametrize("model", [LatentWorldModel, SimulatorWorldModel])
def test_the_models_of_this_package_declare_a_cost(model):
    assert isinstance(model.cost, ImaginationCost)
