"""A store in object storage keeps what a store in a folder does: whole results or none, whoever dies and whatever is
damaged."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ktrain.fingerprint import stage_key
from ktrain.stages import Stage
from ktrain.store import garbage_collection, manifest
from ktrain.store.base import Store
from ktrain.store.lease import LeaseLost
from ktrain.store.object_client import ObjectClient
from ktrain.store.open import open_store, store_at
from ktrain.system import retry
from ktrain.system.retry import StorageUnavailable

IDENTITY = {"seed": 1}
KEY = stage_key("pretrain", IDENTITY)
Elsewhere = Callable[[], Store]


@pytest.fixture
def store(s3: str) -> Store:
    return open_store(s3)


@pytest.fixture
def objects(s3: str) -> ObjectClient:
    return ObjectClient(s3)


@pytest.fixture
def elsewhere(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """The same store on a machine that has seen nothing of it yet."""
    count = iter(range(100))

    def machine() -> Store:
        monkeypatch.setenv("KTRAIN_CACHE", str(tmp_path / f"machine-{next(count)}"))
        return store_at(s3)

    return machine


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_PAUSES", (0.01, 0.05))


def test_a_test_of_writing_leaves_nothing(s3: str, objects: ObjectClient) -> None:
    store_at(s3).require_writable()
    assert not list(objects.entries(""))


def publish(store: Store, key: str = KEY, text: str = "weights") -> None:
    files = {"model/weights": text.encode(), "empty": b"", "metrics.json": {"loss": 1.5}}
    store.publish_files(Stage("pretrain", key, IDENTITY), files)


def text(store: Store, key: str = KEY) -> str | None:
    folder = store.fetch(key)
    return None if folder is None else (folder / "model" / "weights").read_text()


def data(objects: ObjectClient, file: str = "") -> list[str]:
    return sorted(entry.name for entry in objects.entries("data") if entry.name.endswith(file))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# Publishing and finding.


def test_published_stage_is_found_on_every_machine(store: Store, elsewhere: Elsewhere) -> None:
    assert not store.exists(KEY) and store.fetch(KEY) is None and store.complete() == []
    publish(store)
    for other in (store, elsewhere(), elsewhere()):
        assert other.exists(KEY) and other.complete() == [KEY]
        folder = other.fetch(KEY)
        assert folder is not None and folder == other.fetch(KEY)
        names = sorted(path.relative_to(folder).as_posix() for path in files(folder))
        assert names == ["empty", "manifest.json", "metrics.json", "model/weights"]
        assert other.metrics(KEY) == {"loss": 1.5} and other.read(KEY, "model/weights") == b"weights"
        about = other.manifest(KEY)
        fields = ["key", "kind", "config", "publication", "files", "versions", "machine", "created", "checksum"]
        assert list(about) == fields
        assert json.loads((folder / "manifest.json").read_text()) == about
        assert (about["key"], about["kind"], about["config"]) == (KEY, "pretrain", {"seed": 1})
    other = stage_key("x", IDENTITY)
    with store.lease(other):
        store.publish_files(Stage("x", other, IDENTITY), {"a": b"a"})
    assert store.manifest(other)["started"] <= store.manifest(other)["created"]


def test_who_publishes_has_the_copy_already(store: Store, objects: ObjectClient, proxy: Any) -> None:
    other = store_at(store.address)
    publish(other)
    proxy.requests.clear()
    assert text(other) == "weights"
    assert not [path for _, path in proxy.requests if "/data/" in path]


def test_first_result_stays_and_nothing_of_the_second(
    store: Store, elsewhere: Elsewhere, objects: ObjectClient
) -> None:
    publish(store, text="first")
    other = elsewhere()
    publish(other, text="second, and longer")
    assert text(store) == text(other) == text(elsewhere()) == "first"
    assert len(data(objects)) == 3


def test_exception_publishes_nothing(store: Store, objects: ObjectClient, tmp_path: Path) -> None:
    folders = []

    def interrupted(path: Path) -> None:
        path.write_text("x")
        folders.append(path.parent)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.publish_files(Stage("pretrain", KEY, IDENTITY), {"half": interrupted})
    with pytest.raises(ValueError, match=r"^link cannot be published"):
        store.publish_files(Stage("x", KEY, IDENTITY), {"link": lambda path: path.symlink_to(tmp_path)})
    with pytest.raises(ValueError):
        store.publish_files(Stage("x", KEY, {"a": float("nan")}), {".": folders.append})
    assert len(folders) == 2 and not any(folder.exists() for folder in folders) and not store.exists(KEY)
    assert [entry.name for entry in objects.entries("")] == []


@pytest.mark.parametrize("key", ["", "..", "../x", "a/b", "/x", ".x", "A", "a~b"])
def test_keys_cannot_leave_their_folder(store: Store, key: str) -> None:
    readers = (store.exists, store.fetch, store.manifest, store.metrics, store.failure)
    for call in (*readers, store.work_dir, store.clear_work):
        with pytest.raises(ValueError):
            call(key)


def test_reading_what_is_not_there_says_so(store: Store) -> None:
    for read in (store.manifest, store.metrics):
        with pytest.raises(FileNotFoundError, match=KEY):
            read(KEY)
    publish(store)
    with pytest.raises(FileNotFoundError, match=f"none.json of {KEY}"):
        store.read(KEY, "none.json")


def test_threads_publish_exactly_one(store: Store, elsewhere: Elsewhere, objects: ObjectClient) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda k: publish(store, text=str(k) * (k + 1)), range(6)))
    assert text(store) == text(elsewhere()) in [str(k) * (k + 1) for k in range(6)]
    assert len(data(objects)) == 3


PUBLISH = """
import sys
from ktrain.fingerprint import stage_key
from ktrain.stages import Stage
from ktrain.store.open import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
for i in range(5):
    who = sys.argv[2].encode()
    stage = Stage("x", stage_key("a", {"i": i}), {"i": i})
    store.publish_files(stage, {"who": who * 1000, "who else": who})
    assert store.fetch(stage.key) is not None
