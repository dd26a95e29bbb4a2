import copy
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrain.store import lease as module
from ktrain.store.compare_and_swap import CasCell, FileCasCell, ObjectCasCell
from ktrain.store.lease import LeaseHeldElsewhere, LeaseHolder, Process, hold, lease, living_holders
from ktrain.store.object_client import ObjectClient
from ktrain.system import retry

HOLD = """
import sys, pathlib
from ktrain.store.lease import lease
with lease(pathlib.Path(sys.argv[1]), "a-1"):
    print("held", flush=True)
    sys.stdin.read()
"""
CONTEND = """
import os, sys, pathlib
from ktrain.store.lease import lease
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
    """The lease file of another holder, who says that its last beat is `age` seconds old."""
    path = root / "leases" / "a-1.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**asdict(process), "token": "theirs", "beat": time.time() - age}))
    return path


def beating(path: Path, done: threading.Event, beat: float) -> threading.Thread:
    """Somebody elsewhere who beats; its clock stands still."""

    def beats() -> None:
        for count in itertools.count():
            if done.wait(beat):
                return
            fresh = path.with_suffix(".theirs")
            fresh.write_text(json.dumps({**json.loads(path.read_text()), "count": count}))
            os.replace(fresh, path)

    thread = threading.Thread(target=beats)
    thread.start()
    return thread


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
        with pytest.raises(LeaseHeldElsewhere, match=line), waiting:
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


@pytest.mark.parametrize("age", [0.0, 36_000.0, -36_000.0], ids=["right clock", "clock behind", "clock ahead"])
@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_process_elsewhere_is_dead_when_its_lease_does_not_change(tmp_path: Path, field: str, age: float) -> None:
    """Whatever its clock says, and ours."""
    path = held_by(tmp_path, Process(**{**asdict(Process.current()), "pid": 2**22 + 1, field: "elsewhere"}), age)
    with pytest.raises(LeaseHeldElsewhere), lease(tmp_path, "a-1", patience=0):
        pass
    done = threading.Event()
    thread = beating(path, done, 0.02)
    with pytest.raises(LeaseHeldElsewhere), lease(tmp_path, "a-1", patience=1.0, beat=0.05, stale=0.5):
        pass
    done.set()
    thread.join()
    begin = time.monotonic()
    with lease(tmp_path, "a-1", patience=30, beat=0.05, stale=0.5):
        assert time.monotonic() - begin > 0.5


def test_living_process_that_does_not_beat_is_dead(tmp_path: Path) -> None:
    held_by(tmp_path, Process.current())
    with pytest.raises(LeaseHeldElsewhere), lease(tmp_path, "a-1", patience=0.2, beat=0.01, stale=20):
        pass
    with lease(tmp_path, "a-1", patience=30, beat=0.01, stale=0.2):
        pass


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"token": 1}', "\udcff\0"])
def test_unreadable_lease_is_dead_when_it_does_not_change(tmp_path: Path, content: str) -> None:
    path = tmp_path / "leases" / "a-1.json"
    path.parent.mkdir()
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(LeaseHeldElsewhere, match="an unknown process"), lease(tmp_path, "a-1", patience=0):
        pass
    with lease(tmp_path, "a-1", patience=30, beat=0.01, stale=0.05):
        pass


def test_a_lease_without_content_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "a-1.json").touch()
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


def test_contenders_for_a_dead_lease_never_hold_it_together(tmp_path: Path) -> None:
    me = Process.current()
    if me.started is None:
        pytest.skip("this system does not tell when a process began")
    held_by(tmp_path, replace(me, started=me.started - 1))
    with script(CONTEND, tmp_path) as a, script(CONTEND, tmp_path) as b, script(CONTEND, tmp_path) as c:
        for process in (a, b, c):
            assert process.stdin is not None
            process.stdin.close()
        assert [process.wait(30) for process in (a, b, c)] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "x" * 45


@dataclass(frozen=True)
class Slow:
    """A cell with time between a look and what follows from it."""

    inner: CasCell

    @property
    def name(self) -> str:
        return self.inner.name

    def read(self) -> tuple[str, Any]:
        found = self.inner.read()
        time.sleep(0.02)
        return found

    def write(self, text: str, seen: Any) -> Any | None:
        return self.inner.write(text, seen)


@pytest.fixture(params=["file", "object"])
def cell(request: pytest.FixtureRequest, tmp_path: Path) -> CasCell:
    if request.param == "file":
        return FileCasCell(tmp_path / "leases" / "a-1.json")
    address = request.getfixturevalue("s3")
    return ObjectCasCell(ObjectClient(address, patience=0.0, hasty=True), "leases/a-1.json")


def test_dead_lease_has_one_heir_however_slow_the_store(cell: CasCell) -> None:
    all_tried = threading.Barrier(4)

    def inherit(_: int) -> bool:
        try:
            with hold(Slow(cell), patience=0):
                all_tried.wait(30)
                return True
        except LeaseHeldElsewhere:
            all_tried.wait(30)
            return False

    me = Process.current()
    gone = {**asdict(replace(me, started=(me.started or 2) - 1)), "token": "theirs", "beat": 0.0}
    assert cell.write(json.dumps(gone), cell.read()[1]) is not None
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(inherit, range(4))) == 1


def test_a_register_changes_in_the_hands_of_who_has_seen_it(cell: CasCell) -> None:
    assert cell.name == "a-1"
    text, nothing = cell.read()
    assert text == ""
    one = cell.write("one", nothing)
    assert one is not None and cell.write("two", nothing) is None
    assert cell.read() == ("one", one)
    two = cell.write("two", one)
    assert two is not None and cell.write("three", one) is None and cell.write("", one) is None
    assert cell.write("", two) is not None and cell.read()[0] == ""
    assert cell.write("four", cell.read()[1]) is not None and cell.read()[0] == "four"


def test_a_lease_is_beaten_lost_and_given_back_wherever_it_is(cell: CasCell) -> None:
    with hold(cell, beat=0.02, stale=20) as held:
        first = json.loads(cell.read()[0])
        assert within(20, lambda: json.loads(cell.read()[0])["count"] > first["count"] + 1)
        with pytest.raises(LeaseHeldElsewhere), hold(cell, patience=0):
            pass
        assert not held.lost
    assert cell.read()[0] == ""
    with hold(cell, beat=0.02, stale=20) as held:
        while cell.write(json.dumps({"token": "theirs"}), cell.read()[1]) is None:
            pass
        assert within(20, lambda: held.lost)
    assert json.loads(cell.read()[0]) == {"token": "theirs"}


# Against a model: three who all want one lease, with time and faults as hypothesis likes.


class Memory:
    """A cell as it should be, which may be away, and whose answers may get lost."""

    name = "a-1"

    def __init__(self) -> None:
        self.text, self.version, self.away, self.deaf = "", 0, False, False

    def read(self) -> tuple[str, Any]:
        self._reached()
        return self.text, self.version

    def write(self, text: str, seen: Any) -> Any | None:
        self._reached()
        if seen != self.version:
            return None
        self.text, self.version = text, self.version + 1
        if self.deaf:
            raise TimeoutError("the answer got lost")
        return self.version

    def _reached(self) -> None:
        if self.away:
            raise TimeoutError("away")


class Driver:
    """One on a machine of its own, with a clock that is hours off and jumps."""

    def __init__(self, number: int, cell: Memory) -> None:
        self.clock, self.wall, self.cell = 1e5 * number, 1e9 + 36_000 * number, cell
        self.process = Process(f"host-{number}", "boot", "1", 1, None)
        self.begin()

    def begin(self) -> None:
        """Another process, which knows nothing of the one before."""
        self.holds, self.sleeps, self.slept, self.next = False, 0, 0, 0.0
        with self.at_work():
            self.contender = LeaseHolder(self.cell, BEAT, STALE)

    def act(self) -> None:
        """Looks every second while it waits, beats every five while it holds."""
        with self.at_work(), suppress(OSError):
            if not self.holds:
                self.holds, self.slept = self.contender.attempt() is None, 0
                self.next = self.clock + BEAT
            elif self.clock >= self.next:
                self.next = self.clock + BEAT
                self.contender.heartbeat()
                if self.contender.lease.lost:
                    assert self.slept > STALE - BEAT, "lost while it lived"
                    self.begin()
                self.slept = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        clocks = SimpleNamespace(monotonic=lambda: self.clock, time=lambda: self.wall, sleep=time.sleep)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "time", clocks)
            patch.setattr(module.Process, "current", lambda: self.process)
            yield


BEAT, STALE = 5.0, 30.0
DRIVERS, ORDERS = st.integers(0, 2), st.permutations(range(3))
EVENTS = st.one_of(
    st.tuples(st.just("live"), ORDERS, st.sampled_from([1, 4, 36])),
    st.tuples(st.just("outage"), ORDERS, st.sampled_from([4, 31, 100])),
    st.tuples(st.just("lost answers"), ORDERS, st.sampled_from([1, 7])),
    st.tuples(st.just("release"), DRIVERS, st.just(0)),
    st.tuples(st.just("die"), DRIVERS, st.just(0)),
    st.tuples(st.just("sleep"), DRIVERS, st.sampled_from([4, 31, 100])),
    st.tuples(st.just("jump"), DRIVERS, st.sampled_from([-43_200, -3600, 3600, 43_200])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, min_size=5, max_size=25))
def test_leases_against_a_model(events: list[tuple[str, Any, int]]) -> None:
    """At most one of those who are awake holds it, one that lives and beats never loses it, whatever clocks and store
    do, and while the store answers, somebody has it before long."""
    cell = Memory()
    drivers = [Driver(number, cell) for number in range(3)]

    def live(order: Sequence[int], seconds: int) -> None:
        for _ in range(seconds):
            for one in drivers:
                one.clock, one.wall = one.clock + 1, one.wall + 1
            for one in (drivers[number] for number in order):
                if one.sleeps:
                    one.sleeps, one.slept, one.next = one.sleeps - 1, one.slept + 1, one.clock
                else:
                    one.act()
                assert sum(other.holds and not other.slept for other in drivers) <= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "PATIENCE", 0.0)
        for what, whose, much in events:
            if what == "live":
                live(whose, much)
                somebody = any(one.holds for one in drivers)
                assert somebody or much < STALE + BEAT or all(one.sleeps for one in drivers)
            elif what in ("outage", "lost answers"):
                cell.away, cell.deaf = what == "outage", what == "lost answers"
                live(whose, much)
                cell.away = cell.deaf = False
            elif what == "release" and drivers[whose].holds and not drivers[whose].slept:
                with drivers[whose].at_work():
                    drivers[whose].contender.release()
                drivers[whose].begin()
            elif what == "die":
                drivers[whose].begin()
            elif what == "sleep":
                drivers[whose].sleeps += much
            elif what == "jump":
                drivers[whose].wall += much


def test_one_who_could_not_beat_learns_that_another_took_over() -> None:
    """A machine that slept, or a network that was cut off for it alone."""
    cell = Memory()
    one, other = Driver(0, cell), Driver(1, cell)
    one.act()
    assert one.holds
    while not other.holds:
        other.clock += 1
        other.act()
    assert other.clock - 1e5 > STALE
    with one.at_work():
        one.contender.heartbeat()
        assert one.contender.lease.lost
        one.contender.release()
    assert json.loads(cell.text)["host"] == "host-1"


def test_who_lives_is_told_by_a_second_look_where_clocks_are_off() -> None:
    me, other = Process.current(), Process("elsewhere", "boot", "1", 7, 7)
    texts = {name: json.dumps({**asdict(other), "token": name, "count": 0}) for name in ("right", "ahead", "behind")}
    texts |= {"still": texts["ahead"], "gone": json.dumps({**asdict(replace(me, pid=2**22 + 1)), "token": "x"})}
    offsets = {"right": -3.0, "ahead": 7200.0, "behind": -7200.0, "still": -7200.0, "gone": -1.0}
    looks: list[int] = []

    def look() -> dict[str, tuple[str, float]]:
        looks.append(1)
        changed = {"ahead", "behind"} if len(looks) > 1 else set()
        return {
            name: (text.replace('"count": 0', '"count": 1') if name in changed else text, time.time() + offsets[name])
            for name, text in texts.items()
        }

    found = living_holders(look, pause=0.01)
    assert found.keys() == {"right", "ahead", "behind"} and found["right"] == "process 7 on elsewhere"
    texts = {"right": texts["right"]}
    assert living_holders(look, pause=1e9).keys() == {"right"}


@pytest.mark.parametrize(("beat", "stale"), [(0.0, 1.0), (5.0, 5.0), (31.0, 30.0)])
def test_beat_must_be_shorter_than_stale(tmp_path: Path, beat: float, stale: float) -> None:
    with pytest.raises(ValueError, match="between two beats"), lease(tmp_path, "a-1", beat=beat, stale=stale):
        pass


def test_error_survives_being_sent_to_another_process() -> None:
    # Copying goes the way that sending goes, through `__reduce__`.
    error = copy.copy(LeaseHeldElsewhere("a-1", "process 1 on x"))
    assert (error.key, error.holder, str(error)) == ("a-1", "process 1 on x", "a-1: held by process 1 on x")
