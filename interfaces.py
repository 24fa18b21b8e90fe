"""The vocabulary of Forethought: the data that flows between the rooms, and the five protocols.

Read this file first. It imports no room. Conventions that hold everywhere:

* The batch axis comes first. One letter only for sizes: ``B`` batch (environments), ``N`` samples, ``K``
  children, ``M`` a flat set of latents, ``H`` chunk length (control steps), ``A`` action size, ``P``
  proprioception size.
* Action chunks cross rooms in *environment* units, as ``float32`` NumPy arrays. A policy that works in
  normalised units converts inside its wrapper.
* Values are success probabilities discounted by time, in ``[0, 1]``, as ``float32`` NumPy arrays.
* Randomness is explicit: whoever draws takes one integer seed per batch row, so that a row's result depends
  neither on its neighbours nor on what was drawn before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import torch

Latent: TypeAlias = "torch.Tensor | np.ndarray"
"""State of a world model, ``[M, ...]``. Opaque to the planner, which only indexes axis 0 (with integer
arrays) and concatenates along it. A learned model uses a tensor on its own device, the simulator an object
array of snapshots."""


class ForethoughtError(Exception):
    """A problem the user can mend. The message says what was given, what was expected, and what to do."""


@dataclass(frozen=True, eq=False)
class ActionSpec:
    """What the numbers of an action mean, so that noise, averages and distances can respect it.

    Attributes:
        low: Lower bounds, environment units, ``[A]``.
        high: Upper bounds, environment units, ``[A]``.
        position: Indices of the Cartesian translation command.
        rotation: Indices of the rotation command, an axis-angle vector up to ``rotation_scale``.
        gripper: Indices of gripper commands. A binary gripper takes the value ``low`` or ``high``, nothing
            between.
        gripper_is_binary: Whether the gripper only knows open and closed.
        position_scale: Metres per unit of the position command.
        rotation_scale: Radians per unit of the rotation command.
    """

    low: np.ndarray
    high: np.ndarray
    position: tuple[int, ...] = ()
    rotation: tuple[int, ...] = ()
    gripper: tuple[int, ...] = ()
    gripper_is_binary: bool = True
    position_scale: float = 1.0
    rotation_scale: float = 1.0

    def __post_init__(self) -> None:
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        if low.ndim != 1 or low.shape != high.shape or not np.all(low < high):
            raise ForethoughtError(
                f"ActionSpec needs bounds low < high of one shape [A]; got low={low.tolist()}, "
                f"high={high.tolist()}."
            )
        named = [*self.position, *self.rotation, *self.gripper]
        if len(set(named)) != len(named) or any(not 0 <= index < low.size for index in named):
            raise ForethoughtError(
                f"ActionSpec indices must be distinct and in 0..{low.size - 1}; got "
                f"position={self.position}, "
                f"rotation={self.rotation}, gripper={self.gripper}."
            )
        if self.rotation and len(self.rotation) not in (1, 3):
            raise ForethoughtError(
                f"rotation must name 1 (yaw) or 3 (axis-angle) indices; got {self.rotation}."
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def to_dict(self) -> dict[str, Any]:
        """The specification as JSON can hold it."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return fields | {"low": self.low.tolist(), "high": self.high.tolist()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ActionSpec:
        """What ``to_dict`` wrote, also after JSON has turned tuples into lists."""
        values: dict[str, Any] = dict(fields)
        values.update({name: tuple(value) for name, value in fields.items() if isinstance(value, list)})
        return cls(**values)

    @property
    def size(self) -> int:
        """Action size A."""
        return int(self.low.size)

    @property
    def continuous(self) -> tuple[int, ...]:
        """Indices that are not a binary gripper."""
        binary = self.gripper if self.gripper_is_binary else ()
        return tuple(index for index in range(self.size) if index not in binary)

    def clip(self, chunks: np.ndarray) -> np.ndarray:
        """Chunks ``[..., A]`` inside the bounds, a binary gripper snapped to the nearer of its two values."""
        clipped = np.minimum(np.maximum(chunks, self.low), self.high).astype(np.float32, copy=False)
        if self.gripper_is_binary and self.gripper:
            index = list(self.gripper)
            middle = 0.5 * (self.low[index] + self.high[index])
            clipped[..., index] = np.where(clipped[..., index] > middle, self.high[index], self.low[index])
        return clipped


