"""Turns what somebody else's policy receives into an ``Observation``.

The general way is a function of the user's, handed to ``wrap(observation=...)``. Without one, an
``Observation`` and dictionaries with the usual spellings are understood: ``uint8`` images with the colours
last, a state vector, and an instruction; with a batch axis or without, flat (``"observation/state"``,
``"observation.images.wrist"``) or nested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..interfaces import ForethoughtError, Observation

STATE_KEYS = ("proprioception", "state", "states", "proprio", "robot_state", "agent_pos")
INSTRUCTION_KEYS = (
    "instruction",
    "prompt",
    "task",
    "task_description",
    "task_label",
    "language_instruction",
    "language",
    "lang",
    "text",
)
CAMERA_KEYS = (
    (
        "agentview_rgb",
        "agentview",
        "agentview_image",
        "image",
        "full_image",
        "image_primary",
        "base_0_rgb",
        "third_person_image",
    ),
    (
        "eye_in_hand_rgb",
        "eye_in_hand",
        "robot0_eye_in_hand_image",
        "wrist_image",
        "wrist",
        "image_wrist",
        "wrist_rgb",
        "left_wrist_0_rgb",
        "image2",
    ),
)
"""Names of one camera in different projects, a group a camera."""


def from_call(args: Sequence[Any], kwargs: Mapping[str, Any], cameras: Sequence[str] = ()) -> Observation:
    """The observation among the arguments of a call of the policy.

    Args:
        args: An Observation or a dictionary; a string beside it is the instruction.
        kwargs: Further entries of the dictionary.
        cameras: Cameras that the observation must have, found under any of their usual names. Empty keeps all
            images under the names that they come with.

    Raises:
        ForethoughtError: Something is missing or has an unknown shape. Names what was found and what was
            expected.
    """
    values = [*args, *kwargs.values()]
    for value in values:
        if isinstance(value, Observation):
            return value
    entries: dict[str, Any] = {}
    for value in args:
        if isinstance(value, Mapping):
            entries |= _flat(value)
    entries |= _flat(kwargs)
    texts = [value for value in args if isinstance(value, str)]
    if texts:
        entries.setdefault("instruction", texts[0])
    if not entries:
        raise ForethoughtError(
            f"Cannot find an observation in a call with {[type(value).__name__ for value in values]}. "
            "Expected an "
            "Observation or a dictionary with images, state and instruction; for anything else hand "
            "wrap(observation=...) a function of the same arguments that returns an Observation."
        )
    return _from_entries(entries, cameras)


def _from_entries(entries: Mapping[str, Any], cameras: Sequence[str]) -> Observation:
    arrays = {name: _array(value) for name, value in entries.items()}
    images = {name: array for name, array in arrays.items() if _is_image(array)}
    chosen = {camera: _find_camera(camera, images, entries) for camera in cameras} or {
        _last(name): array for name, array in images.items()
    }
    state = _find(STATE_KEYS, arrays)
    if state is None or not np.issubdtype(state.dtype, np.number) or state.ndim not in (1, 2):
        raise _missing("a state vector [P] or [B, P]", STATE_KEYS, entries)
    batched = [array.ndim == 4 for array in chosen.values()]
    if any(one != (state.ndim == 2) for one in batched):
        shapes = {name: list(array.shape) for name, array in {**chosen, "state": state}.items()}
        raise ForethoughtError(
            f"The images and the state must all have a batch axis, or none of them; got shapes {shapes}."
        )
    if state.ndim == 1:
        state, chosen = state[None], {name: image[None] for name, image in chosen.items()}
    sizes = {name: len(array) for name, array in {**chosen, "state": state}.items()}
    if len(set(sizes.values())) > 1:
        raise ForethoughtError(
            f"The images and the state must have one batch size; got {sizes}. Check the batch axis."
        )
    instruction = _instruction(_find(INSTRUCTION_KEYS, entries), len(state))
    if instruction is None:
        raise _missing(f"an instruction, one string or {len(state)}", INSTRUCTION_KEYS, entries)
    return Observation(chosen, np.asarray(state, np.float32), instruction)


def _flat(entries: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in entries.items():
        name = f"{prefix}{key}".replace("/", ".")
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _array(value: Any) -> np.ndarray:
    """A NumPy array of anything; a torch tensor comes off its device."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
    try:
        return np.asarray(value)
    except (TypeError, ValueError):
        return np.asarray(None)


def _is_image(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-1] == 3


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _find(keys: Sequence[str], entries: Mapping[str, Any]) -> Any:
    by_last = {_last(name): value for name, value in entries.items()}
    return next((by_last[key] for key in keys if key in by_last), None)


def _find_camera(camera: str, images: Mapping[str, np.ndarray], entries: Mapping[str, Any]) -> np.ndarray:
    group = next((names for names in CAMERA_KEYS if camera in names), ())
    image = _find((camera, *group), images)
    if image is None:
        raise _missing(
            f"camera {camera!r} as a uint8 image [H, W, 3] or [B, H, W, 3]", group or (camera,), entries
        )
    return image


def _instruction(value: Any, batch: int) -> tuple[str, ...] | None:
    if isinstance(value, (str, bytes)):
        value = [value] * batch
    if not isinstance(value, (list, tuple, np.ndarray)) or len(value) != batch:
        return None
    texts = tuple(text.decode() if isinstance(text, bytes) else text for text in value)
    return tuple(map(str, texts)) if all(isinstance(text, str) for text in texts) else None


def _missing(what: str, keys: Sequence[str], entries: Mapping[str, Any]) -> ForethoughtError:
    found = {name: _describe(value) for name, value in entries.items()}
    return ForethoughtError(
        f"The observation lacks {what}. Found {found}; expected it under one of {list(keys)}. "
        "Rename the entry, or hand wrap(observation=...) a function that returns an Observation."
    )


def _describe(value: Any) -> str:
    array = _array(value)
    return f"{array.dtype} {list(array.shape)}" if array.ndim else type(value).__name__
