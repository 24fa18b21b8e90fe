"""Imagined against real, on a point that a chunk pushes along a line: what a good and a bad model get."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from forethought.experiments.bench import imagination
from forethought.experiments.bench.imagination import branchings, fidelity
from forethought.interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation, Prediction, Score
from forethought.wrappers.models import Models

SPEC = ActionSpec(low=[-1, -1], high=[1, 1])
H = 4


class Line:
    """A point between 0 and 10 that should go right; a picture is as bright as it is far."""

    action_spec, cameras, task = SPEC, ("front",), None

    def reset(self, *, seed=None, options=None):
        self.place, self.steps = float(options["init_state"]), 0
        return self.observe(), {}

    def observe(self):
        image = np.full((1, 4, 4, 3), np.clip(25 * self.place, 0, 255), np.uint8)
        return Observation({"front": image}, np.full((1, 8), self.place, np.float32), ("go",))

    def execute(self, chunk):
        self.place += float(chunk[:, 0].sum())
        self.steps += len(chunk)
        return SimpleNamespace(success=False, truncated=self.steps >= 8 * H, steps=len(chunk))

    def save(self):
        return self.place, self.steps

    def restore(self, snapshot):
        self.place, self.steps = snapshot

    def close(self):
        pass


class Walker:
    action_spec, horizon = SPEC, H

    def propose(self, observation, n, seeds):
        rng = np.random.default_rng(seeds[0])
        return ActionSamples(rng.uniform(-0.3, 0.3, (1, n, H, 2)).astype(np.float32))


class Knowing:
    """Imagines ``sign`` times what is true."""

    def __init__(self, sign=1.0):
        self.sign = sign

    def encode(self, observation):
        return observation.proprioception[:, :1].astype(np.float64)

    def step(self, latent, chunks):
        nothing = np.zeros(len(chunks), np.float32)
        return Prediction(latent + self.sign * chunks[:, :, :1].sum(axis=1), nothing, nothing)


class Seeing(Knowing):
    def decode(self, latent):
        level = np.clip(25 * latent[:, 0], 0, 255).astype(np.uint8)
        return {"front": np.broadcast_to(level[:, None, None, None], (len(latent), 2, 2, 3)).copy()}


class Far:
    def score(self, latent, instruction):
        return Score(np.float32(latent[:, 0]), np.zeros(len(latent), np.float32))


def decisions(**changes):
    return branchings(Line(), Walker(), 5, **({"candidates": 6, "every": 2} | changes))


def models(world):
    return Models(world_model=world, reward_model=Far())


def test_every_candidate_is_carried_out_from_the_same_place():
    found = decisions()
    assert len(found) == 4
    for item in found:
        assert item.chunks.shape == (6, H, 2) and item.after.batch == 6
        moved = item.after.proprioception[:, 0] - item.before.proprioception[0, 0]
        np.testing.assert_allclose(moved, item.chunks[:, :, 0].sum(axis=1), atol=1e-5)


def test_the_episode_goes_on_as_if_nobody_had_branched():
    places = [item.before.proprioception[0, 0] for item in decisions(every=1)]
    again = [item.before.proprioception[0, 0] for item in decisions(every=2)]
    assert places[::2] == again


def test_the_truth_ranks_perfectly_and_its_opposite_does_not():
    found = decisions()
    right, _ = fidelity(models(Knowing()), found)
    assert right.rank_correlation == pytest.approx(1.0)
    assert right.chosen == pytest.approx(right.best) and right.chosen > right.policy
    wrong, _ = fidelity(models(Knowing(-1.0)), found)
    assert wrong.rank_correlation == pytest.approx(-1.0)
    assert wrong.chosen < wrong.policy < wrong.best
    assert right.psnr is None and right.milliseconds > 0


def test_a_model_that_cannot_tell_candidates_apart_is_not_counted_as_right():
    blind, _ = fidelity(models(Knowing(0.0)), decisions())
    assert blind.decisions == 0 and np.isnan(blind.rank_correlation)


def test_pictures_are_compared_where_a_model_shows_some():
    right, rows = fidelity(models(Seeing()), decisions())
    wrong, _ = fidelity(models(Seeing(-1.0)), decisions())
    assert right.psnr is not None
    assert right.psnr_repeating is not None
    assert wrong.psnr is not None
    assert right.psnr > 45 > right.psnr_repeating > wrong.psnr
    assert [row.shape for row in rows] == [(24, 2, 2, 3)] * 3


def test_the_report_names_every_model_and_shows_those_that_decode(tmp_path, monkeypatch):
    folders = {"a/blind": models(Knowing()), "b/film": models(Seeing())}
    monkeypatch.setattr(imagination, "load_models", folders.__getitem__)
    benchmark = SimpleNamespace(tasks=(1,), make=lambda task: Line(), describe=lambda: {"name": "line"})
    path = imagination.bench_imagination(
        benchmark=benchmark, policy=Walker(), compare=list(folders), init_states="4-5", out=str(tmp_path)
    )
    report = json.loads(path.read_text())
    assert set(report["world_models"]) == set(folders)
    assert report["decisions"] == 4
    assert (tmp_path / "film.png").is_file() and not (tmp_path / "blind.png").exists()


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ForethoughtError, match="candidates=1"):
        imagination.bench_imagination(benchmark=None, policy=None, compare=["x"], candidates=1)
