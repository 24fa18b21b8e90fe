"""Reading LIBERO's suites and building the scene of a task."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ...interfaces import ForethoughtError
from .base import Task
from .runtime import import_libero, quiet, release_memory


def build_simulator(suite: str, task: Task) -> Any:
    """The robosuite environment of a task, without cameras: we render ourselves."""
    import_libero()
    from libero.libero.envs.env_wrapper import ControlEnv

    try:
        with quiet():
            simulator = ControlEnv(
                bddl_file_name=task.bddl_file,
                use_camera_obs=False,
                has_offscreen_renderer=False,
                hard_reset=False,
                ignore_done=True,
            ).env
    except Exception as error:
        raise ForethoughtError(
            f"The scene of {suite} task {task.id} could not be built: {type(error).__name__}: {error}. "
            "Suites beyond the five of LIBERO may lack models; run `libero-pro audit` to see which."
        ) from error
    release_memory()
    return simulator


def find_suite(name: str) -> Any:
    benchmark = import_libero()
    suites = benchmark.get_benchmark_dict()
    if name not in suites:
        raise ForethoughtError(
            f"LIBERO has no suite {name!r}. Choose libero_spatial, libero_object, libero_goal, libero_10, "
            f"libero_90, or one of LIBERO-PRO's: {', '.join(sorted(suites))}."
        )
    with quiet():
        suite = suites[name]()
    if not suite.get_num_tasks():
        raise ForethoughtError(f"The suite {name!r} is registered but has no tasks; choose another.")
    return suite


def read_task(suite: Any, index: int, step_limit: int) -> Task:
    from libero.libero import get_libero_path

    entry = suite.get_task(index)
    bddl_file = Path(suite.get_task_bddl_file_path(index)).resolve()
    states = Path(get_libero_path("init_states")) / entry.problem_folder / f"{entry.init_states_file}.npz"
    instruction = entry.language
    if bddl_file.is_file() and entry.problem_folder.endswith(("_lan", "_task")):
        # These variants change the words (or the goal) inside the file and keep the file's name.
        found = re.search(r"\(:language\s+(.*?)\)", bddl_file.read_text(encoding="utf-8"), re.DOTALL)
        instruction = found.group(1).strip().lower() if found else instruction
    return Task(
        id=index,
        name=entry.name,
        instruction=instruction,
        step_limit=step_limit,
        init_states=_count_states(states),
        bddl_file=str(bddl_file),
    )


def _count_states(path: Path) -> int:
    """Rows of a stored array, from its header alone."""
    if not path.is_file():
        return 0
    with zipfile.ZipFile(path) as archive, archive.open("states.npy") as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        return int(read(file)[0][0])
