"""A sample of all requests ends well; `python -m tests.requests` makes every one."""

import errno
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from sweeps import cli
from tests.requests.__main__ import everything
from tests.requests.attempt import CLEAN, REFUSED, Outcome, Request, attempt

ALL = everything()
SAMPLE = ALL[::37]


def test_there_are_enough_of_each_kind_and_all_have_names() -> None:
    kinds = Counter(request.name.partition(":")[0] for request in ALL)
    assert len(ALL) == len({request.name for request in ALL}) > 1000
    assert kinds["environment"] >= 100 and kinds["sweep file"] >= 190 and kinds["store"] >= 50
    # What came last has its requests, too.
    assert min(kinds[name] for name in ("import", "export", "model.start", "corpus.questions_folder")) >= 30


@pytest.mark.parametrize("request_made", SAMPLE, ids=[request.name for request in SAMPLE])
def test_a_request_ends_in_success_or_in_one_line(request_made: Request, tmp_path: Path) -> None:
    outcome = attempt(request_made, tmp_path)
    assert not outcome.fault(), (outcome.fault(), outcome.error)


def test_a_bad_end_is_noticed() -> None:
    refused, clean = Request("r", (), REFUSED), Request("c", (), CLEAN)
    line = "ktrain: no\n"
    assert not Outcome(Request("l", (), REFUSED, prints=True), 2, "x\n", "").fault()
    assert not Outcome(refused, 2, "", line).fault() and not Outcome(clean, 0, "x", "").fault()
    bad = (
        Outcome(refused, 0, "", ""),
        Outcome(refused, 2, "", line * 2),
        Outcome(refused, 2, "x", line),
        Outcome(Request("l", (), REFUSED, prints=True), 2, "x", line),
        Outcome(refused, 2, "", "no\n"),
        Outcome(refused, 2, "", f"ktrain: {'x' * 4000}\n"),
        Outcome(clean, 0, "", "Traceback (most recent call last):\n"),
        Outcome(clean, None, "", "", "hangs"),
        Outcome(clean, 3, "", ""),
    )
    assert all(outcome.fault() for outcome in bad)


def raising(error: BaseException) -> object:
    def load(*_: object) -> None:
        raise error

    return load


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "results/stages"), "results/stages: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", b"page.html"), "page.html: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "output: No space left on device"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a"), "a: Too many levels of symbolic links"),
        (FileNotFoundError("no such thing"), "no such thing"),
        (OSError(), "OSError"),
    ],
)
def test_an_error_of_the_system_is_one_line(
    error: OSError, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sweeps.planning.grid.load", raising(error))
    assert cli.main(["plan", "demo"]) == 2
    assert capsys.readouterr() == ("", f"ktrain: {line}\n")


def test_a_full_device_as_output_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["plan", "demo", "--json"], ["plan", "demo"], ["--help"]):
        with open("/dev/full", "w") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", full)
            assert cli.main(words) == 2
        assert capfd.readouterr() == ("", "ktrain: output: No space left on device\n")


def test_a_closed_output_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert cli.main(["plan", "demo", "--json"]) == 2
    assert capfd.readouterr() == ("", "ktrain: output: standard output is closed\n")


def test_a_folder_that_is_gone_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    os.rmdir(gone)
    assert cli.main(["plan", "demo"]) == 2
    assert capsys.readouterr() == ("", "ktrain: the working folder is gone: enter one that exists\n")


def test_a_refusal_shortens_what_it_echoes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "x" * 5000]) == 2
    error = capsys.readouterr().err
    assert len(error) < 1000 and "xxx..." in error and "\n" not in error[:-1]
    assert cli.main(["plan", "\x1b[31m"]) == 2
    assert "\\x1b[31m" in capsys.readouterr().err
