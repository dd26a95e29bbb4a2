import json
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ktrain
from ktrain import keys, manifest
from ktrain.config import Cell
from ktrain.errors import WrongRequest
from ktrain.store import Store

KEY = "pretrain-0123abcd"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "results")


def publish(store: Store, key: str = KEY, text: str = "weights") -> Path:
    with store.publish(key, {"seed": 1}, "pretrain") as folder:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text(text)
        (folder / "metrics.json").write_text('{"loss": 1.5}')
    return store.root / "stages" / key


def leftovers(store: Store) -> list[str]:
    return sorted(path.name for name in ("work", "damaged") for path in (store.root / name).iterdir())


# Where a store can be.


def test_root_is_absolute_and_opening_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened = Store.open("results/here")
    assert opened.root == tmp_path / "results" / "here" == Store.open(opened.root).root
    assert sorted(p.name for p in opened.root.iterdir()) == ["damaged", "leases", "stages", "work"]
    assert leftovers(opened) == [] and not list((opened.root / "stages").iterdir())


def test_file_address_is_local(tmp_path: Path) -> None:
    assert Store.open(f"file://{tmp_path}/a%20b").root == tmp_path / "a b"


@pytest.mark.parametrize("root", ["hdfs://host/x", "file://host/x", "hdfs:/x", Path("s3://bucket/x"), ""])
def test_other_addresses_are_refused(root: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongRequest, match=r"^store=.*: must be [^\n]*$"):
        Store.open(root)
    assert not list(tmp_path.iterdir())


def test_unwritable_roots_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for root in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        "/proc/none",
        tmp_path / "null\0",
        tmp_path / ("x" * 300),
    ):
        with pytest.raises(WrongRequest, match=r"^store=.*: not writable: .+$") as caught:
            Store.open(root)
        assert "\n" not in str(caught.value)


def test_store_is_tried_out_by_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(WrongRequest, match=r"not writable: Read-only file system$"):
        Store.open(tmp_path)


def test_looking_touches_nothing(tmp_path: Path) -> None:
    looked = Store.at(tmp_path / "absent")
    assert not looked.exists(KEY) and looked.find(KEY) is None and looked.complete() == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["", "..", "../x", "a/b", "/x", ".x", "A", "a~b"])
def test_keys_cannot_leave_their_folder(store: Store, key: str) -> None:
    for call in (store.exists, store.find, store.work, store.clear_work, store.manifest, store.metrics):
        with pytest.raises(ValueError):
            call(key)


# Publishing.


def test_published_stage_is_found_with_its_manifest(store: Store) -> None:
    assert not store.exists(KEY) and store.find(KEY) is None
    with store.publish(KEY, {"cell": Cell(), "rate": 0.1}, "pretrain") as folder:
        assert not list(folder.iterdir())
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "deep.txt").write_text("deep")
        (folder / "metrics.json").write_text('{"loss": 1.5}')
        assert not store.exists(KEY)
    assert not folder.exists() and leftovers(store) == []
    assert store.exists(KEY) and store.find(KEY) == store.root / "stages" / KEY
    manifest = store.manifest(KEY)
    assert list(manifest) == ["key", "kind", "config", "files", "versions", "created"]
    assert (manifest["key"], manifest["kind"]) == (KEY, "pretrain")
    assert manifest["config"] == {"cell": Cell().model_dump(mode="json"), "rate": 0.1}
    assert list(manifest["files"]) == ["a/b/deep.txt", "metrics.json"]
    assert manifest["files"]["a/b/deep.txt"]["size"] == 4
    assert manifest["versions"]["ktrain"] == ktrain.__version__
    assert store.metrics(KEY) == {"loss": 1.5}


def test_the_keys_are_those_of_complete_stages(store: Store) -> None:
    for key in ("pretrain-b", "corpus-a"):
        publish(store, key)
    (store.root / "stages" / "corpus-unsealed").mkdir()
    (store.root / "stages" / "No Key").mkdir()
    (store.root / "stages" / "No Key" / "manifest.json").write_text("{}")
    assert store.complete() == ["corpus-a", "pretrain-b"]