@dataclass(frozen=True, eq=False)
class Observation:
    """What the robots see now, for B environments.

    Attributes:
        images: Camera name to ``uint8 [B, height, width, 3]``, upright as the policy's convention wants them.
        proprioception: ``float32 [B, P]``; its layout is the benchmark's (LIBERO: end-effector position in
            metres 3, axis-angle in radians 3, finger positions in metres 2).
        instruction: The task in words, one string per row.
    """

    images: Mapping[str, np.ndarray]
    proprioception: np.ndarray
    instruction: tuple[str, ...]

    @property
    def batch(self) -> int:
        """Number of rows B."""
        return len(self.instruction)

    def rows(self, index: Sequence[int] | np.ndarray) -> Observation:
        """The observation of some rows, in the order given."""
        index = np.asarray(index, dtype=np.int64)
        return Observation(
            images={name: image[index] for name, image in self.images.items()},
            proprioception=self.proprioception[index],
            instruction=tuple(self.instruction[i] for i in index),
        )

    @staticmethod
    def stack(observations: Sequence[Observation]) -> Observation:
        """One batch from several observations with the same cameras."""
        return Observation(
            images={
                name: np.concatenate([o.images[name] for o in observations])
                for name in observations[0].images
            },
            proprioception=np.concatenate([o.proprioception for o in observations]),
            instruction=tuple(text for o in observations for text in o.instruction),
        )


