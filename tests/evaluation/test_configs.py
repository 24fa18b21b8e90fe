"""Every shipped config composes, and what it builds takes exactly the arguments that the config gives."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object

from forethought.experiments.cli import APPLICATIONS, CONFIGS, register_resolvers
from forethought.experiments.evaluation.arms import Arm, arm_key, compose_arms
from forethought.experiments.evaluation.parts import build
from forethought.interfaces import ActionSpec
from forethought.planner import PRESETS

GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted(CONFIGS.iterdir())
    if folder.is_dir()
}
ABLATIONS = GROUPS.pop("ablation")
"""Not parts, but arms."""
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]
GIVEN_LATER = {
    "planner": {"world_model", "reward_model", "action_spec", "memory"},
    "controller": {"policy", "planner"},
}
"""Arguments that evaluation adds to what the config says."""
SHORTHANDS = ["demo", "pixels", "committee", "clone", "baselines", "compare", "ablations"]
"""Evaluations with settings of their own."""


def composed(application: str, *overrides: str) -> Any:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(application, overrides=list(overrides))


def check_arguments(config: Any, given_later: set[str]) -> None:
    parameters = inspect.signature(get_object(config["_target_"])).parameters
    written = {str(name) for name in config if not str(name).startswith("_")}
    assert written | given_later <= set(parameters), "the target does not take these"
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    assert required <= written | given_later, "the target needs these"


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_fits_what_it_builds(group, option):
    application = "collect" if group == "source" else "eval"
    config = composed(application, f"{group}={option}")[group]
    if config:
        check_arguments(config, GIVEN_LATER.get(group, set()))
    else:
        assert option == "none"


def check_defaults(config: Any, given_later: set[str]) -> None:
    parameters = inspect.signature(get_object(config["_target_"])).parameters
    defaults = {
        name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty and name not in given_later
    }
    assert {name: config.get(name, "missing") for name in defaults} == defaults


@pytest.mark.parametrize(
    "application",
    ["train_policy", "train_models", "train_video", "bench_planner", "bench_serve", "serve"],
)
def test_configs_of_functions_repeat_their_defaults(application):
    check_arguments(composed(application), set())
    check_defaults(composed(application), set())


@pytest.mark.parametrize(
    "option", ["forethought", "vla_reasoner", "random_shooting", "cem", "icem", "mppi", "fitted"]
)
def test_planner_configs_repeat_the_defaults_of_the_presets(option):
    check_defaults(composed("eval", f"planner={option}").planner, GIVEN_LATER["planner"])


@pytest.mark.parametrize("name", SHORTHANDS)
def test_arms_of_a_shorthand_choose_options_that_exist(name):
    config = composed(name)
    for arm in config.arms.values():
        for group, value in arm.items():
            if isinstance(value, str) or "option" in value:
                assert (group, value if isinstance(value, str) else value.option) in OPTIONS
            else:
                assert set(value) <= set(config[group]), "no such values to change"


def test_best_of_n_asks_the_policy_for_as_many_samples_as_it_imagines():
    config = composed("eval", "planner=best_of_n", "planner.simulations=64")
    assert config.controller.samples == config.planner.n == 64


@pytest.mark.parametrize("simulations", [32, 64])
def test_the_comparison_gives_every_planner_the_same_simulations(simulations):
    register_resolvers()
    config = composed("compare", f"simulations={simulations}")
    choices = dict.fromkeys(GROUPS, "") | {"planner": "forethought"}
    arms = compose_arms(
        config, choices, lambda group, option: composed("compare", f"{group}={option}")[group]
    )
    planners = {arm.name: arm.parts["planner"] for arm in arms}
    assert set(planners) == {"policy", *PRESETS}
    assert {planner["simulations"] for name, planner in planners.items() if name != "policy"} == {simulations}
    assert {name for name, planner in planners.items() if planner.get("memory_share")} == {"forethought"}
    samples = {arm.name: arm.parts["controller"]["samples"] for arm in arms}
    assert samples.pop("best_of_n") == simulations
    assert set(samples.values()) == {8}


def test_value_and_memory_of_a_committee_follow_its_world_model():
    register_resolvers()
    config = composed("committee", "benchmark=libero_spatial")
    choices = dict.fromkeys(GROUPS, "") | {"planner": "forethought"}
    arms = compose_arms(
        config, choices, lambda group, option: composed("committee", f"{group}={option}")[group]
    )
    members = {
        arm.name: [arm.parts[group]["members"] for group in ("world_model", "reward", "memory")]
        for arm in arms
        if arm.searches
    }
    assert {name: len(of[0]) for name, of in members.items()} == {"forethought": 2, "poses": 3}
    assert all(of[0] == of[1] == of[2] for of in members.values())


@functools.lru_cache
def ablation_arms(*overrides: str) -> dict[str, Arm]:
    register_resolvers()
    config = composed("ablations", *overrides)
    choices = dict.fromkeys(GROUPS, "") | {"planner": "forethought"}
    arms = compose_arms(
        config, choices, lambda group, option: composed("ablations", f"{group}={option}")[group]
    )
    return {arm.name: arm for arm in arms}


class Memory:
    def nearest(self, latent, instruction, k):
        return np.zeros((len(latent), k, 8, 7), np.float32)

    def all_chunks(self):
        return np.zeros((5, 8, 7), np.float32)


def test_the_ablations_are_all_in_one_run_and_each_is_another_search():
    arms = ablation_arms()
    names = {str(name) for option in ABLATIONS for name in composed("ablations", f"ablation={option}").arms}
    assert set(arms) == names | {"policy", "forethought"}
    assert len({arm_key(arm, {}) for arm in arms.values()}) == len(arms)
    spec = ActionSpec(low=-np.ones(7), high=np.ones(7), gripper=(6,))
    assert {name for name, arm in arms.items() if not arm.parts["planner"]} == {
        "policy",
        "policy_4_steps",
        "policy_2_steps",
    }
    for arm in arms.values():
        if not arm.parts["planner"]:
            continue
        memory = Memory() if arm.parts["memory"] else None
        planner = build("planner", arm.parts["planner"], partial=True)
        assert planner(world_model=None, reward_model=None, action_spec=spec, memory=memory)


def test_every_ablation_is_compared_with_an_arm_of_its_own_group():
    for option in ABLATIONS:
        config = composed("ablations", f"ablation={option}")
        assert set(config.contrasts) <= set(config.arms)
        assert set(config.contrasts.values()) <= {*config.arms, "forethought"}
        assert set(config.arms) <= {*config.contrasts, *config.contrasts.values()}


def test_an_ablation_changes_what_its_name_says_and_nothing_else():
    arms = ablation_arms()
    default = arms["forethought"].parts

    def changes(name: str) -> dict[str, Any]:
        parts = arms[name].parts
        return {
            f"{group}.{key}": parts[group].get(key)
            for group in default
            for key in {*default[group], *parts[group]}
            if parts[group].get(key, "missing") != default[group].get(key, "missing")
        }

    assert changes("label_ranking") == {"reward.file": "value_ranking.safetensors"}
    assert changes("state_independent") == {"planner.offline_share": 1.0}
    assert changes("K8") == {"planner.simulations": 8}
    assert changes("lambda_0.5") == {"planner.pessimism": 0.5}
    assert changes("margin_0.03") == {"planner.margin": 0.03}
    assert changes("alpha_0.6") == {"planner.policy_weight": 0.6}
    assert changes("depth3") == {"planner.simulations": 64, "planner.depth": 3}
    assert changes("4_steps") == {"controller.execution_horizon": 4}
    timed = {"planner.simulations": None, "planner.milliseconds": 20, "planner.depth": 2}
    assert changes("20_ms") == timed
    assert not arms["no_memory_depth2"].parts["memory"]
    assert {name.split(".")[0] for name in changes("no_model")} == {"world_model", "reward"}


def test_ablations_can_be_run_a_few_at_a_time_on_the_same_arms():
    whole, some = ablation_arms(), ablation_arms("ablation=[depth,width]")
    assert set(some) < set(whole)
    assert {"K8", "K64", "depth2", "forethought"} <= set(some)
    assert {name: arm_key(arm, {}) for name, arm in some.items()} == {
        name: arm_key(whole[name], {}) for name in some
    }


def test_a_planner_that_is_not_told_apart_by_samples_gets_the_default_number():
    assert composed("eval").controller.samples == 8
    assert composed("eval", "planner=none").controller.samples == 8


@pytest.mark.parametrize("application", [name for name, _ in APPLICATIONS.values()] + SHORTHANDS)
def test_help_is_written_for_every_application(application):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(application, return_hydra_config=True, overrides=["hydra.runtime.output_dir=."])
    text = config.hydra.help.template
    assert "Examples" in text
    assert "$CONFIG" in text


def test_every_option_says_what_it_is():
    for path in Path(CONFIGS).rglob("*.yaml"):
        assert path.read_text().lstrip().startswith("#"), f"{path} begins without a comment"
