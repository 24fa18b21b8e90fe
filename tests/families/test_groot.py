"""GR00T in both of its interfaces: flat with or without a batch axis, and nested."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import forethought
from forethought.interfaces import ForethoughtError

STEPS = 16


class Head:
    """What both policies draw from: noise of torch's global generator, as a flow-matching head does."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def draw(self, rows: int) -> np.ndarray:
        self.rows.append(rows)
        chunks = 0.1 * torch.randn(rows, STEPS, 7).numpy()
        chunks[..., 6] = np.where(chunks[..., 6] > 0, 1.0, -1.0)
        return chunks.astype(np.float32)


class Flat(Head):
    """N1: ``video.…`` and ``state.…``; without a batch axis everything of size one is squeezed away."""

    def get_modality_config(self):
        keys = {
            "video": ["video.front"],
            "state": ["state.arm", "state.hand"],
            "action": ["action.arm", "action.hand"],
        }
        return {name: SimpleNamespace(modality_keys=value) for name, value in keys.items()}

    def get_action(self, observations):
        batched = observations["state.arm"].ndim == 3
        chunks = self.draw(len(observations["state.arm"]) if batched else 1)
        answer = {"action.arm": chunks[..., :6], "action.hand": chunks[..., 6:]}
        return answer if batched else {name: np.squeeze(value) for name, value in answer.items()}


class Nested(Head):
    """N1.6 and later: always batched, answers with information too."""

    def get_modality_config(self):
        keys = {"video": ["front"], "state": ["arm", "hand"], "action": ["arm", "hand"], "language": ["task"]}
        return {name: SimpleNamespace(modality_keys=value) for name, value in keys.items()}

    def get_action(self, observation, options=None):
        said = [words for (words,) in observation["language"]["task"]]
        assert said == [f"task {int(row[0, 0])}" for row in observation["state"]["arm"]]
        chunks = self.draw(len(observation["state"]["arm"]))
        return {"arm": chunks[..., :6], "hand": chunks[..., 6:]}, {"note": "kept"}


def flat(batch: int | None = None) -> dict:
    lead = () if batch is None else (batch,)
    return {
        "video.front": np.full((*lead, 2, 6, 6, 3), 5, np.uint8),
        "state.hand": np.full((*lead, 1, 1), 2.0, np.float32),
        "state.arm": np.ones((*lead, 1, 6), np.float32),
        "annotation.human.task_description": ["open the drawer"] * (batch or 1),
    }


def numbered(batch: int) -> np.ndarray:
    return np.tile(np.arange(batch, dtype=np.float32)[:, None, None], (1, 1, 6))


def nested(batch: int) -> dict:
    return {
        "video": {"front": np.full((batch, 2, 6, 6, 3), 5, np.uint8)},
        "state": {"arm": numbered(batch), "hand": np.full((batch, 1, 1), 2.0, np.float32)},
        "language": {"task": [[f"task {row}"] for row in range(batch)]},
    }


CASES = {
    "flat, one row": (Flat, flat, None),
    "flat, a batch": (Flat, flat, 3),
    "nested, one row": (Nested, nested, 1),
    "nested, a batch": (Nested, nested, 3),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    kind, observation, batch = request.param
    return kind, (lambda: observation(batch)), batch or 1


def parts(answer):
    return answer[0] if isinstance(answer, tuple) else answer


def test_a_kept_action_is_the_originals_to_the_bit(case, wrap):
    kind, observation, _ = case

    def run(policy):
        torch.manual_seed(4)
        return [parts(policy.get_action(observation())) for _ in range(3)]

    wrapped = wrap(kind())
    for ours, theirs in zip(run(wrapped), run(kind()), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert not wrapped.forethought.counters


def test_further_samples_are_one_more_call_on_copies(case, wrap):
    kind, observation, batch = case
    wrapped = wrap(kind())
    wrapped.get_action(observation())
    assert wrapped.rows == [batch, 5 * batch]
    chunks = wrapped.forethought.controller.planner.samples[0].chunks
    assert chunks.shape == (batch, 6, 8, 7)
    assert len(np.unique(chunks[..., 0, 0])) == 6 * batch


def test_the_models_see_the_latest_frame_and_the_state_in_its_order(case, wrap):
    kind, observation, batch = case
    wrapped = wrap(kind())
    wrapped.get_action(observation())
    seen = wrapped.forethought.controller.planner.observations[0]
    assert seen.images["front"].shape == (batch, 6, 6, 3)
    if kind is Flat:
        assert np.array_equal(seen.proprioception, [[*[1.0] * 6, 2.0]] * batch)
        assert seen.instruction == ("open the drawer",) * batch
    else:
        assert np.array_equal(seen.proprioception, [[*[float(row)] * 6, 2.0] for row in range(batch)])
        assert seen.instruction == tuple(f"task {row}" for row in range(batch))


def test_a_planned_chunk_has_the_planned_steps_in_the_policys_parts(case, wrap):
    kind, observation, _ = case
    wrapped, alone = wrap(kind(), "rising"), parts(kind().get_action(observation()))
    answer = wrapped.get_action(observation())
    arm, hand = (parts(answer)[name] for name in alone)
    assert np.allclose(arm[..., 0], 0.1 * np.arange(1, 9))
    assert arm.dtype == np.float32
    assert arm.ndim == next(iter(alone.values())).ndim
    assert set(np.unique(hand)) <= {-1.0, 1.0}
    if isinstance(answer, tuple):
        assert answer[1] == {"note": "kept"}


def test_it_keeps_its_class(wrap):
    original = Nested()
    wrapped = wrap(original)
    assert isinstance(wrapped, Nested) and forethought.unwrap(wrapped) is original
    assert wrapped.get_modality_config()["action"].modality_keys == ["arm", "hand"]


def test_models_of_another_size_or_longer_chunks_are_refused(wrap, spec):
    with pytest.raises(ForethoughtError, match="20 steps"):
        wrap(Nested(), horizon=20).get_action(nested(1))


def test_an_observation_of_another_shape_says_what_was_found(wrap):
    with pytest.raises(ForethoughtError, match=r"video\.….*front"):
        wrap(Flat()).get_action({"image": np.zeros((6, 6, 3), np.uint8)})
