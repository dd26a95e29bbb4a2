import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ktrain import build_locks
from ktrain.mounts import Mount

BUILD = """
import sys
from torch.utils.cpp_extension import load

load("answer", sources=[sys.argv[1]], is_python_module=False)
"""
HOLD = """
import sys, time
from torch.utils.file_baton import FileBaton

assert FileBaton(sys.argv[1]).try_acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of extensions, for this process and those that it starts."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    (tmp_path / "extensions").mkdir()
    return tmp_path / "extensions"


@pytest.fixture
def left(root: Path) -> Path:
    """A lock that nobody holds any more."""
    path = root / "fused_adam" / "lock"
    path.parent.mkdir()
    path.touch()
    return path


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_after_a_killed_build_the_next_one_does_not_wait_for_ever(root: Path, tmp_path: Path) -> None:
    source, began, slow = tmp_path / "answer.cpp", tmp_path / "began", tmp_path / "slow"
    source.write_text('extern "C" int answer() { return 42; }')
    slow.write_text(f'#!/bin/sh\ncase "$*" in *-c*) echo $$ > {began}; exec sleep 600;; esac\nexec g++ "$@"\n')
    slow.chmod(0o755)
    build = [sys.executable, "-c", BUILD, str(source)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    first = subprocess.Popen(build, env={**os.environ, "CXX": str(slow)}, start_new_session=True, **quiet)
    try:
        until(lambda: began.exists() and bool(began.read_text()))
        assert build_locks.stale_locks() == [], "its builder is alive"
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        if began.exists():  # Its compiler is in a group of its own.
            os.kill(int(began.read_text()), signal.SIGKILL)
    (lock,) = root.glob("**/lock")
    assert build_locks.remove_stale_locks() == [lock] and not lock.exists()
    subprocess.run(build, check=True, timeout=300, **quiet)
    assert list(root.glob("**/answer.so"))


def test_a_living_builder_keeps_its_lock(left: Path, root: Path) -> None:
    held = root / "other" / "lock"
    held.parent.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(held)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert build_locks.remove_stale_locks() == [left] and held.exists()
    finally:
        holder.kill()
        holder.wait()
    assert build_locks.stale_locks() == [held]


def test_locks_of_versions_of_python_lie_one_folder_deeper(root: Path) -> None:
    lock = root / "py311_cu130" / "fused_adam" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert build_locks.stale_locks() == [lock]


def test_a_builder_on_another_machine_has_an_hour(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_locks, "mount", lambda path: Mount(path, "nfs4", ()))
    assert build_locks.stale_locks() == []
    old = time.time() - build_locks.LOST - 1
    os.utime(left, (old, old))
    assert build_locks.stale_locks() == [left]


def test_a_lock_that_changes_hands_between_two_looks_is_alive(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_ends_and_another_begins(_: float) -> None:
        other = left.with_name("other")
        other.touch()
        other.replace(left)

    monkeypatch.setattr(build_locks.time, "sleep", build_ends_and_another_begins)
    assert build_locks.remove_stale_locks() == [] and left.exists()


def test_where_extensions_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_EXTENSIONS_DIR", "KTRAIN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert build_locks.folder() == Path("/home/me/.cache/torch_extensions")
    monkeypatch.setenv("KTRAIN_CACHE", "/cache")
    assert build_locks.folder() == Path("/cache/extensions")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/e")
    assert build_locks.folder() == Path("/e")


def test_no_folder_holds_no_locks(tmp_path: Path) -> None:
    assert build_locks.remove_stale_locks(tmp_path / "nowhere") == []
