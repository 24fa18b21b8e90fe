"""Run by test_distribution in a process of its own: imports an installed wheel, opens its data.

Usage: python look_into_wheel.py FOLDER, where the wheel was installed with --target. Prints JSON.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path


def main(target: Path) -> None:
    # The repository itself may be installed too, editable; it must not answer in the wheel's stead.
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    sys.path[:] = [str(target), *(path for path in sys.path if "editable" not in path)]
    forethought = importlib.import_module("forethought")
    root = Path(str(forethought.__file__)).parent
    if root != target / "forethought":
        raise SystemExit(f"forethought came from {root}")
    modules, problems = ["forethought"], {}
    for module in pkgutil.walk_packages(forethought.__path__, "forethought."):
        modules.append(module.name)
        try:
            importlib.import_module(module.name)
        except Exception as error:
            problems[module.name] = repr(error)
    open_data(root / "experiments")
    files = [file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    names = sorted(str(file.relative_to(root)) for file in files)
    print(json.dumps({"modules": modules, "problems": problems, "files": names}))


def open_data(experiments: Path) -> None:
    """Reads every configuration and checkpoint."""
    from omegaconf import OmegaConf
    from safetensors import safe_open

    for file in (experiments / "configs").rglob("*.yaml"):
        OmegaConf.load(file)
    for file in (experiments / "checkpoints").rglob("*.json"):
        json.loads(file.read_text())
    for file in (experiments / "checkpoints").rglob("*.safetensors"):
        with safe_open(file, "np") as weights:
            if not list(weights.keys()):
                raise SystemExit(f"{file} is empty")
    models = importlib.import_module("forethought.wrappers.models")
    for name in models.shipped_names():
        models.load_models(name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
