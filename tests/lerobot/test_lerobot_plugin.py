"""The plug-in that LeRobot finds: `--policy.type=forethought --policy.base_path=<any checkpoint>`."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="LeRobot has an environment of its own: make test-lerobot")

import tiny_policies as tiny
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import (
    get_policy_class,
    make_pre_post_processors,
)
from lerobot.utils.import_utils import register_third_party_plugins

from forethought.interfaces import ForethoughtError

PUSHT = ("image",)
LIBERO = ("images.image", "images.image2")


def save(folder: Path, policy, stats) -> Path:
    for part in (policy, *tiny.processors(policy, stats)):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def plugin():
    register_third_party_plugins()


@pytest.fixture(scope="module")
def pusht(tmp_path_factory) -> Path:
    """A checkpoint for PushT, as `lerobot-train` leaves it: actions are places on the table, in pixels."""
    torch.manual_seed(0)
    policy = tiny.act(shape=tiny.features(2, 2, PUSHT, 96))
    stats = tiny.statistics(2, 2, PUSHT)
    stats["observation.state"] |= {"mean": np.float32([256, 256]), "std": np.float32([100, 100])}
    stats["action"] |= {"mean": np.float32([200, 300]), "std": np.float32([40, 40])}
    return save(tmp_path_factory.mktemp("pusht"), policy, stats)


@pytest.fixture(scope="module")
def libero(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    policy = tiny.act(shape=tiny.features(8, 7, LIBERO, 256), n_action_steps=8)
    return save(tmp_path_factory.mktemp("libero"), policy, tiny.statistics(8, 7, LIBERO))


def config(base: Path | None, **given):
    base_path = None if base is None else str(base)
    kind = PreTrainedConfig.get_choice_class("forethought")
    return kind(base_path=base_path, device="cpu", push_to_hub=False, **given)


def make(base: Path, **given):
    return get_policy_class("forethought")(config(base, models="pusht_models:load", **given))


def seen(batch: int = 2) -> dict:
    draw = np.random.default_rng(0)
    return {
        "observation.state": torch.from_numpy(draw.uniform(100, 400, (batch, 2)).astype("f4")),
        "observation.image": torch.from_numpy(draw.uniform(0, 1, (batch, 3, 96, 96)).astype("f4")),
        "task": [""] * batch,
    }


class TestPolicy:
    def test_the_distribution_has_the_name_that_lerobot_looks_for(self):
        assert importlib.metadata.version("lerobot_policy_forethought")
        assert "forethought" in PreTrainedConfig.get_known_choices()

    def test_it_holds_the_policy_of_the_checkpoint(self, pusht):
        from lerobot.policies.act.modeling_act import ACTPolicy

        policy = make(pusht)
        assert isinstance(policy.base, ACTPolicy)
        alone = ACTPolicy.from_pretrained(pusht).state_dict()
        held = policy.state_dict()
        assert held.keys() == {f"base.{name}" for name in alone}
        assert all(torch.equal(held[f"base.{name}"], value) for name, value in alone.items())

    def test_its_configuration_asks_for_what_the_policy_does(self, pusht):
        assert set(config(pusht).input_features) == {"observation.state", "observation.image"}

    def test_the_environment_gets_the_plan(self, pusht):
        policy = make(pusht, options={"simulations": 16})
        before, after = make_pre_post_processors(policy.config)
        batch = before(seen())
        policy.reset()
        action = after(policy.select_action(batch)).numpy()
        assert np.allclose(action, policy.forethought.last.chunk[:, 0], atol=1e-2)
        assert policy.forethought.last.overridden.all()

    def test_a_margin_that_nothing_reaches_leaves_the_policys_actions(self, pusht):
        from lerobot.policies.act.modeling_act import ACTPolicy

        policy, alone = make(pusht, options={"margin": 2.0}), ACTPolicy.from_pretrained(pusht)
        before, _ = make_pre_post_processors(policy.config)
        batch = before(seen())
        policy.reset()
        for _ in range(10):
            assert torch.equal(policy.select_action(copy.copy(batch)), alone.select_action(copy.copy(batch)))
        assert policy.forethought.last.simulations.min() > 1

    def test_it_saves_and_loads_like_any_other(self, pusht, tmp_path):
        policy = make(pusht, options={"margin": 2.0})
        policy.save_pretrained(tmp_path)
        stored = PreTrainedConfig.from_pretrained(tmp_path)
        assert stored.type == "forethought"
        assert stored.options == {"margin": 2.0}
        again = get_policy_class("forethought").from_pretrained(tmp_path, config=stored)
        assert all(
            torch.equal(again.state_dict()[name], value) for name, value in policy.state_dict().items()
        )

    def test_changes_to_the_policys_configuration(self, pusht):
        assert make(pusht, base_args=["--n_action_steps=2"]).base.config.n_action_steps == 2

    def test_models_beside_the_checkpoint_are_found(self, libero, tmp_path):
        (tmp_path / "forethought").mkdir()
        (tmp_path / "forethought" / "config.json").write_text("{}")
        assert config(libero).models_path() is None
        for name in os.listdir(libero):
            (tmp_path / name).write_bytes((libero / name).read_bytes())
        assert config(tmp_path).models_path() == str(tmp_path / "forethought")
        assert config(tmp_path, models="libero_object").models_path() == "libero_object"

    def test_without_models_the_policy_acts_alone_and_says_so(self, pusht, caplog):
        policy = get_policy_class("forethought")(config(pusht))
        assert "acts alone" in caplog.text
        assert policy.forethought is None
        before, _ = make_pre_post_processors(policy.config)
        assert policy.select_action(before(seen())).shape == (2, 2)

    def test_an_episode_is_told_when_the_next_one_starts(self, pusht, caplog):
        policy = make(pusht)
        before, _ = make_pre_post_processors(policy.config)
        policy.reset()
        policy.select_action(before(seen(3)))
        with caplog.at_level(logging.INFO):
            policy.reset()
        assert "forethought: 3 decisions" in caplog.text

    def test_cameras_under_other_names(self, pusht):
        policy = make(pusht, cameras={"agentview_rgb": "image"})
        before, _ = make_pre_post_processors(policy.config)
        policy.select_action(before(seen()))
        assert policy.forethought.last is not None


class TestMistakes:
    def test_no_base_path(self):
        with pytest.raises(ForethoughtError, match="--policy.base_path"):
            get_policy_class("forethought")(config(None))

    def test_a_base_path_without_a_policy(self, tmp_path):
        with pytest.raises(ForethoughtError, match="config.json and model.safetensors"):
            config(tmp_path)

    def test_a_base_that_looks_ahead_already(self, pusht, tmp_path):
        make(pusht).save_pretrained(tmp_path)
        with pytest.raises(ForethoughtError, match="looks ahead already"):
            config(tmp_path)

    @pytest.mark.parametrize("models", ["nowhere:load", "pusht_models:nothing", "pusht_models:Finger"])
    def test_models_that_cannot_be_had(self, pusht, models):
        with pytest.raises(ForethoughtError, match=r"PYTHONPATH|must return a forethought\.Models"):
            get_policy_class("forethought")(config(pusht, models=models))

    def test_an_option_that_no_planner_has(self, pusht):
        with pytest.raises(ForethoughtError, match="simulation.*simulations"):
            make(pusht, options={"simulation": 8})


def evaluate(folder: Path, *arguments: str) -> tuple[dict, str]:
    """`lerobot-eval` as anybody would start it, without a network: its results and what it said."""
    command = [str(Path(sys.executable).with_name("lerobot-eval")), *arguments, f"--output_dir={folder}"]
    command += ["--policy.device=cpu", "--policy.push_to_hub=false"]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "SDL_VIDEODRIVER": "dummy",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    return json.loads((folder / "eval_info.json").read_text())["overall"], said


class TestLerobotEval:
    ON_PUSHT = ("--env.type=pusht", "--env.episode_length=30", "--eval.n_episodes=3", "--eval.batch_size=2")

    def test_pusht_with_search(self, pusht, tmp_path):
        alone, _ = evaluate(tmp_path / "alone", f"--policy.path={pusht}", *self.ON_PUSHT)
        looking = ("--policy.type=forethought", f"--policy.base_path={pusht}")
        models = "--policy.models=pusht_models:load"
        kept, said = evaluate(
            tmp_path / "kept", *looking, models, "--policy.options={margin: 2}", *self.ON_PUSHT
        )
        assert "decisions, 0 not the policy's own" in said
        assert kept["n_episodes"] == 3
        assert kept["avg_sum_reward"] == alone["avg_sum_reward"]
        planned, said = evaluate(tmp_path / "planned", *looking, models, *self.ON_PUSHT)
        assert "forethought: 8 decisions, 8 not the policy's own" in said
        assert planned["avg_sum_reward"] != alone["avg_sum_reward"]

    @pytest.mark.slow
    @pytest.mark.libero
    def test_libero_with_the_shipped_models(self, libero, tmp_path):
        results, said = evaluate(
            tmp_path,
            "--policy.type=forethought",
            f"--policy.base_path={libero}",
            "--policy.models=libero_object",
            "--env.type=libero",
            "--env.task=libero_object",
            "--env.task_ids=[3]",
            "--env.episode_length=16",
            "--eval.n_episodes=1",
            "--eval.batch_size=1",
        )
        assert results["n_episodes"] == 1
        assert "forethought: 2 decisions" in said
        assert "problems so far: none" in said