"""


def test_processes_publish_exactly_one(store: Store, objects: ObjectClient) -> None:
    command, pipe = [sys.executable, "-c", PUBLISH, store.address], subprocess.PIPE
    processes = [subprocess.Popen([*command, who], stdin=pipe, stdout=pipe, text=True) for who in "ab"]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        assert process.wait(120) == 0
        assert process.stdout is not None
        process.stdout.close()
    for i in range(5):
        folder = store.fetch(stage_key("a", {"i": i}))
        assert folder is not None
        assert (folder / "who").read_text() == (folder / "who else").read_text() * 1000
    assert len(data(objects)) == 10


DIE = """
import os, sys
from ktrain.fingerprint import stage_key
from ktrain.stages import Stage
from ktrain.store.open import store_at
store = store_at(sys.argv[1])
print(os.getpid(), flush=True)
input()  # Until the proxy counts.
store.publish_files(Stage("x", sys.argv[2], {"step": int(sys.argv[3])}), {"one": b"1", "two": b"2"})
"""


@pytest.mark.parametrize("answered", [False, True])
def test_death_at_any_step_publishes_all_or_nothing(proxy: Any, s3: str, answered: bool) -> None:
    """Killed before each request of a publication reaches the storage, or after it was answered."""
    complete, steps, died = 0, 0, True
    watcher = store_at(s3)
    while died:
        key = stage_key("a", {"step": steps})
        words = [sys.executable, "-c", DIE, s3, key, str(steps)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None and process.stdout is not None and process.stdout.readline()
        left, died = [steps], False

        def step(*_: Any, left: list[int] = left, process: Any = process) -> int | None:
            nonlocal died
            left[0] -= 1
            if left[0] < 0:
                died = True
                process.kill()
                process.wait()
                return 0
            return None

        if answered:
            proxy.after = lambda *request, step=step: step(*request) is not None
        else:
            proxy.before = step
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(120)
        process.stdout.close()
        proxy.before = proxy.after = lambda *_: None
        here = watcher.exists(key)
        folder = watcher.fetch(key)
        assert here == (folder is not None) == (key in watcher.complete())
        if folder is not None:
            assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "one", "two"]
        complete += here
        steps += 1
    # Two files and the manifest; after the manifest was answered, the stage is there.
    assert steps > 3 and complete == (2 if answered else 1)


# Damage.


def change(objects: ObjectClient, name: str) -> None:
    objects.put(name, objects.get(name)[0].replace(b"weights", b"weightz"))  # type: ignore[index]


def cut(objects: ObjectClient, name: str) -> None:
    objects.put(name, b"wei")


def remove(objects: ObjectClient, name: str) -> None:
    objects.remove([name])


def empty(objects: ObjectClient, name: str) -> None:
    objects.put(name, b"")


def lengthen(objects: ObjectClient, name: str) -> None:
    objects.put(name, b"weights and more")


DAMAGES = {
    change: "model/weights has other content than when it was published",
    cut: "model/weights has 3 bytes instead of 7",
    empty: "model/weights has 0 bytes instead of 7",
    lengthen: "model/weights has 16 bytes instead of 7",
    remove: "model/weights is missing",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_object_is_found_by_who_fetches_it_and_the_stage_gives_way(
    store: Store, objects: ObjectClient, elsewhere: Elsewhere, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store)
    publication = store.manifest(KEY)["publication"]
    (name,) = data(objects, "weights")
    damage(objects, name)
    other = elsewhere()
    with caplog.at_level(logging.WARNING, "ktrain.store"):
        assert other.fetch(KEY) is None and other.fetch(KEY) is None
    aside = f"damaged/{KEY}~{publication}.json"
    assert [r.getMessage() for r in caplog.records] == [
        f"{KEY} is damaged ({DAMAGES[damage]}): moved to {store.address}/{aside}, to be rebuilt"
    ]
    found = objects.get(aside)
    assert found is not None
    told = json.loads(found[0])
    assert told["finding"] == DAMAGES[damage] and json.loads(told["manifest"])["publication"] == publication
    for one in (store, other, elsewhere()):
        assert not one.exists(KEY) and one.complete() == [] and one.fetch(KEY) is None and not one.snapshot().done
    publish(other, text="rebuilt")
    assert text(store) == text(other) == text(elsewhere()) == "rebuilt"
    garbage_collection.collect_garbage(objects, datetime.now(UTC) + timedelta(days=9))
    assert len({entry.name.split("/")[1] for entry in objects.entries("data")}) == 2, "what is damaged is kept"
    assert text(elsewhere()) == "rebuilt"


@pytest.mark.parametrize("damage", [cut, remove])
def test_damage_that_a_listing_shows_needs_no_fetching(store: Store, objects: ObjectClient, damage: Any) -> None:
    assert not store.is_intact(KEY)
    publish(store)
    assert store.is_intact(KEY)
    damage(objects, *data(objects, "weights"))
    assert not store.is_intact(KEY) and not store.exists(KEY)


@pytest.mark.parametrize("damage", DAMAGES)
def test_verifying_reads_the_objects_and_not_the_copies(store: Store, objects: ObjectClient, damage: Any) -> None:
    publish(store)
    assert store.verify(KEY) is None and store.exists(KEY) and text(store) == "weights"
    damage(objects, *data(objects, "weights"))
    assert text(store) == "weights", "of its copy"
    assert store.verify(KEY) == DAMAGES[damage] and not store.exists(KEY) and store.verify(KEY) is None
    seen = store.snapshot([KEY])
    assert not seen.done and seen.damaged[KEY].startswith(f"moved to {store.address}/damaged/{KEY}~")
    publish(store, text="rebuilt")
    assert store.verify(KEY) is None and not store.snapshot([KEY]).damaged


@pytest.mark.parametrize("damage", [cut, remove])
def test_a_glance_compares_sizes(store: Store, objects: ObjectClient, damage: Any) -> None:
    publish(store)
    damage(objects, *data(objects, "weights"))
    assert store.snapshot().damaged == {KEY: "model/weights is missing or has another size"}


def test_a_stage_is_set_aside_for_what_its_files_do_not_show(store: Store) -> None:
    publish(store)
    store.set_aside(KEY, "its metrics are made up")
    store.set_aside(KEY, "its metrics are made up")
    assert not store.exists(KEY) and KEY in store.snapshot([KEY]).damaged


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"key": "other"}', b"\xff"])
def test_damaged_manifest_is_found(store: Store, objects: ObjectClient, content: bytes, elsewhere: Elsewhere) -> None:
    publish(store)
    objects.put(f"stages/{KEY}/manifest.json", content)
    assert not elsewhere().snapshot([KEY]).done
    assert elsewhere().fetch(KEY) is None and not store.exists(KEY)
    publish(store, text="rebuilt")
    assert text(elsewhere()) == "rebuilt"


@pytest.mark.parametrize("name", ["../../x", "/x", "a/../../x"])
def test_a_manifest_cannot_name_files_elsewhere(store: Store, objects: ObjectClient, name: str) -> None:
    publish(store)
    about = store.manifest(KEY)
    about["files"][name] = about["files"]["model/weights"]
    objects.put(f"stages/{KEY}/manifest.json", manifest.text(manifest.with_checksum(about)).encode())
    assert store.fetch(KEY) is None and not store.exists(KEY)


@pytest.mark.parametrize("name", ["model/weights", "metrics.json", "manifest.json"])
@pytest.mark.parametrize("gone", [False, True])
def test_damaged_copy_is_fetched_again(store: Store, s3: str, name: str, gone: bool) -> None:
    publish(store)
    folder = store.fetch(KEY)
    assert folder is not None
    raw = bytearray((folder / name).read_bytes())
    if gone:
        (folder / name).unlink()
    elif name == "manifest.json":
        pytest.skip("the object is read, not its copy")
    else:
        (folder / name).write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
        os.utime(folder / name, (1, 1))
    assert store_at(s3).fetch(KEY) == folder and (folder / name).read_bytes() == raw


def test_byte_that_flips_on_the_way_is_no_damage(
    proxy: Any, store: Store, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    original, flips = ObjectClient.download, [1]

    def flipping(self: ObjectClient, name: str, path: Path) -> None:
        original(self, name, path)
        if name.endswith("weights") and flips.pop() if flips else False:
            path.write_bytes(b"weightz")

    monkeypatch.setattr(ObjectClient, "download", flipping)
    assert text(elsewhere()) == "weights" and not flips


def test_stage_rebuilt_by_another_meanwhile_is_kept(
    store: Store, objects: ObjectClient, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, text="weights")
    cut(objects, *data(objects, "weights"))
    slow, quick = elsewhere(), elsewhere()
    original = ObjectClient.put

    def put(self: ObjectClient, name: str, content: bytes | Path) -> None:
        if name.startswith("damaged/"):
            monkeypatch.setattr(ObjectClient, "put", original)
            assert quick.fetch(KEY) is None
            publish(quick, text="rebuilt")
        original(self, name, content)

    monkeypatch.setattr(ObjectClient, "put", put)
    assert text(slow) == "rebuilt" and slow.exists(KEY)


# Copies.

FIND = """
import sys
from ktrain.store.open import store_at
store = store_at(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
print((store.fetch(sys.argv[2]) / "model" / "weights").read_text())
"""


def test_processes_that_want_one_copy_fetch_it_once(
    proxy: Any, store: Store, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store)
    monkeypatch.setenv("KTRAIN_CACHE", str(tmp_path / "fresh"))
    command, pipe = [sys.executable, "-c", FIND, s3, KEY], subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline()
    proxy.requests.clear()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.read() == "weights\n" and process.wait(120) == 0
        process.stdout.close()
    assert sum(method == "GET" and path.endswith("/model/weights") for method, path in proxy.requests) == 1


def test_copies_make_room_and_leave_alone_what_was_used_lately(
    store: Store, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ktrain.store import download_cache

    keys = [stage_key(f"a{k}", IDENTITY) for k in range(4)]
    for key in keys:
        publish(store, key)
    other = elsewhere()
    folders = [other.fetch(key) for key in keys[:3]]
    for age, folder in zip((7000, 9000, 10), folders, strict=True):
        assert folder is not None
        used = folder.stat().st_mtime - age
        os.utime(folder, (used, used))
    full = [True]
    monkeypatch.setattr(
        download_cache.shutil, "disk_usage", lambda _: type("", (), {"free": 0 if full[0] else 1 << 60})
    )
    assert other.fetch(keys[3]) is not None
    assert [folder.exists() for folder in folders if folder] == [False, False, True]
    assert all(text(other, key) == "weights" for key in keys)


# What is said of stages.


def test_a_pause_is_known_everywhere_until_the_work_is_cleared(store: Store, elsewhere: Elsewhere) -> None:
    assert store.paused(KEY) == {}
    store.note_pause(KEY, {6: 4.5})
    store.note_pause(KEY, {6: 4.5, 20: 3.25})
    other = elsewhere()
    assert other.paused(KEY) == {6: 4.5, 20: 3.25} and other.failure(KEY) is None
    assert (other.work_dir(KEY).folder / "paused.json").is_file(), "it lies with the checkpoint"
    other.clear_work(KEY)
    assert store.paused(KEY) == {}


def test_a_glance_tells_what_is_done_failed_and_held(store: Store, elsewhere: Elsewhere, proxy: Any) -> None:
    keys = [stage_key(f"a{k:02d}", IDENTITY) for k in range(40)]
    for number, key in enumerate(keys[:10]):
        store.publish_files(Stage("x", key, IDENTITY), {"metrics.json": {"loss": number}})
    store.note_failure(keys[10], "Diverged: nan\nand more")
    store.note_failure(keys[11], "gone")
    store.note_failure(keys[11], None)
    with store.lease(keys[12]):
        other = store_at(elsewhere().address)
        proxy.requests.clear()
        seen = other.snapshot(keys)
        first = len(proxy.requests)
        assert seen.done.keys() == set(keys[:10]) and seen.failures == {keys[10]: "Diverged: nan\nand more"}
        assert seen.held.keys() == {keys[12]}
        summary = seen.done[keys[0]]
        assert summary.metrics == {"loss": 0} and summary.manifest == store.manifest(keys[0])
        assert summary.where == f"{store.address}/data/{keys[0]}~{summary.manifest['publication']}"
        assert first == 5 + 2 * 10 + 2
        again = store_at(other.address).snapshot(keys)
        assert again == seen and len(proxy.requests) == first + 1 + 5 + 2
    assert store.snapshot().done.keys() == set(keys[:10]) and not store.snapshot(keys).held
    assert store.snapshot(keys[3:5]).done.keys() == set(keys[3:5])


def test_numbers_that_are_damaged_are_not_told(store: Store, objects: ObjectClient, elsewhere: Elsewhere) -> None:
    publish(store)
    objects.put(*data(objects, "metrics.json"), b'{\n "loss": 9.5\n}')
    other = elsewhere()
    seen = other.snapshot([KEY])
    assert not seen.done and seen.damaged == {KEY: "metrics.json is missing or damaged"} and other.exists(KEY)
    with pytest.raises(FileNotFoundError, match=f"metrics.json of {KEY}"):
        other.metrics(KEY)


# Drivers that lost their lease, or died.


@pytest.mark.parametrize("late", [False, True])
def test_a_driver_that_lost_its_lease_publishes_nothing(store: Store, objects: ObjectClient, late: bool) -> None:
    with store.lease(KEY) as held:
        held.lost = not late

        def write(path: Path) -> None:
            assert late
            path.write_text("a")
            held.lost = True

        with pytest.raises(LeaseLost, match=rf"^{KEY}: another driver took"):
            store.publish_files(Stage("x", KEY, IDENTITY), {"a": write})
    assert not store.exists(KEY) and data(objects) == []
    publish(store)
    assert text(store) == "weights"


def test_what_the_dead_left_is_swept_when_it_is_old(store: Store, objects: ObjectClient, elsewhere: Elsewhere) -> None:
    publish(store)
    other = "other-0123abcd"
    halves = {f"data/{key}~000000000000/half" for key in (KEY, other)}
    for name in (*halves, f"work/{KEY}/learning.json", f"work/{other}/learning.json", "probe/left"):
        objects.put(name, b"x")
    kept = {entry.name for entry in objects.entries("")}
    garbage_collection.collect_garbage(
        objects, datetime.now(UTC) + garbage_collection.ABANDONED - timedelta(seconds=60)
    )
    assert {entry.name for entry in objects.entries("")} == kept
    garbage_collection.collect_garbage(objects, datetime.now(UTC) + garbage_collection.ABANDONED + timedelta(seconds=5))
    gone = halves | {f"work/{KEY}/learning.json", "probe/left"}
    assert {entry.name for entry in objects.entries("")} == kept - gone
    assert text(elsewhere()) == "weights"


def test_what_somebody_is_at_work_on_is_not_swept(objects: ObjectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease beats; the upload of one large file takes long."""
    objects.put("data/a-1~000000000000/half", b"x")
    objects.put("leases/a-1.json", b"somebody")
    later = datetime.now(UTC) + timedelta(hours=5)
    original = ObjectClient.entries

    def beaten(self: ObjectClient, prefix: str) -> Any:
        return (replace(e, modified=later) if e.name.startswith("leases/") else e for e in original(self, prefix))

    with monkeypatch.context() as patch:
        patch.setattr(ObjectClient, "entries", beaten)
        garbage_collection.collect_garbage(objects, later)
    assert data(objects)
    garbage_collection.collect_garbage(objects, later)
    assert not data(objects)


# Holding on.


def test_an_outage_while_publishing_and_finding_is_waited_for(
    proxy: Any, s3: str, elsewhere: Elsewhere, hurried: None, caplog: pytest.LogCaptureFixture
) -> None:
    for fault in (0, 503):
        store = elsewhere()
        key = stage_key(f"a{fault}", IDENTITY)
        with ThreadPoolExecutor(1) as pool:
            proxy.before = lambda *_, fault=fault: fault
            waiting = pool.submit(publish, store, key)
            while not proxy.requests or not [r for r in caplog.records if "trying again" in r.getMessage()]:
                assert not waiting.done()
            proxy.before = lambda *_: None
            waiting.result()
            other = elsewhere()
            proxy.before = lambda *_, fault=fault: fault
            caplog.clear()
            found = pool.submit(text, other, key)
            while not [r for r in caplog.records if "trying again" in r.getMessage()]:
                assert not found.done()
            proxy.before = lambda *_: None
            assert found.result() == "weights"
        caplog.clear()


def test_patience_with_a_storage_that_stays_away_ends_in_one_line_and_nothing_half(
    proxy: Any, s3: str, store: Store, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "PATIENCE", 0.3)
    for refused in ("/data/", "/stages/"):
        other = store_at(s3)
        proxy.before = lambda method, path, _, refused=refused: 503 if method == "PUT" and refused in path else None
        with pytest.raises(
            StorageUnavailable, match=rf"^store={s3}: writing (data|stages)/.*: 503 Serv.*tried for \d+ s$"
        ):
            other.publish_files(Stage("x", KEY, IDENTITY), {"a": b"a"})
        assert not store.exists(KEY)
        assert list((Path(os.environ["KTRAIN_CACHE"])).rglob("a")) == []


@pytest.fixture
def tight(tmp_path: Path) -> Any:
    """A disk of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_full_disk_is_waited_for_and_ends_in_one_line(
    tight: Path, s3: str, kind: str, hurried: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KTRAIN_CACHE", str(tight / "cache"))
    store = open_store(tight / "results" if kind == "local" else s3)
    ballast = tight / "ballast"
    with pytest.raises(OSError):
        ballast.write_bytes(b"x" * (3 << 20))
    content = os.urandom(1 << 20)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.publish_files, Stage("x", KEY, IDENTITY), {"large": content})
        while not [r for r in caplog.records if "No space left on device; trying again" in r.getMessage()]:
            assert not waiting.done()
        ballast.unlink()
        waiting.result()
    assert store.read(KEY, "large") == content
    with pytest.raises(OSError):
        ballast.write_bytes(b"x" * (3 << 20))
    monkeypatch.setattr(retry, "PATIENCE", 0.2)
    other = stage_key("other", IDENTITY)
    with pytest.raises(StorageUnavailable, match=rf": publishing {other}: No space left on device, tried for \d+ s$"):
        store.publish_files(Stage("x", other, IDENTITY), {"large": content})
    assert not store.exists(other) and store.exists(KEY)
