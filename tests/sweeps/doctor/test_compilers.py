from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.doctor import compilers
from sweeps.doctor.finding import FAIL, OK, SKIPPED, CheckContext


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """A program of a few lines of shell."""

    def write(text: str) -> str:
        path = tmp_path / "compiler"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_the_compiler_of_this_machine_builds(setting: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    (found,) = compilers.compiler(setting)
    assert found.result == OK and "headers" in found.detail


def test_no_compiler_on_path(setting: CheckContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = compilers.compiler(setting)
    assert found.result == FAIL and found.detail.startswith("g++ not on PATH") and "build-essential" in found.fix
    (found,) = compilers.compiler(replace(setting, cpus=1.0, gpus=1.0))
    assert found.detail.startswith("clang and gcc not on PATH")


def test_a_compiler_that_the_environment_names_and_is_not_there(
    setting: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++-99")
    (found,) = compilers.compiler(setting)
    assert found.result == FAIL and "CXX=/nowhere/g++-99" in found.detail


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('echo "probe.c:2:10: fatal error: Python.h: No such file or directory" >&2; exit 1', "Python.h"),
        ("exit 0", "fails"),
        ('echo "cannot find -lgomp" >&2; exit 1', "-lgomp"),
    ],
)
def test_a_compiler_that_does_not_build(
    setting: CheckContext, program: Callable[[str], str], text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", program(text))
    (found,) = compilers.compiler(setting)
    assert found.result == FAIL and words in found.detail


def test_a_compiler_that_hangs(
    setting: CheckContext, program: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", program("exec sleep 600"))
    monkeypatch.setattr(compilers, "LIMIT", 5.2)
    (found,) = compilers.compiler(setting)
    assert found.result == FAIL and "timed out" in found.detail


def test_a_node_without_work_needs_none(setting: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert [f.result for f in compilers.compiler(replace(setting, cpus=0.0, gpus=0.0))] == [SKIPPED]