def test_first_result_stays(store: Store) -> None:
    publish(store, text="first")
    publish(store, text="second")
    assert (store.root / "stages" / KEY / "model" / "weights").read_text() == "first"
    assert leftovers(store) == []


def test_damaged_stage_gives_way_to_a_new_one(store: Store) -> None:
    (publish(store, text="first") / "model" / "weights").unlink()
    publish(store, text="second")
    found = store.find(KEY)
    assert found is not None and (found / "model" / "weights").read_text() == "second"
    assert leftovers(store) == [f"{KEY}-1"]


def test_exception_publishes_nothing(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.publish(KEY, {}, "pretrain") as folder:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt
    assert not store.exists(KEY) and leftovers(store) == []


@pytest.mark.parametrize("function", ["fsync", "rename"])
@pytest.mark.parametrize("call", range(6))
def test_error_at_any_call_publishes_all_or_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, function: str, call: int
) -> None:
    original, left = getattr(os, function), [call]

    def failing(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing)
        try:
            publish(store)
        except OSError as error:
            assert error.errno == 28
    assert leftovers(store) == []
    assert store.exists(KEY) == (store.find(KEY) is not None)
    publish(store)
    assert store.find(KEY) is not None and leftovers(store) == []


KILL_AT_EVERY_STEP = """
import os, signal, sys
from ktrain.store import Store
root, steps, complete = sys.argv[1], 0, 0
while True:
    key = f"a-{steps:08d}"
    pid = os.fork()
    if pid == 0:
        store = Store.at(root)
        left = steps
        def hook(event, args):
            global left
            # Every opening, making, listing, renaming and removing below the store is a step to die before.
            if args and str(args[0]).startswith(root):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        with store.publish(key, {"a": 1}, "x") as folder:
            (folder / "one").write_text("1")
            (folder / "two").write_text("2")
        os._exit(0)
    killed = os.waitpid(pid, 0)[1] != 0
    store = Store.open(root)
    assert not os.listdir(store.root / "work"), "left over"
    here = os.path.lexists(store.root / "stages" / key)
    assert here == store.exists(key) == (store.find(key) is not None), "half a stage"
    assert not os.listdir(store.root / "damaged"), "damaged"
    complete += here
    steps += 1
    if not killed:
        assert here
        print(steps, complete)
        break
"""


def test_kill_at_any_step_publishes_all_or_nothing(store: Store) -> None:
    command = [sys.executable, "-c", KILL_AT_EVERY_STEP, str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    steps, complete = map(int, done.stdout.split())
    # Some deaths came after the rename, and most before it.
    assert steps > 10 and 1 < complete < steps / 2


@pytest.mark.parametrize("name", ["link", "manifest.json", "pipe"])
def test_only_files_that_can_be_verified_are_published(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} cannot be published"), store.publish(KEY, {}, "x") as folder:
        (folder / "real").write_text("x")
        if name == "link":
            (folder / name).symlink_to(folder / "real")
        elif name == "pipe":
            os.mkfifo(folder / name)
        else:
            (folder / name).write_text("{}")
    assert not store.exists(KEY) and leftovers(store) == []


@pytest.mark.parametrize(("config", "error"), [({"a": float("nan")}, ValueError), ({"a": {1}}, TypeError)])
def test_config_must_be_json(store: Store, config: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error), store.publish(KEY, config, "x"):
        pass
    assert not store.exists(KEY) and leftovers(store) == []


def test_threads_publish_exactly_one(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda i: publish(store, text=str(i)), range(16)))
    assert {store.find(KEY)} == set(folders)
    assert leftovers(store) == []


PUBLISH = """
import sys
from ktrain.store import Store
store = Store.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
for i in range(5):
    with store.publish(f"a-{i}", {}, "x") as folder:
        (folder / "who").write_text(sys.argv[2] * 1000)
        (folder / "who else").write_text(sys.argv[2])
"""


def test_processes_publish_exactly_one(store: Store) -> None:
    command = [sys.executable, "-c", PUBLISH, str(store.root)]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen([*command, who], stdin=pipe, stdout=pipe, text=True) for who in "abcd"]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        assert process.wait(30) == 0
        assert process.stdout is not None
        process.stdout.close()
    for i in range(5):
        found = store.find(f"a-{i}")
        assert found is not None
        assert (found / "who").read_text() == (found / "who else").read_text() * 1000
    assert leftovers(store) == []


