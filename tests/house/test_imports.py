"""Who may import whom, read from the source of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import forethought

ROOT = Path(forethought.__file__).parent
ROOMS = ("planner", "world_models", "reward", "wrappers", "experiments")
SHARED = ("interfaces", "text", "weights", "__init__")
"""Modules at the root: the vocabulary, and helpers that know no room."""

MAY_IMPORT = {
    "planner": set(),
    "world_models": set(),
    "reward": set(),
    "wrappers": {"planner", "world_models", "reward"},
    "experiments": {"planner", "world_models", "reward", "wrappers"},
}
CORE = {"torch", "numpy", "scipy", "sklearn", "numba", "safetensors", "PIL", "h5py", "gymnasium"}
CORE |= {"hydra", "omegaconf", "rich"}
OPTIONAL = {
    "mujoco": "libero",
    "robosuite": "libero",
    "libero": "libero",
    "cv2": "libero",
    "OpenGL": "libero",
    "ray": "ray",
    "lerobot": "lerobot",
    "matplotlib": "viz",
    "imageio": "viz",
    "websockets": "serve",
    "msgpack": "serve",
    "zmq": "groot",
    "mani_skill": "simpler",
    "openai": "verifier",
    "diffusers": "video",
    "transformers": "encoders",
    "packaging": "core, through hydra",
    "threadpoolctl": "core, through scikit-learn",
    "stable_worldmodel": "an environment of its own: it needs torchvision",
    "jax": "an environment of its own, constraints-mctx.txt",
    "mctx": "the same",
}
"""Modules of extras: imported where they are used, inside functions."""

THROUGH_CORE = {"packaging", "threadpoolctl"}

SIMULATED = ("experiments/benchmarks", "experiments/experts")
"""Folders that only those import who have the benchmark."""


def sources() -> list[Path]:
    files = [ROOT / f"{name}.py" for name in SHARED]
    return files + [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]


def imported(file: Path, *, at_import_time: bool = False) -> set[str]:
    """Absolute names of what a file imports; forethought's own as ``forethought.room.module``."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    package = ["forethought", *file.relative_to(ROOT).parent.parts]
    names: set[str] = set()
    for node in _top_level(tree) if at_import_time else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def _top_level(tree: ast.AST) -> list[ast.AST]:
    """Nodes that run when the module is imported: not inside functions, not under TYPE_CHECKING."""
    found, waiting = [], list(ast.iter_child_nodes(tree))
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        found.append(node)
        waiting += ast.iter_child_nodes(node)
    return found


def rooms_of(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "forethought" and len(part) > 1 and part[1] in ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_the_rooms_that_it_may(room):
    wrong = {
        str(file.relative_to(ROOT)): sorted(others)
        for file in sorted((ROOT / room).rglob("*.py"))
        if (others := rooms_of(imported(file)) - {room} - MAY_IMPORT[room])
    }
    assert not wrong


@pytest.mark.parametrize("name", [name for name in SHARED if name != "__init__"])
def test_a_module_at_the_root_imports_no_room(name):
    assert not rooms_of(imported(ROOT / f"{name}.py"))


def test_every_module_at_the_root_is_meant_to_be_there():
    assert {file.stem for file in ROOT.glob("*.py")} == set(SHARED)


def test_inside_the_package_imports_are_relative():
    absolute = {}
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.split(".")[0] == "forethought" for name in names):
                absolute[str(file.relative_to(ROOT))] = names
    assert not absolute


def test_what_is_optional_is_imported_where_it_is_used():
    early = {
        str(file.relative_to(ROOT)): sorted(found)
        for file in sources()
        if not str(file.relative_to(ROOT)).startswith(SIMULATED)
        if (found := {name.split(".")[0] for name in imported(file, at_import_time=True)} & set(OPTIONAL))
    }
    assert not early


def test_every_package_that_is_imported_is_declared():
    known = CORE | set(OPTIONAL) | set(sys.stdlib_module_names) | {"forethought"}
    unknown = {
        str(file.relative_to(ROOT)): sorted(found)
        for file in sources()
        if (found := {name.split(".")[0] for name in imported(file)} - known)
    }
    assert not unknown


def test_everything_but_the_simulated_benchmarks_imports_without_any_extra():
    code = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({sorted(OPTIONAL.keys() - THROUGH_CORE)!r}))  # importing them fails
import forethought
simulated = tuple("forethought." + folder.replace("/", ".") for folder in {SIMULATED!r})
for module in pkgutil.walk_packages(forethought.__path__, "forethought."):
    if not module.name.startswith(simulated):
        importlib.import_module(module.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_forethought_is_light_and_its_names_come_when_asked_for():
    code = (
        "import sys, forethought\n"
        "heavy = {'torch', 'mujoco', 'libero', 'hydra', 'sklearn', 'numba', 'h5py', 'gymnasium'} & "
        "set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "missing = [name for name in forethought.__all__ if not hasattr(forethought, name)]\n"
        "assert not missing, missing\n"
        "assert callable(forethought.wrap) and callable(forethought.unwrap)\n"
        "heavy = {'mujoco', 'libero', 'hydra'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "try:\n    forethought.nonsense\n"
        "except AttributeError as error:\n    assert 'nonsense' in str(error)\n"
        "else:\n    raise SystemExit('no AttributeError')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_checker_sees_a_forbidden_import(tmp_path, monkeypatch):
    """So that the tests above cannot pass by seeing nothing."""
    file = ROOT / "planner" / "search.py"
    assert "forethought.interfaces" in {name.rsplit(".", 1)[0] for name in imported(file)}
    (tmp_path / "planner").mkdir()
    bad = tmp_path / "planner" / "bad.py"
    bad.write_text("def f():\n    from ..reward import value\n    import mujoco\nimport ray\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert rooms_of(imported(bad)) == {"reward"}
    assert imported(bad, at_import_time=True) == {"ray"}
