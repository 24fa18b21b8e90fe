"""``forethought doctor --policy``: the commonest mistakes between a policy and its robot.

The policy is known by what it saw and did: an ``.npz`` file with one observation and some successive actions,

    np.savez("seen.npz", full_image=image, wrist_image=wrist, state=state, instruction=task, actions=actions)

written where the script hands them over, after all of its own conversions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..interfaces import ForethoughtError
from ..wrappers.diagnosis import Seen, diagnose, read_statistics
from ..wrappers.models import load_models


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the policy's examination."""
    group = parser.add_argument_group("a policy instead of the machine")
    group.add_argument(
        "--policy",
        metavar="FILE",
        help="what a policy saw and did: an .npz file with images by camera, state, instruction, and "
        "actions [T, A] as they went to the robot",
    )
    group.add_argument("--models", metavar="FOLDER", help="models of the task, a folder or a shipped name")
    group.add_argument(
        "--reference", metavar="FILE", help="an .npz file with one observation of the training data"
    )
    group.add_argument(
        "--statistics",
        metavar="FILE",
        help="dataset_statistics.json (OpenVLA), norm_stats.json (openpi) or stats.json (LeRobot)",
    )
    group.add_argument("--key", help="data set in the statistics (unnorm_key)")


def examine(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Findings, as the fields of a ``doctor.Finding``.

    Raises:
        ForethoughtError: A file is missing or holds something else.
    """
    found = diagnose(
        Seen.of(_arrays(options.policy)),
        models=load_models(options.models) if options.models else None,
        reference=_pictures(options.reference) if options.reference else None,
        statistics=_statistics(options.statistics, options.key) if options.statistics else None,
    )
    return [
        {
            "section": "policy",
            "name": symptom.name,
            "works": symptom.wrong is False,
            "detail": symptom.detail,
            "mend": symptom.mend,
            "needed": symptom.wrong is True,
        }
        for symptom in found
    ]


def _arrays(path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise ForethoughtError(
            f"{path} does not hold arrays by name ({error}). Write it with np.savez({path!r}, image=…, "
            "state=…, instruction=task, actions=…): numbers and text, no objects."
        ) from error


def _pictures(path: str) -> dict[str, np.ndarray]:
    arrays = {name.replace("/", ".").rsplit(".", 1)[-1]: array for name, array in _arrays(path).items()}
    arrays = {name: array[0] if array.ndim == 4 else array for name, array in arrays.items()}
    pictures = {name: array for name, array in arrays.items() if array.ndim == 3 and array.dtype == np.uint8}
    if not pictures:
        raise ForethoughtError(f"{path} holds no uint8 image [H, W, 3]; it has {sorted(arrays)}.")
    return pictures


def _statistics(path: str, key: str | None) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ForethoughtError(f"{path} is not readable JSON ({error}).") from error
    return read_statistics(content, key)
