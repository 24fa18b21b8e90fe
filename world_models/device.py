"""Imagination that stays on the device: only numbers of slots, actions and values cross.

The planner holds latents without looking inside, so that it can as well hold the numbers of slots in a pool
on the device. One call of ``step`` then gathers the parents, imagines, scores and stores the children, in one
CUDA graph; ``score`` reads what came back with it. The tree stays on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..interfaces import ForethoughtError, Latent, Observation, Prediction, Score
from .captured import BUCKETS, Capture, Captured

READ, WRITTEN, SPARE = 0, 1, 2
"""Slots that padding reads and writes; the first that is given out."""

INSTRUCTIONS = 1024
"""Different instructions that are known at a time."""


class TensorModel(Protocol):
    """A world model that also jumps from tensors to tensors, such as ``LatentWorldModel``."""

    device: torch.device
    horizon: int
    action_size: int

    @property
    def dynamics(self) -> nn.Module: ...

    def encode(self, observation: Observation) -> Latent: ...

    def jump(self, latent: Tensor, chunks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Next latents ``[M, ...]``, disagreement ``[M]`` and done-probability ``[M]`` of chunks ``[M, H,
        A]``. Never waits for the device."""
        ...


class TensorValue(Protocol):
    """A reward model that also judges from tensors to tensors, such as ``reward.value.ValueModel``."""

    @property
    def network(self) -> nn.Module: ...

    def words(self, instruction: Sequence[str]) -> Tensor:
        """Instructions ``float32 [M, W]``."""
        ...

    def judge(self, particles: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Value and spread ``[M]`` of latents ``[M, ...]``. Never waits for the device."""
        ...


class ChunkMemory(Protocol):
    """What ``DeviceModels.remembering`` stands in front of."""

    def nearest(self, latent: Latent, instruction: Sequence[str], k: int) -> np.ndarray: ...

    def all_chunks(self) -> np.ndarray: ...


class DeviceModels:
    """World model and reward model of a search in one object: hand it over as both.

    Its latents are names of slots (an object array of integers ``[M]``: numbers that mean nothing). Slots are
    given out in a ring; a name is good until ``slots`` more have been given out. A search of N simulations
    takes N + 1 a row, and a reused tree goes back as many decisions as it is deep.

    A tree search with reuse compares states: build it with ``TreeReuse(search, distance=models.distance)``. A
    memory of chunks is asked about states: give ``models.remembering(memory)`` to the planner.

    Args:
        world_model: Its networks are on the device already.
        reward_model: Its network is moved there.
        precision: Type in which the matrices are multiplied; latents, values and what is added to latents
            stay float32. bfloat16 keeps three digits of a value's logit.
        slots: Latents kept.
        buckets: Batch sizes, see ``Captured``.
        capture: See ``Captured``.

    Attributes:
        wave: What one call of ``step`` computes.

    Raises:
        ForethoughtError: On a name that is no longer good.
    """

    def __init__(
        self,
        world_model: TensorModel,
        reward_model: TensorValue,
        *,
        precision: torch.dtype = torch.float32,
        slots: int = 16384,
        buckets: Sequence[int] = BUCKETS,
        capture: Capture | None = None,
    ) -> None:
        self.device = torch.device(world_model.device)
        self.horizon, self.action_size = world_model.horizon, world_model.action_size
        self.precision, self.slots = precision, slots
        self.world_model = in_precision(world_model, "dynamics", precision, self.device)
        self.reward_model = in_precision(reward_model, "network", precision, self.device)
        self._given = 0  # names given out so far
        self._pool: Tensor | None = None  # [slots + SPARE, ...]
        self._words: Tensor | None = None  # [INSTRUCTIONS, W]
        self._text: dict[str, int] = {}
        self._text_of = np.zeros(slots + SPARE, np.int32)
        self._known = np.zeros((slots + SPARE, 2), np.float32)  # value and spread …
        self._known_for = np.full(slots + SPARE, -1, np.int32)  # … for this instruction
        padding = np.zeros(3 + self.horizon * self.action_size, np.int32)
        padding[1] = WRITTEN
        self.wave = Captured(self._imagine, padding, 4, self.device, buckets, capture)

    def prepare(self, observation: Observation) -> None:
        """Capture all graphs now; the observation shows the shape of a latent. Else each size of batch is
        captured when it first comes up, in the middle of a decision."""
        self.encode(observation)
        self.wave.prepare()

    @torch.inference_mode()
    def encode(self, observation: Observation) -> Latent:
        """Names of the encoded states, ``[B]``."""
        latent = torch.as_tensor(self.world_model.encode(observation)).to(self.device)
        names = self._names(len(latent))
        places = self._places(names)
        if self._pool is None:
            shape = (self.slots + SPARE, *latent.shape[1:])
            self._pool = torch.zeros(shape, dtype=latent.dtype, device=self.device)
        self._pool.index_copy_(0, torch.from_numpy(places).to(self.device), latent)
        self._text_of[places] = [self._number(text) for text in observation.instruction]
        self._known_for[places] = -1
        return names.astype(object)

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """Names of the states after chunks ``[M, H, A]`` from the states named ``[M]``. A state that is not
        finite has no finite disagreement, so that a search leaves it out."""
        if chunks.shape[1:] != (self.horizon, self.action_size):
            raise ForethoughtError(
                f"The world model jumps over chunks [M, {self.horizon}, {self.action_size}]; got "
                f"{list(chunks.shape)}. Plan with the chunk length that the models were trained on."
            )
        before = np.asarray(latent).astype(np.int64)
        names = self._names(len(before))
        sources, targets = self._places(before), self._places(names)
        rows = np.empty((len(before), 3 + self.horizon * self.action_size), np.int32)
        rows[:, 0], rows[:, 1], rows[:, 2] = sources, targets, self._text_of[sources]
        rows[:, 3:] = np.ascontiguousarray(chunks, np.float32).reshape(len(before), -1).view(np.int32)
        found = self.wave(rows)
        self._text_of[targets] = self._known_for[targets] = rows[:, 2]
        self._known[targets] = found[:, :2]
        return Prediction(names.astype(object), found[:, 2], found[:, 3])

    @torch.inference_mode()
    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        """Values of the states named ``[M]``: known since ``step``, or asked now for an encoded state and for
        another instruction than it was encoded with."""
        places = self._places(np.asarray(latent).astype(np.int64))
        text = np.array([self._number(words) for words in instruction], np.int32)
        found = self._known[places]
        asked = np.flatnonzero(text != self._known_for[places])
        if asked.size:
            found[asked] = self._judged(places[asked], text[asked])
        return Score(found[:, 0], found[:, 1])

    def latents(self, names: Latent) -> Tensor:
        """The states themselves, ``[M, ...]`` on the device."""
        places = self._places(np.asarray(names).astype(np.int64))
        assert self._pool is not None
        return self._pool.index_select(0, torch.from_numpy(places).to(self.device))

    def distance(self, predicted: Latent, observed: Latent) -> np.ndarray:
        """Root mean square difference per coordinate of states named ``[M]``, ``float64 [M]``."""
        difference = (self.latents(predicted) - self.latents(observed)).double()
        return difference.flatten(1).square().mean(dim=1).sqrt().cpu().numpy()

    def remembering(self, memory: ChunkMemory) -> ChunkMemory:
        """A memory that is asked by names."""
        return _Remembering(self, memory)

    def _imagine(self, rows: Tensor) -> Tensor:
        """What is captured: value, spread, disagreement and done ``[n, 4]`` of rows ``int32 [n, 3 + H·A]``
        that hold the slot to read, the slot to write, the number of the instruction, and the chunk."""
        assert self._pool is not None and self._words is not None
        chunks = rows[:, 3:].contiguous().view(torch.float32).view(-1, self.horizon, self.action_size)
        latent = self._pool.index_select(0, rows[:, 0])
        words = self._words.index_select(0, rows[:, 2])
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            following, disagreement, done = self.world_model.jump(latent, chunks)
            value, spread = self.reward_model.judge(following, words)
        self._pool.index_copy_(0, rows[:, 1].long(), following.to(self._pool.dtype))
        return _if_whole(following, value, spread, disagreement, done)

    def _judged(self, places: np.ndarray, text: np.ndarray) -> np.ndarray:
        assert self._pool is not None and self._words is not None
        index = torch.from_numpy(np.stack([places, text])).to(self.device)
        latent, words = self._pool.index_select(0, index[0]), self._words.index_select(0, index[1])
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            found = self.reward_model.judge(latent, words)
        return _if_whole(latent, *found).cpu().numpy()

    def _names(self, count: int) -> np.ndarray:
        if count > self.slots:
            raise ForethoughtError(
                f"{count} states at once do not fit into slots={self.slots}. Give DeviceModels more slots."
            )
        names = np.arange(self._given, self._given + count)
        self._given += count
        return names

    def _places(self, names: np.ndarray) -> np.ndarray:
        """Slots of names ``int64 [M]``."""
        if names.size and (names.min() < self._given - self.slots or names.max() >= self._given):
            raise ForethoughtError(
                f"State {int(names.min())} was given up: slots={self.slots} later ones have been imagined "
                "since. Give DeviceModels more slots (rows x simulations x depth of a reused tree)."
            )
        return SPARE + names % self.slots

    def _number(self, instruction: str) -> int:
        """Row of the instruction in the table on the device; the oldest gives way to a new one."""
        number = self._text.get(instruction)
        if number is not None:
            return number
        words = self.reward_model.words([instruction]).to(self.device)
        table = self._words
        if table is None:
            table = self._words = words.new_zeros((INSTRUCTIONS, words.shape[1]))
        number = len(self._text)
        if number == INSTRUCTIONS:
            number = self._text.pop(next(iter(self._text)))
        self._text[instruction] = number
        table[number] = words[0]
        return number


def _if_whole(latent: Tensor, *numbers: Tensor) -> Tensor:
    """Numbers ``[M]`` side by side, ``float32 [M, n]``; NaN where the latent is not finite."""
    whole = latent.isfinite().flatten(1).all(dim=1)
    return torch.where(whole[:, None], torch.stack(numbers, dim=1).float(), torch.nan)


class _Remembering:
    """A memory of chunks that is asked by names of states."""

    def __init__(self, models: DeviceModels, memory: ChunkMemory) -> None:
        self._models, self._memory = models, memory

    def nearest(self, latent: Latent, instruction: Sequence[str], k: int) -> np.ndarray:
        return self._memory.nearest(self._models.latents(latent), instruction, k)

    def all_chunks(self) -> np.ndarray:
        return self._memory.all_chunks()


def in_precision(part: Any, name: str, precision: torch.dtype, device: torch.device) -> Any:
    """A copy of a model whose network ``name`` has its parameters in a precision, on a device. Buffers stay
    as they are: they scale what is added to a latent."""
    twin = copy.copy(part)
    network: nn.Module = copy.deepcopy(getattr(part, name)).to(device)
    for parameter in network.parameters():
        parameter.data = parameter.data.to(precision)
    setattr(twin, name, network)
    return twin
