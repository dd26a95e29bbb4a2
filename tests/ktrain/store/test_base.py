import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import ktrain
from ktrain import fingerprint
from ktrain.config import CellConfig
from ktrain.errors import WrongRequest
from ktrain.fingerprint import stage_key
from ktrain.stages import Stage
from ktrain.store import manifest
from ktrain.store.base import Store
from ktrain.store.open import open_store, store_at
from ktrain.system import retry
from ktrain.system.retry import StorageUnavailable

IDENTITY = {"seed": 1}
KEY = stage_key("pretrain", IDENTITY)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "results")


def publish(store: Store, key: str = KEY, text: str = "weights") -> Path:
    stage = Stage("pretrain", key, IDENTITY)
    store.publish_files(stage, {"model/weights": text.encode(), "metrics.json": {"loss": 1.5}})
    return store.root / "stages" / key


def leftovers(store: Store) -> list[str]:
    return sorted(path.name for name in ("work", "damaged") for path in (store.root / name).iterdir())


# Where a store can be.

Opening = Callable[[str | Path], object]
"""Makes a store ready, or tests without a trace whether it could be."""
OPENINGS: dict[str, Opening] = {
    "opened": open_store,
    "tested": lambda root: store_at(root).require_writable(str(root)),
}


def test_root_is_absolute_and_opening_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened = open_store("results/here")
    assert opened.root == tmp_path / "results" / "here" == open_store(opened.root).root
    assert sorted(p.name for p in opened.root.iterdir()) == ["damaged", "leases", "stages", "work"]
    assert leftovers(opened) == [] and not list((opened.root / "stages").iterdir())


def test_file_address_is_local(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/a%20b").root == tmp_path / "a b"


@pytest.mark.parametrize("root", ["hdfs://host/x", "file://host/x", "hdfs:/x", Path("s3://bucket/x"), ""])
def test_other_addresses_are_refused(root: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongRequest, match=r"^store=.*: must be [^\n]*$"):
        open_store(root)
    assert not list(tmp_path.iterdir())


def test_a_thousand_folders_within_each_other_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WrongRequest, match="has more than 300 folders within each other"):
        open_store("x/" * 1900)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS)
def test_unwritable_roots_are_refused_in_one_line(tmp_path: Path, opening: Opening) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("work", "stages", "damaged", "leases"):
        (tmp_path / f"file-as-{name}").mkdir()
        (tmp_path / f"file-as-{name}" / name).write_text("x")
    for root in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        "/proc/none",
        tmp_path / "null\0",
        tmp_path / ("x" * 300),
        tmp_path / "link",
        *tmp_path.glob("file-as-*"),
    ):
        refused = r"^store=.*: ((is )?not (writable|readable): .+|is a file, where a folder must be)$"
        with pytest.raises(WrongRequest, match=refused) as caught:
            opening(root)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("opening", OPENINGS.values(), ids=OPENINGS)
def test_store_is_tried_out_by_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opening: Opening) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(WrongRequest, match=r"not writable: Read-only file system$"):
        opening(tmp_path)


def test_a_test_of_writing_leaves_nothing(tmp_path: Path) -> None:
    for root in (tmp_path / "new", tmp_path / "a" / "b" / "new", tmp_path):
        store_at(root).require_writable()
        assert not list(tmp_path.iterdir())


def test_a_test_of_writing_changes_no_store(store: Store) -> None:
    before = sorted(store.root.rglob("*"))
    store.require_writable()
    (store.root / "damaged").rmdir()
    store.require_writable()
    assert sorted(store.root.rglob("*")) == [path for path in before if path.name != "damaged"]


def test_only_the_folders_of_a_store_need_be_writable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may own the folder above them."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    store.require_writable()
    (store.root / "damaged").rmdir()
    with pytest.raises(WrongRequest, match=r"not writable: Permission denied$"):
        store.require_writable()


def test_looking_touches_nothing(tmp_path: Path) -> None:
    looked = store_at(tmp_path / "absent")
    assert not looked.exists(KEY) and looked.fetch(KEY) is None and looked.complete() == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["", "..", "../x", "a/b", "/x", ".x", "A", "a~b"])
def test_keys_cannot_leave_their_folder(store: Store, key: str) -> None:
    for call in (store.exists, store.fetch, store.work_dir, store.clear_work, store.manifest, store.metrics):
        with pytest.raises(ValueError):
            call(key)


# Publishing.


