"""Processes that train at the same time, on settings so short that only the contract of the result counts."""

import os
import subprocess
import sys

import pytest

from ktrain.bench import concurrent, interleaved, machine


def test_each_way_is_measured_with_all_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine.PRODUCT, "cpu", 64)
    monkeypatch.setitem(machine.COPIED, "cpu", 2**16)
    monkeypatch.setattr(interleaved, "ROUNDS", 1)
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {min(real)})
    found = concurrent.side_by_side("mini", 0.05)
    names = ["a process for each core", "the same, held to its core", "one process with all cores"]
    assert [row["name"] for row in found["rows"]] == names
    assert all(row["median"] > 0 and row["unit"] == "tok/s" for row in found["rows"])
    assert found["ratios"].keys() == set(names[1:])


real = os.sched_getaffinity(0)


def test_the_speeds_of_processes_add_up() -> None:
    words = [sys.executable, "-c", "print(3.5 * float(input()))"]
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one,
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other,
    ):
        assert concurrent._together([one, other], 2.0) == 14.0


@pytest.mark.parametrize("words", [["huge"]])
def test_a_wrong_word_is_told_before_anything_is_measured(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "describe", lambda: pytest.fail("it was measured"))
    with pytest.raises(SystemExit) as ended:
        concurrent.main(words)
    assert ended.value.code == 2 and words[-1] in capsys.readouterr().err
