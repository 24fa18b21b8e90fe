"""Pictures of an episode that fails with the policy alone and succeeds with search, replayed by its seed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...interfaces import ForethoughtError
from .arms import BASELINE
from .episode import run_episode
from .plan import Episode
from .report import Results
from .runner import environment_variables
from .worker import Bench, Setup

GAP = 4
LABEL = 26
GREEN, RED, INK, PAPER = (32, 128, 64), (176, 48, 48), (24, 24, 24), (255, 255, 255)


def gained_episodes(results: Results, arms: Sequence[str]) -> list[tuple[Episode, Episode]]:
    """Pairs (policy alone, arm) of the same episode that only the arm solved: by task and init state, and
    among arms in the order given."""
    failed = {_place(e): e for e, r in results.items() if e.arm == BASELINE and not r.success}
    pairs = [
        (failed[_place(e)], e)
        for e, r in results.items()
        if e.arm in arms and r.success and _place(e) in failed
    ]
    return sorted(pairs, key=lambda pair: (pair[1].task_id, pair[1].init_state, arms.index(pair[1].arm)))


def _place(episode: Episode) -> tuple[int, int, int]:
    return episode.task_id, episode.init_state, episode.seed


def make_filmstrips(
    results: Results, setup: Setup, *, count: int, folder: Path, film: Mapping[str, Any]
) -> list[Path]:
    """Replays ``count`` gained episodes, one a task where possible, and writes a PNG for each.

    Args:
        results: Finished episodes to choose from.
        setup: As the episodes were run.
        count: How many at most.
        folder: Where the pictures go.
        film: Options of the benchmark that differ for the camera that films, such as a larger image; those
            that the benchmark's config does not have are left out. The policy sees what it saw in the
            evaluation.

    Returns:
        The files written; fewer than ``count`` where fewer episodes were gained.
    """
    pairs = gained_episodes(results, [arm.name for arm in setup.arms if arm.searches])
    firsts = {pair[1].task_id: pair for pair in reversed(pairs)}
    chosen = [*sorted(firsts.values(), key=lambda pair: pair[1].task_id), *pairs][:count]
    if not chosen:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with (
        environment_variables(setup.environment),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        for pair in dict.fromkeys(chosen):
            rows = []
            for episode, (success, frames) in zip(
                pair, pool.submit(film_episodes, setup, pair, film).result()
            ):
                if success != results[episode].success:
                    raise ForethoughtError(
                        f"Arm {episode.arm}, task {episode.task_id}, init state {episode.init_state} ended "
                        "otherwise when it was replayed for its picture. Episodes repeat exactly when no "
                        "limit of time decides (milliseconds, deadline_ms) and the machine is the same."
                    )
                rows.append((episode.arm, success, frames))
            path = folder / f"task{pair[1].task_id}-init{pair[1].init_state}-{pair[1].arm}.png"
            filmstrip(rows, pair[1].task.replace("_", " ")).save(path)
            written.append(path)
    return written


def film_episodes(
    setup: Setup, episodes: Sequence[Episode], film: Mapping[str, Any]
) -> list[tuple[bool, list[np.ndarray]]]:
    """Runs the episodes again: the success of each, and its frames ``uint8 [h, w, 3]``, one before every
    decision and the last."""
    bench = Bench(setup)
    task = episodes[0].task_id
    environment = bench.environment(task)
    bench.prepare(environment, episodes[0].init_state)
    camera = bench.benchmark({name: film[name] for name in film if name in setup.benchmark}).make(task)
    try:
        rows = []
        for episode in episodes:
            frames: list[np.ndarray] = []
            result = run_episode(
                environment,
                bench.controllers[episode.arm],
                init_state=episode.init_state,
                seed=episode.seed,
                watch=_shoot(environment, camera, frames),
            )
            rows.append((result.success, frames))
        return rows
    finally:
        camera.close()
        bench.drop_environment()


def _shoot(environment: Any, camera: Any, frames: list[np.ndarray]) -> Callable[[], None]:
    def shoot() -> None:
        camera.restore(environment.save())
        frames.append(next(iter(camera.frame().values())))

    return shoot


def filmstrip(
    rows: Sequence[tuple[str, bool, Sequence[np.ndarray]]], title: str, columns: int = 8
) -> Image.Image:
    """One picture with a row of frames for each episode.

    Args:
        rows: Name of the arm, whether it succeeded, and its frames ``uint8 [h, w, 3]``, all of one size.
        title: Written above.
        columns: Frames shown of each episode, evenly spaced from first to last.
    """
    if not rows or not all(len(frames) for _, _, frames in rows):
        raise ForethoughtError("A filmstrip needs at least one episode, and a frame of each.")
    height, width = rows[0][2][0].shape[:2]
    size = (columns * (width + GAP) + GAP, LABEL + len(rows) * (height + LABEL + GAP))
    picture = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=16)
    draw.text((GAP, 4), title, fill=INK, font=font)
    for row, (name, success, frames) in enumerate(rows):
        top = LABEL + row * (height + LABEL + GAP)
        outcome, colour = ("succeeds", GREEN) if success else ("fails", RED)
        draw.text((GAP, top + 4), f"{name}: {outcome}", fill=colour, font=font)
        for column, index in enumerate(np.linspace(0, len(frames) - 1, columns).round().astype(int)):
            picture.paste(Image.fromarray(frames[index]), (GAP + column * (width + GAP), top + LABEL))
    return picture