def test_published_stage_is_found_with_its_manifest(store: Store, tmp_path: Path) -> None:
    assert not store.complete()
    source = tmp_path / "source"
    source.write_bytes(b"copied")
    folders = []

    def fill(folder: Path) -> None:
        assert not list(folder.iterdir())
        (folder / "two.txt").write_text("two")
        assert not store.exists(key)
        folders.append(folder)

    identity = {"cell": CellConfig(), "rate": 0.1}
    key = stage_key("pretrain", identity)
    stage = Stage("pretrain", key, identity)
    files = {
        ".": fill,
        "a/b/deep.txt": lambda path: path.write_text("deep"),
        "copy": source,
        "metrics.json": {"loss": 1.5},
    }
    store.publish_files(stage, files)
    assert not folders[0].exists() and leftovers(store) == []
    assert (store.root / "stages" / key / "metrics.json").read_text() == '{\n "loss": 1.5\n}'
    assert store.exists(key) and store.fetch(key) == store.root / "stages" / key
    manifest = store.manifest(key)
    assert list(manifest) == ["key", "kind", "config", "files", "versions", "machine", "created", "checksum"]
    assert (manifest["key"], manifest["kind"]) == (key, "pretrain")
    assert manifest["config"] == {"cell": CellConfig().model_dump(mode="json"), "rate": 0.1}
    assert list(manifest["files"]) == ["a/b/deep.txt", "copy", "metrics.json", "two.txt"]
    assert manifest["files"]["a/b/deep.txt"]["size"] == 4
    assert manifest["versions"]["ktrain"] == ktrain.__version__
    assert store.metrics(key) == {"loss": 1.5}


def test_a_manifest_says_when_work_on_the_stage_began(store: Store) -> None:
    key = stage_key("x", IDENTITY)
    with store.lease(key) as held:
        held.since = 86_400.9
        store.publish_files(Stage("x", key, IDENTITY), {"a": b"a"})
    assert store.manifest(key)["started"] == "1970-01-02T00:00:00+00:00"
    assert store.verify(key) is None


def test_the_keys_are_those_of_complete_stages(store: Store) -> None:
    keys = [stage_key(name, IDENTITY) for name in ("pretrain", "corpus")]
    for key in keys:
        publish(store, key)
    (store.root / "stages" / "corpus-unsealed").mkdir()
    (store.root / "stages" / "No Key").mkdir()
    (store.root / "stages" / "No Key" / "manifest.json").write_text("{}")
    assert store.complete() == sorted(keys)


def test_first_result_stays(store: Store) -> None:
    publish(store, text="first")
    publish(store, text="second")
    assert (store.root / "stages" / KEY / "model" / "weights").read_text() == "first"
    assert leftovers(store) == []


def test_damaged_stage_gives_way_to_a_new_one(store: Store) -> None:
    (publish(store, text="first") / "model" / "weights").unlink()
    publish(store, text="second")
    found = store.fetch(KEY)
    assert found is not None and (found / "model" / "weights").read_text() == "second"
    assert leftovers(store) == [f"{KEY}-1"]


def test_exception_publishes_nothing(store: Store) -> None:
    def interrupted(path: Path) -> None:
        path.write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.publish_files(Stage("pretrain", KEY, IDENTITY), {"half": interrupted})
    with pytest.raises(ValueError):
        store.publish_files(Stage("pretrain", KEY, IDENTITY), {"metrics.json": {"loss": float("nan")}})
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
        patch.setattr(retry, "PATIENCE", 0.0)
        try:
            publish(store)
        except StorageUnavailable as error:
            assert isinstance(error.__cause__, OSError) and error.__cause__.errno == 28
    assert leftovers(store) == []
    assert store.exists(KEY) == (store.fetch(KEY) is not None)
    publish(store)
    assert store.fetch(KEY) is not None and leftovers(store) == []


