"""What the wheel holds: every module and every data file, and nothing of the outside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import forethought

ROOT = Path(forethought.__file__).parent
ROOMS = ("planner", "world_models", "reward", "wrappers", "experiments")

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs the source tree")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what belongs to the distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        *(file.name for file in ROOT.glob("*.py")),
        "py.typed",
    ):
        source.mkdir(exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    for room in ROOMS:
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                copy = source / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> dict:
    """What a process that only sees the installed wheel finds in it."""
    target, elsewhere = tmp_path_factory.mktemp("target"), tmp_path_factory.mktemp("elsewhere")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--target", str(target)]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    look = [sys.executable, str(ROOT / "tests" / "house" / "look_into_wheel.py"), str(target)]
    done = subprocess.run(look, capture_output=True, text=True, check=False, cwd=elsewhere)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def in_source(*endings: str) -> set[str]:
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*")] + list(ROOT.glob("*.py"))
    return {str(file.relative_to(ROOT)) for file in files if file.suffix in endings}


def test_the_wheel_holds_every_module_of_the_source(installed):
    assert {name for name in installed["files"] if name.endswith(".py")} == in_source(".py")


def test_every_module_imports_from_the_wheel(installed):
    assert not installed["problems"]
    assert len(installed["modules"]) == len(in_source(".py"))


def test_the_wheel_holds_every_configuration_and_checkpoint(installed):
    data = {name for name in installed["files"] if Path(name).suffix in (".yaml", ".safetensors")}
    expected = {
        name
        for name in in_source(".yaml", ".safetensors")
        if name.startswith(("experiments/configs/", "experiments/checkpoints/"))
    }
    assert data == expected
    assert any(name.endswith("eval.yaml") for name in data)


def test_the_wheel_puts_only_forethought_into_site_packages(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"forethought", f"forethought-{forethought.__version__}.dist-info"}
    assert not any("tests" in name.split("/") for name in zipfile.ZipFile(wheel).namelist())


def test_the_wheel_carries_its_licence_its_types_and_its_command(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("LICENSE") for name in names)
    assert "forethought/py.typed" in names
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert "forethought = forethought.experiments.cli:main" in zipfile.ZipFile(wheel).read(entry).decode()


def test_the_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == forethought.__version__


def test_the_lock_pins_torch_exactly_and_names_no_machine():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert "torch==2.13.0" in lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert not [line for line in lines if re.match("nvidia|cuda|triton|torchvision", line)]


def test_the_lock_covers_what_setup_installs():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    lock = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [
        *project["dependencies"],
        *extras["libero"],
        *extras["dev"],
        *extras["viz"],
        *extras["serve"],
    ]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in lock, text
        assert requirement.specifier.contains(lock[name]), text
