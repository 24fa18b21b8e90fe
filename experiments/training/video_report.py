"""Imagined against real: what a video world model saw coming in episodes that it did not learn from."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...interfaces import Observation
from ...world_models.video import VideoWorldModel
from .dataset import EpisodeSet

REPORT, PICTURE = "video_report.json", "imagined.png"


@dataclass(frozen=True, eq=False)
class Imagined:
    """Recorded moments, what was executed, and what was seen a chunk later.

    Attributes:
        before: n moments.
        chunks: Executed from each, ``float32 [n, H, A]``.
        after: The same moments a chunk later.
    """

    before: Observation
    chunks: np.ndarray
    after: Observation

    @staticmethod
    def of(data: EpisodeSet, frames: np.ndarray, horizon: int, most: int = 256) -> Imagined:
        """At most ``most`` of the frames, evenly spaced, whose chunk ends at a frame."""
        frames = frames[:: max(1, -(-len(frames) // most))]
        state = data.frame_state[frames]
        frame_of = np.full(len(data.step), -1)
        frame_of[data.frame_state] = np.arange(len(data.frame_state))
        after = data.after(state, horizon)
        return Imagined(
            _observe(data, frames, state),
            data.chunks(state, horizon),
            _observe(data, frame_of[after], after),
        )


def _observe(data: EpisodeSet, frames: np.ndarray, state: np.ndarray) -> Observation:
    text = tuple(data.instructions[index] for index in data.instruction[data.episode[state]])
    images = {name: image[frames] for name, image in data.images.items()}
    return Observation(images, data.proprioception[state], text)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels of ``uint8`` pictures ``[n, ...]``, from the mean squared error
    of all; 99 where they are equal."""
    error = float(np.square(first.astype(np.float64) - second).mean())
    return 99.0 if error == 0 else float(10 * np.log10(255.0**2 / error))


def milliseconds_a_candidate(model: Any, observation: Observation, wave: int, repeats: int = 3) -> float:
    """Median wall time of one candidate in a wave of ``wave``, any world model with ``horizon`` and
    ``action_size``."""
    latent = model.encode(observation.rows([0]))[np.zeros(wave, np.int64)]
    chunks = np.zeros((wave, model.horizon, model.action_size), np.float32)
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        model.step(latent, chunks)
        times.append(1000 * (time.perf_counter() - begun) / wave)
    return float(np.median(times[1:]))


def report(folder: Path, model: VideoWorldModel, seen: Imagined) -> dict[str, Any]:
    """Writes ``video_report.json`` and ``imagined.png`` (rows: before, real, imagined).

    Returns:
        PSNR in decibels of what was imagined, of repeating the present picture (what it must beat) and of the
        codec alone (what it cannot pass); error of the robot's position in millimetres, imagined and of
        standing still; milliseconds a candidate and the device that they are from.
    """
    cuts = np.split(np.arange(seen.before.batch), range(64, seen.before.batch, 64))
    now = _pictures(model, seen.before)
    real = _pictures(model, seen.after)
    imagined, coded, position = [], [], []
    for rows in cuts:
        latent = model.step(model.encode(seen.before.rows(rows)), seen.chunks[rows]).latent
        imagined.append(model.decode(latent))
        coded.append(model.decode(model.encode(seen.after.rows(rows))))
        place = torch.as_tensor(latent)[:, 0, :3] * model.body_std[:3] + model.body_mean[:3]
        position.append(place.float().cpu().numpy())
    guess, codec = _joined(model, imagined), _joined(model, coded)
    there = seen.after.proprioception[:, :3]
    still = seen.before.proprioception[:, :3]
    found: dict[str, Any] = {
        "chunks": seen.before.batch,
        "psnr_imagined": round(psnr(guess, real), 2),
        "psnr_repeating": round(psnr(now, real), 2),
        "psnr_codec": round(psnr(codec, real), 2),
        "position_mm_imagined": round(_millimetres(np.concatenate(position), there), 2),
        "position_mm_standing": round(_millimetres(still, there), 2),
        "milliseconds_a_candidate": round(milliseconds_a_candidate(model, seen.before, model.cost.wave), 3),
        "wave": model.cost.wave,
        "euler_steps": model.steps,
        "device": _device(model),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text(json.dumps(found, indent=2) + "\n")
    side_by_side(folder / PICTURE, [now, real, guess])
    return found


def side_by_side(path: Path, rows: list[np.ndarray], most: int = 12) -> None:
    """A picture of rows of pictures ``uint8 [n, h, w, 3]``, the same columns in each."""
    from PIL import Image

    columns = np.linspace(0, len(rows[0]) - 1, min(most, len(rows[0]))).astype(int)
    sheet = np.concatenate([np.concatenate(list(row[columns]), axis=1) for row in rows], axis=0)
    Image.fromarray(sheet).save(path)


def _pictures(model: VideoWorldModel, observation: Observation) -> np.ndarray:
    """What the codec is given, ``uint8 [n, size, size · cameras, 3]``."""
    seen = {name: torch.from_numpy(np.ascontiguousarray(observation.images[name])) for name in model.cameras}
    return _joined(model, [model.codec.pictures(model.codec.mosaic(seen))])


def _joined(model: VideoWorldModel, parts: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([np.concatenate([part[name] for part in parts]) for name in model.cameras], axis=2)


def _millimetres(first: np.ndarray, second: np.ndarray) -> float:
    return float(1000 * np.median(np.linalg.norm(first - second, axis=1)))


def _device(model: VideoWorldModel) -> str:
    if model.device.type == "cuda":
        return torch.cuda.get_device_name(model.device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
