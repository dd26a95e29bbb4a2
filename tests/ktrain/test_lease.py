import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ktrain import lease as module
from ktrain.lease import LeaseHeld, Process, lease

HOLD = """
import sys, pathlib
from ktrain.lease import lease
with lease(pathlib.Path(sys.argv[1]), "a-1"):
    print("held", flush=True)
    sys.stdin.read()
"""
CONTEND = """
import os, sys, pathlib
from ktrain.lease import lease
root = pathlib.Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
for _ in range(15):
    with lease(root, "a-1", beat=0.02, stale=20.0, patience=20.0) as held:
        (root / "inside").open("x").close()
        assert not held.lost
        (root / "inside").unlink()
        with (root / "log").open("a") as log:
            log.write("x")
"""


@contextmanager
def script(source: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed its first line."""
    command = [sys.executable, "-c", source, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def held_by(root: Path, process: Process, age: float = 0.0) -> Path:
    """The lease file of another holder whose last beat is `age` seconds old."""
    path = root / "leases" / "a-1.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**asdict(process), "token": "theirs", "beat": time.time() - age}))
    return path


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.fixture
def elsewhere() -> Process:
    return replace(Process.current(), host="elsewhere")


def test_file_names_the_holder_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "leases" / "a-1.json"
    with lease(tmp_path, "a-1") as held:
        content = json.loads(path.read_text())
        assert content["pid"] == os.getpid() and abs(content["beat"] - time.time()) < 5
        assert {"host", "boot", "namespace", "started", "token"} <= content.keys()
        assert not held.lost
        with lease(tmp_path, "b-2", patience=0):
            pass
    assert not list((tmp_path / "leases").glob("*.json"))


def test_block_that_raises_releases(tmp_path: Path) -> None:
    with pytest.raises(KeyError), lease(tmp_path, "a-1"):
        raise KeyError
    with lease(tmp_path, "a-1", patience=0):
        pass


def test_beat_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "leases" / "a-1.json"
    with lease(tmp_path, "a-1", beat=0.01) as held:
        first = json.loads(path.read_text())
        assert within(5, lambda: json.loads(path.read_text())["beat"] > first["beat"])
        assert json.loads(path.read_text())["token"] == first["token"]
        assert not held.lost


def test_living_process_is_waited_for_until_patience_ends(tmp_path: Path) -> None:
    with script(HOLD, tmp_path) as holder:
        told: list[str] = []
        line = rf"^a-1: held by process {holder.pid} on .*, last beat \d+ s ago$"
        waiting = lease(tmp_path, "a-1", patience=0.05, beat=0.04, on_wait=told.append)
        with pytest.raises(LeaseHeld, match=line), waiting:
            pass
        assert len(told) == 1 and f"process {holder.pid} on" in told[0]
        holder.communicate()
        with lease(tmp_path, "a-1", patience=0):
            pass


def test_another_thread_of_the_same_process_is_another_holder(tmp_path: Path) -> None:
    taken = threading.Event()

    def take() -> None:
        with lease(tmp_path, "a-1", beat=0.02):
            taken.set()

    with lease(tmp_path, "a-1"):
        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.05)
    thread.join(5)
    assert taken.is_set()


def test_killed_holder_is_followed_at_once(tmp_path: Path) -> None:
    with script(HOLD, tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        # Not waited for: a zombie must count as dead too.
        with lease(tmp_path, "a-1", patience=2, beat=0.04):
            pass


def test_reused_process_id_is_not_the_holder(tmp_path: Path) -> None:
    me = Process.current()
    if me.started is None:
        pytest.skip("this system does not tell when a process began")
    held_by(tmp_path, replace(me, started=me.started - 1))
    with lease(tmp_path, "a-1", patience=0):
        pass


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_process_elsewhere_is_judged_by_its_beat_alone(tmp_path: Path, field: str) -> None:
    fields = {**asdict(Process.current()), "pid": 2**22 + 1, field: "elsewhere"}
    held_by(tmp_path, Process(**fields))
    with pytest.raises(LeaseHeld), lease(tmp_path, "a-1", patience=0):
        pass
    held_by(tmp_path, Process(**fields), age=31)
    with lease(tmp_path, "a-1", patience=0):
        pass


def test_stale_beat_of_a_living_process_is_dead(tmp_path: Path) -> None:
    held_by(tmp_path, Process.current(), age=29)
    with pytest.raises(LeaseHeld), lease(tmp_path, "a-1", patience=0):
        pass
    with lease(tmp_path, "a-1", patience=0, stale=28):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"token": 1}'])
def test_unreadable_lease_is_judged_by_its_age(tmp_path: Path, content: str) -> None:
    path = tmp_path / "leases" / "a-1.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(LeaseHeld, match="an unknown process"), lease(tmp_path, "a-1", patience=0):
        pass
    os.utime(path, (time.time() - 31,) * 2)
    with lease(tmp_path, "a-1", patience=0):
        pass


@pytest.mark.parametrize("deleted", [False, True])
def test_holder_learns_of_its_loss_and_leaves_the_other_alone(
    tmp_path: Path, elsewhere: Process, deleted: bool
) -> None:
    with lease(tmp_path, "a-1", beat=0.01) as held:
        path = held_by(tmp_path, elsewhere)
        if deleted:
            path.unlink()
        assert within(5, lambda: held.lost)
        held_by(tmp_path, elsewhere)
    assert json.loads(path.read_text())["token"] == "theirs"


def test_disk_that_fails_for_a_while_is_borne(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "leases" / "a-1.json"
    with lease(tmp_path, "a-1", beat=0.01) as held:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            assert within(5, lambda: "No space left" in caplog.text)
        before = json.loads(path.read_text())["beat"]
        assert within(5, lambda: json.loads(path.read_text())["beat"] > before)
        assert not held.lost


def test_contenders_for_a_dead_lease_never_hold_it_together(tmp_path: Path, elsewhere: Process) -> None:
    held_by(tmp_path, elsewhere, age=60)
    with script(CONTEND, tmp_path) as a, script(CONTEND, tmp_path) as b, script(CONTEND, tmp_path) as c:
        for process in (a, b, c):
            assert process.stdin is not None
            process.stdin.close()
        assert [process.wait(30) for process in (a, b, c)] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "x" * 45


def test_dead_lease_has_one_heir_however_slow_the_disk(
    tmp_path: Path, elsewhere: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, all_tried = module._read, threading.Barrier(4)

    def slow(path: Path) -> Any:
        holder = original(path)
        time.sleep(0.02)
        return holder

    def inherit(_: int) -> bool:
        try:
            with lease(tmp_path, "a-1", patience=0):
                all_tried.wait(10)
                return True
        except LeaseHeld:
            all_tried.wait(10)
            return False

    held_by(tmp_path, elsewhere, age=60)
    monkeypatch.setattr(module, "_read", slow)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(inherit, range(4))) == 1


@pytest.mark.parametrize(("beat", "stale"), [(0.0, 1.0), (5.0, 5.0), (31.0, 30.0)])
def test_beat_must_be_shorter_than_stale(tmp_path: Path, beat: float, stale: float) -> None:
    with pytest.raises(ValueError, match="between two beats"), lease(tmp_path, "a-1", beat=beat, stale=stale):
        pass


def test_error_survives_being_sent_to_another_process() -> None:
    # Copying goes the way that sending goes, through `__reduce__`.
    error = copy.copy(LeaseHeld("a-1", "process 1 on x"))
    assert (error.key, error.holder, str(error)) == ("a-1", "process 1 on x", "a-1: held by process 1 on x")
