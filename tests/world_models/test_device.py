"""Imagination on a device says what the plain models say; only the capture itself needs a GPU."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from forethought.interfaces import ActionSamples, ActionSpec, ForethoughtError, Observation
from forethought.interfaces import RewardModel as RewardProtocol
from forethought.interfaces import WorldModel as WorldProtocol
from forethought.planner import Gate, StateValue, TreeReuse, forethought
from forethought.reward.value import ValueEnsemble, ValueModel
from forethought.text import text_features
from forethought.world_models.captured import Captured, bucket, pieces
from forethought.world_models.device import DeviceModels
from forethought.world_models.dynamics import ChunkDynamics
from forethought.world_models.encoder import CONTEXT_SIZE, ObservationEncoder
from forethought.world_models.latent import LatentWorldModel

SPEC = ActionSpec(-np.ones(7), np.ones(7), (0, 1, 2), (3, 4, 5), (6,))
TASKS = ("pick up the soup", "open the drawer", "push the plate")


class Counting:
    """A capture that remembers how often it was made and repeated."""

    def __init__(self) -> None:
        self.made = self.repeated = 0

    def __call__(self, function):
        self.made += 1

        def run():
            self.repeated += 1
            function()

        return run


def plain(members=3, networks=3):
    torch.manual_seed(0)
    encoder = ObservationEncoder(["wrist"], image_size=32, features=18)
    size = encoder.latent_size + CONTEXT_SIZE
    dynamics = ChunkDynamics(size, CONTEXT_SIZE, horizon=4, action_size=7, members=members, hidden=32)
    world = LatentWorldModel(encoder, dynamics, privileged_supervision=True)
    return world, ValueModel(ValueEnsemble(size, members=networks, hidden=32), "success_discounted")


def on_device(world, value, **options):
    options = {"buckets": (4, 16), "capture": Counting()} | options
    return DeviceModels(world, value, **options)


def observe(batch=3, seed=0):
    draw = np.random.default_rng(seed)
    return Observation(
        images={"wrist": draw.integers(0, 255, (batch, 32, 32, 3), dtype=np.uint8)},
        proprioception=draw.normal(size=(batch, 8)).astype(np.float32),
        instruction=tuple(TASKS[row % 3] for row in range(batch)),
    )


def chunks(count, seed=0):
    return SPEC.clip(np.random.default_rng(seed).uniform(-1, 1, (count, 4, 7)).astype(np.float32))


def samples(batch, seed=0):
    return ActionSamples(chunks(batch * 6, seed).reshape(batch, 6, 4, 7))


class TestBuckets:
    def test_the_smallest_that_holds_the_batch_is_taken(self):
        assert [bucket((4, 8, 32), count) for count in (1, 4, 5, 8, 9, 32, 33)] == [4, 4, 8, 8, 32, 32, 32]

    def test_more_than_the_largest_is_cut_into_pieces(self):
        assert list(pieces((4, 8), 21)) == [(0, 8, 8), (8, 16, 8), (16, 21, 8)]
        assert list(pieces((4, 8), 18)) == [(0, 8, 8), (8, 16, 8), (16, 18, 4)]
        assert list(pieces((4, 8), 0)) == []

    @pytest.mark.parametrize("sizes", [(), (8, 4), (4, 4), (0, 2)])
    def test_sizes_that_make_no_sense_are_refused(self, sizes):
        with pytest.raises(ForethoughtError, match="ascending"):
            Captured(lambda rows: rows.float(), np.zeros(2), 2, torch.device("cpu"), sizes)

    def test_rows_are_padded_and_the_padding_never_comes_back(self):
        seen = []

        def double(rows):
            seen.append(rows.clone())
            return 2.0 * rows

        capture = Counting()
        function = Captured(double, np.array([7, -7]), 2, torch.device("cpu"), (4, 8), capture)
        rows = np.arange(44, dtype=np.int32).reshape(22, 2)
        for count in (22, 3, 1, 6):
            np.testing.assert_array_equal(function(rows[:count]), 2.0 * rows[:count])
        assert [len(batch) for batch in seen] == [8, 8, 8, 4, 4, 8]
        np.testing.assert_array_equal(seen[4][1:], [[7, -7]] * 3)  # not what the call before left there
        assert (capture.made, capture.repeated) == (2, 6)
        assert function(rows[:0]).shape == (0, 2)

    def test_all_buckets_can_be_captured_beforehand(self):
        capture = Counting()
        function = Captured(lambda rows: rows.float(), np.zeros(1), 1, torch.device("cpu"), (2, 4), capture)
        function.prepare()
        assert sorted(function.captured) == [2, 4]
        function(np.ones((3, 1), np.int32))
        assert capture.made == 2

    def test_where_capturing_fails_the_function_itself_is_called_and_it_is_said_once(self, caplog):
        def fails(function):
            raise RuntimeError("operation not permitted when stream is capturing")

        function = Captured(lambda rows: rows + 1.0, np.zeros(1), 1, torch.device("cpu"), (2, 4), fails)
        with caplog.at_level(logging.WARNING):
            for count in (1, 4, 2):
                np.testing.assert_array_equal(function(np.ones((count, 1), np.int32)), np.full((count, 1), 2))
        assert len(caplog.records) == 1
        assert "not permitted" in caplog.text


class TestModels:
    @pytest.mark.parametrize(("members", "networks"), [(3, 3), (3, 5), (1, 4)])
    @pytest.mark.parametrize("count", [1, 3, 4, 5, 16, 37])
    def test_they_say_what_the_plain_models_say(self, members, networks, count):
        world, value = plain(members, networks)
        models, observation = on_device(world, value), observe()
        assert isinstance(models, WorldProtocol) and isinstance(models, RewardProtocol)
        rows = np.arange(count) % 3
        words = [observation.instruction[row] for row in rows]
        latent, names = world.encode(observation)[rows], models.encode(observation)[rows]
        for depth in range(3):
            prediction = world.step(latent, chunks(count, depth))
            found = models.step(names, chunks(count, depth))
            expected, score = value.score(prediction.latent, words), models.score(found.latent, words)
            for one, other in (
                (found.disagreement, prediction.disagreement),
                (found.done, prediction.done),
                (score.value, expected.value),
                (score.spread, expected.spread),
                (models.latents(found.latent), prediction.latent),
            ):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
            latent, names = prediction.latent, found.latent

    def test_latents_stay_where_they_are_and_names_cross(self):
        models = on_device(*plain())
        names = models.encode(observe())
        assert names.shape == (3,) and names.dtype == object
        assert models.step(names, chunks(3)).latent.tolist() == [3, 4, 5]

    def test_a_wave_is_one_repetition_of_what_was_captured(self):
        capture = Counting()
        models = on_device(*plain(), capture=capture)
        models.prepare(observe())
        assert (capture.made, capture.repeated) == (2, 0)
        names = models.encode(observe())
        for _ in range(4):
            names = models.step(names, chunks(3)).latent
            models.score(names, TASKS)
        assert (capture.made, capture.repeated) == (2, 4)

    def test_an_encoded_state_has_a_value_too_and_another_instruction_another_one(self):
        world, value = plain()
        models, observation = on_device(world, value), observe()
        latent, names = world.encode(observation), models.encode(observation)
        other = TASKS[::-1]
        for one, words in ((names, TASKS), (names, other), (models.step(names, chunks(3)).latent, other)):
            found = models.score(one, words)
            expected = value.score(models.latents(one), words)
            np.testing.assert_allclose(found.value, expected.value, rtol=1e-4)
            np.testing.assert_allclose(found.spread, expected.spread, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(models.latents(names), latent, rtol=1e-6)

    def test_a_state_that_is_not_finite_disqualifies_itself_alone(self):
        models, observation = on_device(*plain()), observe()
        observation.proprioception[1] = np.nan
        prediction = models.step(models.encode(observation), chunks(3))
        assert np.isfinite(prediction.disagreement).tolist() == [True, False, True]
        assert np.isfinite(models.score(prediction.latent, TASKS).value).tolist() == [True, False, True]

    def test_a_state_that_is_not_finite_is_out_whatever_is_said_of_it(self):
        class Careless:
            """A model that is never in doubt, a value that likes everything."""

            device, horizon, action_size = torch.device("cpu"), 4, 7
            dynamics = network = torch.nn.Identity()

            def encode(self, observation):
                return torch.zeros(observation.batch, 2)

            def jump(self, latent, chunks):
                zero = torch.zeros(len(latent))
                return latent + 1.0 / chunks[:, 0, :2], zero, zero

            def words(self, instruction):
                return torch.zeros(len(instruction), 1)

            def judge(self, particles, words):
                return torch.ones(len(particles)), torch.zeros(len(particles))

        models = on_device(Careless(), Careless())
        moved = np.ones((3, 4, 7), np.float32)
        moved[1, 0, 1] = 0.0
        prediction = models.step(models.encode(observe()), moved)
        assert np.isfinite(prediction.disagreement).tolist() == [True, False, True]
        assert np.isfinite(models.score(prediction.latent, TASKS).value).tolist() == [True, False, True]

    def test_a_slot_that_is_given_out_again_has_forgotten_its_value(self):
        world, value = plain()
        models = on_device(world, value, slots=6)
        models.step(models.encode(observe()), chunks(3))
        models.encode(observe())
        again = models.encode(observe(3, 5))  # where the imagined states were
        expected = value.score(world.encode(observe(3, 5)), TASKS).value
        np.testing.assert_allclose(models.score(again, TASKS).value, expected, rtol=1e-4)

    def test_padding_touches_no_state(self):
        models = on_device(*plain())
        names = models.encode(observe())
        before = models.latents(names).clone()
        for _ in range(5):
            models.step(names[:1], chunks(1))
        assert torch.equal(models.latents(names), before)
        assert not models._pool[0].any()  # what padding reads is never written

    def test_names_are_good_until_their_slot_is_given_out_again(self):
        models = on_device(*plain(), slots=20)
        names = models.encode(observe())
        kept = models.latents(names).clone()
        later = models.step(names, chunks(3)).latent
        for _ in range(4):
            later = models.step(later, chunks(3)).latent
        assert torch.equal(models.latents(names), kept)
        later = models.step(later, chunks(3)).latent
        with pytest.raises(ForethoughtError, match="slots=20"):
            models.step(names, chunks(3))
        assert torch.isfinite(models.latents(models.step(later, chunks(3)).latent)).all()

    def test_a_state_of_the_future_and_more_states_than_slots_are_refused(self):
        models = on_device(*plain(), slots=4)
        names = models.encode(observe())
        with pytest.raises(ForethoughtError, match="given up"):
            models.step(names + 9, chunks(3))
        with pytest.raises(ForethoughtError, match="do not fit"):
            models.encode(observe(5))
        with pytest.raises(ForethoughtError, match="chunk length"):
            models.step(names, np.zeros((3, 5, 7), np.float32))

    def test_more_instructions_than_are_kept_at_a_time(self, monkeypatch):
        monkeypatch.setattr("forethought.world_models.device.INSTRUCTIONS", 2)
        world, value = plain()
        models = on_device(world, value)
        for row in (0, 1, 2, 0):
            observation = observe().rows([row])
            found = models.step(models.encode(observation), chunks(1))
            expected = value.score(models.latents(found.latent), observation.instruction)
            score = models.score(found.latent, observation.instruction)
            np.testing.assert_allclose(score.value, expected.value, rtol=1e-4)
        assert len(models._text) == 2

    def test_half_precision_is_near_and_keeps_latents_whole(self):
        world, value = plain()
        exact, half = on_device(world, value), on_device(world, value, precision=torch.bfloat16)
        assert next(half.world_model.dynamics.parameters()).dtype == torch.bfloat16
        assert next(world.dynamics.parameters()).dtype == torch.float32
        names = exact.encode(observe()), half.encode(observe())
        predictions = [model.step(name, chunks(3)) for model, name in zip((exact, half), names)]
        states = [model.latents(p.latent) for model, p in zip((exact, half), predictions)]
        assert states[1].dtype == torch.float32
        assert torch.equal(states[1][..., -CONTEXT_SIZE:], states[0][..., -CONTEXT_SIZE:])
        change = (states[0] - exact.latents(names[0])).abs().max()
        assert 0.0 < (states[1] - states[0]).abs().max() < 0.05 * change
        scores = [model.score(p.latent, TASKS).value for model, p in zip((exact, half), predictions)]
        np.testing.assert_allclose(scores[1], scores[0], atol=0.02)

    def test_words_and_judgement_are_those_of_the_value(self):
        _, value = plain()
        assert torch.equal(value.words(TASKS), text_features(TASKS))


class TestSearch:
    """A whole search over names of slots."""

    def decide(self, world, value, wrap=lambda planner: planner, **options):
        settings = {"simulations": 60, "depth": 3, "children": 12, "wave": 8} | options
        return wrap(forethought(world, value, action_spec=SPEC, **settings))

    @pytest.mark.parametrize("capture", [Counting(), None], ids=["captured", "plain"])
    def test_it_decides_as_over_the_plain_models(self, capture):
        world, value = plain()
        models = on_device(world, value, capture=capture)
        found, expected = (
            self.decide(*pair).plan(observe(), samples(3), np.arange(3))
            for pair in ((models, models), (world, value))
        )
        np.testing.assert_array_equal(found.chunk, expected.chunk)
        np.testing.assert_array_equal(found.simulations, expected.simulations)
        np.testing.assert_allclose(found.candidates.value, expected.candidates.value, rtol=1e-3)
        np.testing.assert_array_equal(found.candidates.visits, expected.candidates.visits)

    def test_many_decisions_go_round_the_ring(self):
        world, value = plain()
        models = on_device(world, value, slots=200)
        planner, other = self.decide(models, models), self.decide(world, value)
        for index in range(6):
            arguments = observe(2, index), samples(2, index), np.arange(2)
            np.testing.assert_array_equal(planner.plan(*arguments).chunk, other.plan(*arguments).chunk)

    def test_a_reused_tree_compares_states_and_not_their_names(self):
        world, value = plain()
        models = on_device(world, value)

        class Following:
            """What is observed is what the model expects."""

            def __init__(self, model):
                self.model, self.next = model, None

            def encode(self, observation):
                return self.model.encode(observation) if self.next is None else self.next

            def __getattr__(self, name):
                return getattr(self.model, name)

        decisions = {}
        for kind, model, reward, options in (
            ("device", Following(models), models, {"distance": models.distance}),
            ("plain", Following(world), value, {}),
        ):
            planner = TreeReuse(self.decide(model, reward), **options)
            first = planner.plan(observe(1), samples(1), np.arange(1))
            model.next = model.model.step(model.model.encode(observe(1)), first.chunk).latent
            second = planner.plan(observe(1), samples(1, 1), np.arange(1))
            decisions[kind] = second
            inherited = second.candidates.source_names.index("inherited")
            assert (second.candidates.source == inherited).sum() > 0
        np.testing.assert_array_equal(decisions["device"].chunk, decisions["plain"].chunk)
        np.testing.assert_array_equal(
            decisions["device"].candidates.source, decisions["plain"].candidates.source
        )

    def test_without_a_distance_names_never_match(self):
        world, value = plain()
        models = on_device(world, value)
        planner = TreeReuse(self.decide(models, models))
        for _ in range(2):
            decision = planner.plan(observe(1), samples(1), np.arange(1))
        inherited = decision.candidates.source_names.index("inherited")
        assert not (decision.candidates.source == inherited).any()

    def test_a_memory_is_asked_about_states(self):
        world, value = plain()
        models = on_device(world, value)

        class Memory:
            def nearest(self, latent, instruction, k):
                assert latent.shape[1:] == (3, 29 + CONTEXT_SIZE)
                assert torch.isfinite(latent).all()
                seed = int(1e3 * float(latent.abs().mean()))
                return chunks(len(latent) * k, seed % 7).reshape(len(latent), k, 4, 7)

            def all_chunks(self):
                return chunks(5)

        memory = models.remembering(Memory())
        np.testing.assert_array_equal(memory.all_chunks(), chunks(5))
        found = self.decide(models, models, memory=memory).plan(observe(1), samples(1), np.arange(1))
        expected = self.decide(world, value, memory=Memory()).plan(observe(1), samples(1), np.arange(1))
        np.testing.assert_array_equal(found.candidates.chunks, expected.candidates.chunks)

    def test_a_gate_sees_the_value_of_the_state(self):
        world, value = plain()
        models = on_device(world, value)
        gates = [
            Gate(self.decide(*pair), SPEC, StateValue(*pair), spread=9.0, drop=0.5)
            for pair in ((models, models), (world, value))
        ]
        found, expected = (gate.plan(observe(2), samples(2), np.arange(2)) for gate in gates)
        np.testing.assert_allclose(found.value, expected.value, rtol=1e-3)

    def test_a_row_without_a_finite_state_falls_back_alone(self):
        models, observation = on_device(*plain()), observe()
        observation.proprioception[1] = np.nan
        decision = self.decide(models, models).plan(observation, samples(3), np.arange(3))
        assert decision.fallback.tolist() == [False, True, False]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device: nothing to capture")
class TestOnGpu:
    @pytest.mark.parametrize("count", [1, 3, 37])
    def test_a_captured_wave_is_what_the_models_say(self, count):
        world, value = plain()
        world = LatentWorldModel(world.encoder, world.dynamics, privileged_supervision=True, device="cuda")
        value.network.to("cuda")
        captured = DeviceModels(world, value, buckets=(4, 16))
        free = DeviceModels(world, value, buckets=(4, 16), capture=lambda function: function)
        for _ in range(3):
            found = []
            for models in (captured, free):
                names = models.encode(observe())[np.arange(count) % 3]
                prediction = models.step(models.step(names, chunks(count)).latent, chunks(count, 1))
                score = models.score(prediction.latent, [TASKS[row % 3] for row in range(count)])
                found.append((score.value, score.spread, prediction.disagreement, prediction.done))
            for one, other in zip(*found):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert captured.wave._capture is not None  # it did not fall back
