"""Models folders load by path or shipped name, and say what is wrong when they do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from forethought.interfaces import ForethoughtError
from forethought.wrappers import models
from forethought.wrappers.models import load_models, shipped_names

CONFIG = {"world_model": {"kind": "latent"}, "reward": {"kind": "value"}, "horizon": 4}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.fixture
def parts(monkeypatch):
    """Stands in for what loads weights."""
    import forethought.reward.value as value
    import forethought.world_models.latent as latent
    import forethought.world_models.retrieval as retrieval

    monkeypatch.setattr(latent, "load", lambda folder, **options: ("latent", folder, options))
    monkeypatch.setattr(value, "load", lambda folder: "value")
    monkeypatch.setattr(retrieval, "load", lambda folder: "memory")


def write(folder, **changes):
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def test_a_folder_gives_its_parts_and_what_they_were_trained_for(folder, parts):
    action = {"low": [-1, -1], "high": [1, 1], "position": [0], "gripper": [1], "gripper_is_binary": True}
    write(folder, memory={"kind": "retrieval"}, cameras=["wrist"], action=action)
    loaded = load_models(folder)
    assert loaded.world_model == ("latent", folder, {})
    assert (loaded.reward_model, loaded.memory, loaded.horizon) == ("value", "memory", 4)
    assert loaded.cameras == ("wrist",)
    assert loaded.action_spec is not None
    assert np.array_equal(loaded.action_spec.high, [1, 1])
    assert loaded.action_spec.gripper == (1,)


def test_a_folder_without_memory_and_action_loads(folder, parts):
    loaded = load_models(str(folder))
    assert loaded.memory is None
    assert loaded.action_spec is None


def test_options_beside_the_kind_reach_the_part(folder, parts):
    write(folder, world_model={"kind": "latent", "device": "cpu"})
    assert load_models(folder).world_model[2] == {"device": "cpu"}


def test_a_shipped_name_stands_for_its_folder(folder, parts, monkeypatch):
    monkeypatch.setattr(models, "SHIPPED", folder.parent)
    assert load_models(folder.name).world_model[1] == folder
    assert folder.name in shipped_names()


def test_a_shipped_name_is_not_hidden_by_a_folder_without_models(folder, monkeypatch, tmp_path):
    shipped = tmp_path / "shipped"
    (shipped / "mine").mkdir(parents=True)
    here = tmp_path / "here"
    (here / "mine").mkdir(parents=True)
    monkeypatch.setattr(models, "SHIPPED", shipped)
    monkeypatch.chdir(here)
    assert models.find_folder("mine") == shipped / "mine"
    assert models.find_folder("./mine").resolve() == here / "mine"
    (here / "mine" / "value.safetensors").touch()
    assert models.find_folder("mine").resolve() == here / "mine"


def test_a_name_that_is_neither_folder_nor_shipped_lists_the_shipped_ones(folder, monkeypatch):
    monkeypatch.setattr(models, "SHIPPED", folder.parent)
    with pytest.raises(ForethoughtError, match=f"'nowhere'.*{folder.name}"):
        load_models("nowhere")


@pytest.mark.parametrize("text", ["{", "", "\x00\x01", "[1, 2]", "3", '{"world_model": "latent"}', "{}"])
def test_a_configuration_that_is_damaged_or_incomplete_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ForethoughtError, match=r"config\.json"):
        load_models(folder)


def test_a_folder_without_configuration_says_what_is_in_it(folder):
    (folder / "config.json").rename(folder / "notes.txt")
    with pytest.raises(ForethoughtError, match=r"no config\.json.*notes\.txt"):
        load_models(folder)


@pytest.mark.parametrize("kind", ["oracle", "../latent", "os.path", "latent.load", "", "encoder"])
def test_a_kind_that_cannot_be_loaded_names_the_file_and_the_kind(folder, kind):
    write(folder, world_model={"kind": kind})
    with pytest.raises(ForethoughtError, match=r"config\.json.*"):
        load_models(folder)


def test_an_unknown_kind_lists_the_known_ones(folder):
    write(folder, world_model={"kind": "oracle"})
    with pytest.raises(ForethoughtError, match="'oracle'.*'latent'"):
        load_models(folder)


def test_missing_weights_name_the_file(folder):
    with pytest.raises(ForethoughtError, match=str(folder)):
        load_models(folder)


def test_a_part_that_breaks_while_loading_is_named(folder, parts, monkeypatch):
    def broken(folder):
        raise RuntimeError("size mismatch for layer 3")

    monkeypatch.setattr("forethought.reward.value.load", broken)
    with pytest.raises(ForethoughtError, match=r"reward \(value\).*size mismatch"):
        load_models(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"horizon": 0}, "horizon"),
        ({"horizon": "eight"}, "horizon"),
        ({"action": {"low": [1], "high": [0]}}, "action"),
        ({"action": {"lowest": [1]}}, "action"),
        ({"action": [0, 1]}, "action"),
    ],
)
def test_wrong_entries_are_refused(folder, parts, changes, words):
    write(folder, **changes)
    with pytest.raises(ForethoughtError, match=words):
        load_models(folder)


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_folder_loads(name):
    loaded = load_models(name)
    assert loaded.horizon is not None
    assert loaded.action_spec is not None