# Verifying.


def cut(folder: Path) -> None:
    os.truncate(folder / "model" / "weights", 3)


def alter(folder: Path) -> None:
    (folder / "model" / "weights").write_text("WEIGHTS")


def remove(folder: Path) -> None:
    (folder / "model" / "weights").unlink()


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder / "model")


def garble(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"files": ')


def empty(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def unmake(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def rename(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "key": "other-00000000"}))


DAMAGES = {
    cut: r"model/weights has 3 bytes instead of 7",
    alter: r"model/weights has other content than when it was published",
    remove: r"model/weights is missing",
    remove_all: r"model/weights is missing",
    garble: r"manifest.json is not readable as the manifest of this stage",
    empty: r"manifest.json is not readable as the manifest of this stage",
    unmake: r"manifest.json is missing",
    rename: r"manifest.json is not readable as the manifest of this stage",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_stage_is_moved_aside_and_named(store: Store, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    for k in (1, 2):
        caplog.clear()
        damage(publish(store))
        with caplog.at_level(logging.WARNING, "ktrain.store"):
            assert store.find(KEY) is None
        aside = store.root / "damaged" / f"{KEY}-{k}"
        assert [r.getMessage() for r in caplog.records] == [
            f"{KEY} is damaged ({DAMAGES[damage]}): moved to {aside}, to be rebuilt"
        ]
        assert aside.is_dir() and not store.exists(KEY)
    assert store.find(KEY) is None


def test_files_that_came_later_do_no_harm(store: Store) -> None:
    (publish(store) / "note.txt").write_text("mine")
    assert store.find(KEY) is not None


def test_content_is_read_once_until_it_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(store)
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return keys.sha256(path)

    monkeypatch.setattr(manifest, "sha256", counted)
    assert store.find(KEY) == store.find(KEY) == folder == Store.open(store.root).find(KEY)
    assert sorted(read) == ["metrics.json", "weights"]
    os.utime(folder / "model" / "weights", (1, 1))
    assert store.find(KEY) == folder and len(read) == 3


def test_stage_rebuilt_by_another_meanwhile_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    remove(publish(store, text="old"))
    original = manifest.finding

    def slow(folder: Path, key: str) -> str | None:
        finding = original(folder, key)
        monkeypatch.setattr(manifest, "finding", original)
        publish(store, text="new")
        return finding

    monkeypatch.setattr(manifest, "finding", slow)
    found = store.find(KEY)
    assert found is not None and (found / "model" / "weights").read_text() == "new"
    assert leftovers(store) == [f"{KEY}-1"]


def test_damage_is_found_where_the_folder_for_it_was_removed(store: Store) -> None:
    cut(publish(store))
    shutil.rmtree(store.root / "damaged")
    assert store.find(KEY) is None and leftovers(store) == [f"{KEY}-1"]


def test_reading_what_is_not_there_says_so(store: Store) -> None:
    for read in (store.manifest, store.metrics):
        with pytest.raises(FileNotFoundError, match=KEY):
            read(KEY)
    (publish(store) / "metrics.json").write_text('{"loss": 9.5}')
    assert store.manifest(KEY)["key"] == KEY
    with pytest.raises(FileNotFoundError, match=f"metrics.json of {KEY}"):
        store.metrics(KEY)


# Resume points.


def test_work_is_kept_until_cleared(store: Store) -> None:
    (store.work(KEY) / "step-5").write_text("x")
    publish(store)
    assert (Store.open(store.root).work(KEY) / "step-5").read_text() == "x"
    store.clear_work(KEY)
    store.clear_work(KEY)
    assert leftovers(store) == []


def test_running_publication_survives_opening(store: Store) -> None:
    with store.publish(KEY, {}, "x") as folder:
        Store.open(store.root)
        assert folder.is_dir()
    assert store.exists(KEY)


def test_leftovers_of_other_machines_are_not_judged(store: Store) -> None:
    other = store.root / "work" / f"{KEY}~elsewhere~1~4194305~7~00000000"
    other.mkdir()
    Store.open(store.root)
    assert other.is_dir()
