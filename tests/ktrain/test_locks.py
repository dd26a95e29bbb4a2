"""Locks of builds: those of the dead go, those of the living stay."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ktrain import locks
from ktrain.locks import remove_stale_locks

BUILD = """
import os, sys
from torch.utils.cpp_extension import load_inline
load_inline(name="slow", cpp_sources="int one() { return 1; }", functions=["one"], build_directory=sys.argv[1])
"""
HOLD = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """A process that takes the lock of an extension as PyTorch does, and keeps it until it is killed."""
    started = []

    def take(extension: str) -> "subprocess.Popen[str]":
        (tmp_path / extension).mkdir()
        command = [sys.executable, "-c", HOLD, str(tmp_path / extension / "lock")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout and process.stdout.readline() == "held\n"
        return process

    yield take
    for process in started:
        process.kill()
        process.communicate()


def test_a_killed_build_leaves_a_lock_and_it_is_removed(tmp_path: Path) -> None:
    """A real one, of PyTorch's, killed in the middle: the next would wait for ever."""
    folder = tmp_path / "slow"
    folder.mkdir()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", BUILD, str(folder)]
    build = subprocess.Popen(command, start_new_session=True, env=environment, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 300
        while not (folder / "lock").exists():
            assert build.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        assert remove_stale_locks(tmp_path) == [] and (folder / "lock").exists()
    finally:
        os.killpg(build.pid, signal.SIGKILL)
        build.wait()
    assert (folder / "lock").exists()
    assert remove_stale_locks(tmp_path) == [folder / "lock"]
    assert not (folder / "lock").exists() and (folder / "build.ninja").exists()


def test_the_lock_of_a_living_process_stays(hold: Callable[[str], "subprocess.Popen[str]"], tmp_path: Path) -> None:
    living, dead = hold("living"), hold("dead")
    dead.kill()
    dead.wait()
    assert remove_stale_locks(tmp_path) == [tmp_path / "dead" / "lock"]
    assert living.poll() is None and (tmp_path / "living" / "lock").exists()


def test_a_lock_that_is_just_taken_anew_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks its holder removes it, and another one makes its own."""
    lock = tmp_path / "lock"
    lock.touch()

    def meanwhile(seconds: float) -> None:
        lock.unlink()
        lock.touch()

    monkeypatch.setattr(locks.time, "sleep", meanwhile)
    assert remove_stale_locks(tmp_path) == [] and lock.exists()


def test_other_files_stay_and_a_folder_that_is_not_there_has_no_locks(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock.json").touch()
    assert remove_stale_locks(tmp_path) == [] and (tmp_path / "lock.json").exists()
    assert remove_stale_locks(tmp_path / "nowhere") == []
