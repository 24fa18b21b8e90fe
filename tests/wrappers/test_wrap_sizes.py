"""Wrapping takes the sizes of the search from what the world model declares, unless sizes are named."""

from __future__ import annotations

import pytest

from forethought.interfaces import ImaginationCost
from forethought.wrappers.wrap import _sizes


class Priced:
    cost = ImaginationCost("video", wave=4)


class Free:
    pass


def models_with(world_model):
    from forethought.wrappers.models import Models

    return Models(world_model=world_model, reward_model=None)


def test_a_declared_cost_gives_the_sizes():
    found = _sizes("forethought", models_with(Priced()), {"margin": 0.1})
    assert found == {"simulations": 32, "children": 32, "depth": 1, "wave": 4}


@pytest.mark.parametrize("named", ["simulations", "milliseconds", "children", "depth", "wave"])
def test_a_size_that_is_named_leaves_all_to_the_caller(named):
    assert _sizes("forethought", models_with(Priced()), {named: 3}) == {}


def test_other_planners_and_undeclared_costs_keep_their_defaults():
    assert _sizes("cem", models_with(Priced()), {}) == {}
    assert _sizes("forethought", models_with(Free()), {}) == {}