@dataclass(frozen=True, eq=False)
class ActionSamples:
    """Candidate action chunks of a policy.

    Attributes:
        chunks: ``float32 [B, N, H, A]``, environment units. Sample 0 is what the policy itself would execute.
        log_probability: ``float32 [B, N]`` under the policy, or None where the policy has no likelihood.
    """

    chunks: np.ndarray
    log_probability: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a world model expects after a chunk.

    Attributes:
        latent: State after the chunk, ``[M, ...]``.
        disagreement: Spread of the ensemble in (standardised) latent units, ``float32 [M]``; zero for an
            exact model.
        done: Probability that the episode ended in success on the way, ``float32 [M]``.
    """

    latent: Latent
    disagreement: np.ndarray
    done: np.ndarray


COST_TIERS = ("vector", "tokens", "video", "foundation", "simulator")
"""From cheap to dear: one small vector a state; a grid of tokens; a diffusion model over frames; a pretrained
video model; the simulator, which carries every chunk out."""


@dataclass(frozen=True)
class ImaginationCost:
    """What imagining costs. A world model may declare it as its attribute ``cost``; a planner that is asked
    to picks its width, depth and wave from it.

    Attributes:
        tier: One of ``COST_TIERS``.
        milliseconds: Wall time of one candidate (one chunk from one state) in a full wave, on the device
            named; None where nobody measured.
        wave: Candidates that are best imagined together; 1 where there is no batch.
        device: What ``milliseconds`` was measured on.
    """

    tier: str
    milliseconds: float | None = None
    wave: int = 8
    device: str = ""

    def __post_init__(self) -> None:
        if self.tier not in COST_TIERS:
            raise ForethoughtError(
                f"The cost tier of a world model must be one of {list(COST_TIERS)}; got {self.tier!r}."
            )
        if self.wave < 1 or (self.milliseconds is not None and not self.milliseconds > 0):
            raise ForethoughtError(
                f"A cost needs wave >= 1 and milliseconds > 0 or None; got wave={self.wave}, "
                f"milliseconds={self.milliseconds}."
            )


@dataclass(frozen=True, eq=False)
class Score:
    """How good latents are.

    Attributes:
        value: Mean over the ensemble, ``float32 [M]``.
        spread: Standard deviation over the ensemble, in units of the value, ``float32 [M]``.
    """

    value: np.ndarray
    spread: np.ndarray


@dataclass(frozen=True, eq=False)
class Candidates:
    """The root's children, kept so that a decision can explain itself.

    Attributes:
        chunks: ``float32 [B, K, H, A]``; slot 0 is the policy's own.
        source: ``int8 [B, K]``, an index into ``source_names``.
        source_names: Names of the proposal sources.
        prior: ``float32 [B, K]``, normalised over K.
        value: ``float32 [B, K]``, NaN where never evaluated.
        visits: ``int32 [B, K]``.
    """

    chunks: np.ndarray
    source: np.ndarray
    source_names: tuple[str, ...]
    prior: np.ndarray
    value: np.ndarray
    visits: np.ndarray


@dataclass(frozen=True, eq=False)
class Decision:
    """What to execute, and why.

    Attributes:
        chunk: ``float32 [B, H, A]``, environment units, inside the bounds.
        slot: ``int32 [B]``, the root child chosen; 0 is the policy's own chunk.
        value: ``float32 [B]``, value of what was chosen; NaN after a fallback.
        policy_value: ``float32 [B]``, value of the policy's own chunk; NaN after a fallback.
        overridden: ``bool [B]``, whether something else than the policy's chunk is executed.
        fallback: ``bool [B]``, whether the planner failed on this row and the policy's chunk was taken for
            that reason.
        reason: One short phrase per row: why it switched, or why it did not.
        simulations: ``int32 [B]``, distinct world-model evaluations spent on this row.
        milliseconds: Component name to wall time for the whole batch (``policy``, ``encode``, ``search``,
            ``guard``).
        guard: One phrase per row: what the guard changed or why it stopped the row; empty where it let the
            chunk pass. Empty as a whole where no guard looked.
        candidates: The root's children, or None after a fallback.
    """

    chunk: np.ndarray
    slot: np.ndarray
    value: np.ndarray
    policy_value: np.ndarray
    overridden: np.ndarray
    fallback: np.ndarray
    reason: tuple[str, ...]
    simulations: np.ndarray
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    guard: tuple[str, ...] = ()
    candidates: Candidates | None = None


@runtime_checkable
class Policy(Protocol):
    """Anything that maps an observation to action chunks. The planner never sees more of it than this."""

    @property
    def action_spec(self) -> ActionSpec:
        """What the numbers of an action mean."""
        ...

    @property
    def horizon(self) -> int:
        """Chunk length H in control steps."""
        ...

    def propose(self, observation: Observation, n: int, seeds: np.ndarray) -> ActionSamples:
        """N chunks per row. ``seeds`` is ``int64 [B]``; the same seed gives the same chunks, and sample 0
        does not depend on ``n``: it is the chunk that the policy executes when nobody searches."""
        ...


@runtime_checkable
class WorldModel(Protocol):
    """What happens next."""

    def encode(self, observation: Observation) -> Latent:
        """Latents ``[B, ...]`` of an observation."""
        ...

    def step(self, latent: Latent, chunks: np.ndarray) -> Prediction:
        """The state after a chunk. ``latent`` is ``[M, ...]``, ``chunks`` is ``float32 [M, H, A]``."""
        ...


@runtime_checkable
class RewardModel(Protocol):
    """How good it is."""

    def score(self, latent: Latent, instruction: Sequence[str]) -> Score:
        """Value of latents ``[M, ...]`` for the instruction of each, a sequence of M strings."""
        ...


@runtime_checkable
class Reasoner(Protocol):
    """A model that thinks, or looks closer, before the policy acts."""

    def consider(self, observation: Observation) -> Observation:
        """The observation to act on: another instruction, a zoomed image, or the same object unchanged."""
        ...


@runtime_checkable
class Planner(Protocol):
    """Chooses a chunk among those imagined."""

    def plan(self, observation: Observation, samples: ActionSamples, seeds: np.ndarray) -> Decision:
        """One decision per row. ``samples`` holds the policy's chunks ``[B, N, H, A]`` (sample 0 is its own
        choice), ``seeds`` is ``int64 [B]``. May raise; whoever drives a robot catches it and executes sample
        0."""
        ...


@runtime_checkable
class RowPlanner(Planner, Protocol):
    """A ``Planner`` that remembers something of each row from one decision to the next.

    ``plan`` takes the i-th row of a batch for the i-th row of the batch before. Whoever leaves rows out
    (nothing to see, a policy that failed) calls ``plan_rows`` instead, and the other rows keep their memory.
    """

    def plan_rows(
        self, observation: Observation, samples: ActionSamples, seeds: np.ndarray, rows: np.ndarray
    ) -> Decision:
        """What ``plan`` does, for rows that have names: ``rows`` is ``int64 [B]``, distinct. Rows that are
        not named keep what they remember."""
        ...

    def reset(self, rows: Sequence[int] | None = None) -> None:
        """Forget everything, or what some rows remember."""
        ...


PolicyLike: TypeAlias = Any
"""An object of somebody else's class that a wrapper knows how to drive."""