KILL_AT_EVERY_STEP = """
import os, signal, sys
from ktrain.fingerprint import stage_key
from ktrain.stages import Stage
from ktrain.store.open import open_store, store_at
root, steps, complete = sys.argv[1], 0, 0
while True:
    key = stage_key("a", {"step": steps})
    pid = os.fork()
    if pid == 0:
        store = store_at(root)
        left = steps
        def hook(event, args):
            global left
            # Every opening, making, listing, renaming and removing below the store is a step to die before.
            if args and str(args[0]).startswith(root):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        store.publish_files(Stage("x", key, {"step": steps}), {"one": b"1", "two": b"2"})
        os._exit(0)
    killed = os.waitpid(pid, 0)[1] != 0
    store = open_store(root)
    assert not os.listdir(store.root / "work"), "left over"
    here = os.path.lexists(store.root / "stages" / key)
    assert here == store.exists(key) == (store.fetch(key) is not None), "half a stage"
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
    make = {"link": lambda path: path.symlink_to("real"), "pipe": os.mkfifo, "manifest.json": Path.touch}[name]
    with pytest.raises(ValueError, match=f"^{name} cannot be published"):
        store.publish_files(Stage("x", KEY, IDENTITY), {"real": b"x", name: make})
    assert not store.exists(KEY) and leftovers(store) == []


def test_a_key_that_is_not_that_of_its_config_is_not_published(store: Store) -> None:
    with pytest.raises(ValueError, match=f"^{KEY} is not the key of its config$"):
        store.publish_files(Stage("x", KEY, {"seed": 2}), {"metrics.json": {}})
    assert not store.exists(KEY) and leftovers(store) == []


@pytest.mark.parametrize(("config", "error"), [({"a": float("nan")}, ValueError), ({"a": {1}}, TypeError)])
def test_config_must_be_json(store: Store, config: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        store.publish_files(Stage("x", KEY, config), {})
    assert not store.exists(KEY) and leftovers(store) == []


def test_threads_publish_exactly_one(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda i: publish(store, text=str(i)), range(16)))
    assert {store.fetch(KEY)} == set(folders)
    assert leftovers(store) == []


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
        found = store.fetch(stage_key("a", {"i": i}))
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
            assert store.fetch(KEY) is None
        aside = store.root / "damaged" / f"{KEY}-{k}"
        assert [r.getMessage() for r in caplog.records] == [
            f"{KEY} is damaged ({DAMAGES[damage]}): moved to {aside}, to be rebuilt"
        ]
        assert aside.is_dir() and not store.exists(KEY)
    assert store.fetch(KEY) is None


def test_files_that_came_later_do_no_harm(store: Store) -> None:
    (publish(store) / "note.txt").write_text("mine")
    assert store.fetch(KEY) is not None


def test_content_is_read_once_until_it_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(store)
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return fingerprint.sha256(path)

    monkeypatch.setattr(manifest, "sha256", counted)
    assert store.fetch(KEY) == store.fetch(KEY) == folder == open_store(store.root).fetch(KEY)
    assert sorted(read) == ["metrics.json", "weights"]
    os.utime(folder / "model" / "weights", (1, 1))
    assert store.fetch(KEY) == folder and len(read) == 3


def test_stage_rebuilt_by_another_meanwhile_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    remove(publish(store, text="old"))
    original = manifest.damage_of

    def slow(folder: Path, key: str) -> str | None:
        finding = original(folder, key)
        monkeypatch.setattr(manifest, "damage_of", original)
        publish(store, text="new")
        return finding

    monkeypatch.setattr(manifest, "damage_of", slow)
    found = store.fetch(KEY)
    assert found is not None and (found / "model" / "weights").read_text() == "new"
    assert leftovers(store) == [f"{KEY}-1"]


def test_damage_is_found_where_the_folder_for_it_was_removed(store: Store) -> None:
    cut(publish(store))
    shutil.rmtree(store.root / "damaged")
    assert store.fetch(KEY) is None and leftovers(store) == [f"{KEY}-1"]


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
    (store.work_dir(KEY).folder / "step-5").write_text("x")
    publish(store)
    assert (open_store(store.root).work_dir(KEY).folder / "step-5").read_text() == "x"
    store.clear_work(KEY)
    store.clear_work(KEY)
    assert leftovers(store) == []


def test_running_publication_survives_opening(store: Store) -> None:
    def fill(folder: Path) -> None:
        open_store(store.root)
        assert folder.is_dir()

    store.publish_files(Stage("x", KEY, IDENTITY), {".": fill})
    assert store.exists(KEY)


def test_leftovers_of_other_machines_are_not_judged(store: Store) -> None:
    other = store.root / "work" / f"{KEY}~elsewhere~1~4194305~7~00000000"
    other.mkdir()
    open_store(store.root)
    assert other.is_dir()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_all_files_of_a_stage_may_be_read_by_whom_the_umask_lets(store: Store, umask: int, mode: int) -> None:
    def private(path: Path) -> None:
        path.touch(0o600)

    before = os.umask(umask)
    try:
        save = partial(save_file, {"w": torch.zeros(2)})
        files = {"model/model.safetensors": save, "model/other": private, "metrics.json": {"loss": 1.0}}
        store.publish_files(Stage("pretrain", KEY, IDENTITY), files)
    finally:
        os.umask(before)
    folder = store.root / "stages" / KEY
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes.keys() >= {"model.safetensors", "other", "metrics.json", "manifest.json"} and {*modes.values()} == {
        mode
    }
