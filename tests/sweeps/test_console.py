import io
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sweeps.console import format_hours, own_command, shown_path, store_words, waiting


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with an environment of its own, as the working folder."""
    script = tmp_path / ".venv" / "bin" / "ktrain"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.delenv("KTRAIN_STORE", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("called", "path", "pasted"),
    [
        (".venv/bin/ktrain", "/usr/bin", ".venv/bin/ktrain ui"),
        # A Makefile puts the environment on its own search path.
        (".venv/bin/ktrain", "{clone}/.venv/bin", ".venv/bin/ktrain ui"),
        ("{clone}/.venv/bin/ktrain", "{clone}/.venv/bin", "ktrain ui"),
        ("{clone}/.venv/bin/ktrain", "/usr/bin", ".venv/bin/ktrain ui"),
        ("/elsewhere/bin/ktrain", "/usr/bin", "/elsewhere/bin/ktrain ui"),
        ("/usr/lib/pytest", "/usr/bin", "ktrain ui"),
    ],
)
def test_a_command_can_be_pasted_where_this_one_was_called(
    clone: Path, monkeypatch: pytest.MonkeyPatch, called: str, path: str, pasted: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called.format(clone=clone)])
    monkeypatch.setenv("PATH", path.format(clone=clone))
    assert own_command("ui") == pasted


def test_a_module_is_called_as_a_module(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(clone / "sweeps" / "cli.py")])
    monkeypatch.setattr(sys, "executable", str(clone / ".venv" / "bin" / "python"))
    assert own_command("ui", "--store", "two words") == ".venv/bin/python -m sweeps.cli ui --store 'two words'"


def test_a_store_is_named_where_it_is_not_the_default(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_words(str(clone / "results")) == []
    assert store_words(str(clone / "other")) == ["--store", "other"]
    assert store_words("/data/results") == ["--store", "/data/results"]
    assert store_words("s3://bucket/results") == ["--store", "s3://bucket/results"]
    for default in (str(clone / "other"), "s3://bucket/results"):
        monkeypatch.setenv("KTRAIN_STORE", default)
        assert store_words(default) == [] and store_words(str(clone / "results")) == ["--store", "results"]


def test_paths_are_short_below_the_working_folder(clone: Path) -> None:
    assert shown_path(clone / "results") == "results" and shown_path(os.fspath(clone.parent)) == str(clone.parent)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(29, "0 minutes"), (31, "1 minute"), (89, "1 minute"), (5399, "90 minutes"), (5400, "1.5 hours")],
)
def test_durations_are_in_minutes_or_hours(seconds: float, text: str) -> None:
    assert format_hours(seconds) == text


def test_only_a_terminal_says_that_it_waits() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        with waiting(console, "reading"):
            pass
        assert ("reading" in console.file.getvalue()) == terminal  # type: ignore[attr-defined]
