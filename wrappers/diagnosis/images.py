"""Pictures: colours first, floats, blank, doubled, turned, mirrored, with red and blue swapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError
from ..models import Models
from ..observations import CAMERA_KEYS, from_call
from .data import Seen, Symptom

GRID = 24
"""Images are compared at this many squares a side."""

VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "turned by 180 degrees": lambda image: image[::-1, ::-1],
    "upside down": lambda image: image[::-1],
    "mirrored": lambda image: image[:, ::-1],
    "with red and blue swapped": lambda image: image[..., ::-1],
    "turned by 180 degrees, with red and blue swapped": lambda image: image[::-1, ::-1, ::-1],
}


def look_at_images(
    seen: Seen, reference: Mapping[str, np.ndarray], models: Models | None = None
) -> Iterator[Symptom]:
    """Symptoms of each picture, and of what the models make of them."""
    good: dict[str, np.ndarray] = {}
    for name, image in seen.images.items():
        what = f"image {name}"
        if image.ndim == 3 and image.shape[0] == 3 and image.shape[-1] != 3:
            mend = "hand over image.transpose(1, 2, 0); torch has colours first, cameras and policies last"
            yield Symptom(what, True, f"colours first, {list(image.shape)}", mend)
        elif image.dtype != np.uint8:
            low, high = float(image.min()), float(image.max())
            mend = "hand over uint8 from 0 to 255: (255 * image).round().astype(np.uint8)"
            yield Symptom(what, True, f"{image.dtype} from {low:.2g} to {high:.2g}", mend)
        elif image.std() < 2.0:
            yield Symptom(what, True, "one colour all over", "check the camera, its name and its renderer")
        else:
            good[name] = image
    names = list(good)
    for index, name in enumerate(names):
        same = [
            other
            for other in names[:index]
            if good[other].shape == good[name].shape and np.array_equal(good[other], good[name])
        ]
        if same:
            mend = f"hand each camera's own image over as {same[0]} and {name}"
            yield Symptom(f"image {name}", True, f"the same picture as {same[0]}", mend)
            continue
        yield _view(name, good, reference)
    if models is not None and len(good) == len(seen.images):
        yield from _remembered(seen, models)


def _view(name: str, images: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> Symptom:
    """How an image lies, compared with one of the training data."""
    what, image = f"image {name}", images[name]
    looks = f"uint8 {list(image.shape)}"
    known = _same_camera(name, reference)
    if known is None:
        return Symptom(what, False, f"{looks}; no picture of the training data to compare with")
    as_it_is = _alike(image, reference[known])
    others = {view: _alike(turn(image), reference[known]) for view, turn in VIEWS.items()}
    others |= {
        f"of {other} instead": _alike(images[other], reference[known]) for other in images if other != name
    }
    view, best = max(others.items(), key=lambda item: item[1])
    if best > max(as_it_is + 0.15, 0.4):
        detail = f"the training data look like the picture {view} ({best:.2f} against {as_it_is:.2f})"
        return Symptom(what, True, detail, f"hand over the picture {view}")
    return Symptom(what, False, f"{looks}, lies as in the training data ({as_it_is:.2f})")


def _remembered(seen: Seen, models: Models) -> Iterator[Symptom]:
    """Whether the models would know the scene much better from other pictures.

    A suspicion only: at the start of an episode a scene can look much alike in several ways.
    """
    memory = models.memory
    if seen.state is None or not all(hasattr(memory, name) for name in ("keys", "weights")):
        return

    def distance(turn: Callable[[np.ndarray], np.ndarray]) -> float:
        turned = {name: np.ascontiguousarray(turn(image)) for name, image in seen.images.items()}
        entries = {**turned, "state": seen.state, "instruction": seen.instruction or "nothing"}
        latent = models.world_model.encode(from_call((entries,), {}, models.cameras))
        vector = np.asarray(latent, np.float32).reshape(1, -1, memory.keys.shape[1]).mean(axis=1)
        return float(np.linalg.norm((memory.keys - vector) * memory.weights, axis=1).min())

    try:
        as_it_is = distance(lambda image: image)
        others = {view: distance(turn) for view, turn in VIEWS.items()}
    except (ForethoughtError, ValueError):  # no such camera, another layout of the state: said elsewhere
        return
    view = min(others, key=lambda name: others[name])
    if others[view] < 0.3 * as_it_is:
        detail = (
            f"the models know this scene from pictures {view} (distance {others[view]:.2g} against "
            f"{as_it_is:.2g})"
        )
        yield Symptom(f"images {list(models.cameras)}", None, detail, f"hand over the pictures {view}")


def _same_camera(name: str, reference: Mapping[str, Any]) -> str | None:
    group = next((names for names in CAMERA_KEYS if name in names), (name,))
    return next((known for known in (name, *group) if known in reference), None)


def _alike(image: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures at a coarse grid, colours included."""
    one, two = _coarse(image), _coarse(other)
    one, two = one - one.mean(), two - two.mean()
    return float((one * two).sum() / max(np.linalg.norm(one) * np.linalg.norm(two), 1e-9))


def _coarse(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image, np.uint8))
    return np.asarray(picture.resize((GRID, GRID), Image.Resampling.BOX), np.float64)
