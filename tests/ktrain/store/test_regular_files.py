"""What is no regular file of the store is damage at once: no reader waits for it, and none follows a link out."""

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ktrain.fingerprint import stage_key
from ktrain.stages import Stage
from ktrain.store.base import Store
from ktrain.store.checkpoints import POINT, STATE, Checkpoint, Checkpoints
from ktrain.store.compare_and_swap import FileCasCell, locked
from ktrain.store.open import open_store
from ktrain.store.regular_files import IrregularFile, is_regular, open_regular, read_bytes, read_text

IDENTITY = {"seed": 1}
KEY = stage_key("pretrain", IDENTITY)
HANGS = 20.0


@pytest.fixture(autouse=True)
def never_waits() -> Iterator[None]:
    """A reader that waits is interrupted, so that it fails its test alone."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {HANGS:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    signal.signal(signal.SIGALRM, before)


def listener(path: Path) -> None:
    # A socket's own path has to be short.
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": listener,
    "a folder": Path.mkdir,
}
LINK = "a link that leads out"


@pytest.fixture(params=[*KINDS, LINK])
def replace(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], None]:
    """Puts something else in the place of a file of the store `tmp_path / "results"`."""

    def put(path: Path) -> None:
        outside = tmp_path / "outside"
        if path.exists():
            path.rename(outside)
        if request.param == LINK:
            # To the same content: that it is right must not count.
            outside.touch()
            path.symlink_to(outside)
        else:
            KINDS[request.param](path)

    return put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "results")


def publish(store: Store) -> Path:
    files = {"model/weights": b"weights", "metrics.json": {"loss": 1.5}}
    store.publish_files(Stage("pretrain", KEY, IDENTITY), files)
    return store.root / "stages" / KEY


@pytest.mark.parametrize("name", ["manifest.json", "metrics.json", "model/weights"])
def test_a_stage_with_such_a_file_is_damaged(store: Store, replace: Callable[[Path], None], name: str) -> None:
    folder = publish(store)
    replace(folder / name)
    assert store.exists(KEY) == (name != "manifest.json")
    assert KEY not in store.snapshot([KEY]).done
    assert store.fetch(KEY) is None and not os.path.lexists(folder)
    assert publish(store) == folder and store.fetch(KEY) == folder


def test_a_stage_that_is_a_link_out_of_the_store_is_damaged(store: Store, tmp_path: Path) -> None:
    folder = publish(store)
    shutil.move(folder, tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")
    assert not store.exists(KEY) and not store.snapshot([KEY]).done and store.fetch(KEY) is None
    assert (tmp_path / "outside" / "manifest.json").is_file(), "what the link led to is not the store's"


def test_the_store_itself_and_its_folders_may_be_links(store: Store, tmp_path: Path) -> None:
    publish(store)
    shutil.move(store.root / "stages", tmp_path / "disk")
    (store.root / "stages").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(store.root)
    for root in (store.root, tmp_path / "link"):
        opened = open_store(root)
        assert opened.exists(KEY) and opened.fetch(KEY) is not None and KEY in opened.snapshot([KEY]).done


def test_notes_leases_and_locks(store: Store, replace: Callable[[Path], None], tmp_path: Path) -> None:
    store.note_failure(KEY, "Diverged")
    replace(store.root / "work" / KEY / "failure.txt")
    assert store.failure(KEY) is None
    shutil.rmtree(tmp_path / "outside", ignore_errors=True)
    store.note_pause(KEY, {1: 2.0})
    replace(store.root / "work" / KEY / "paused.json")
    assert store.paused(KEY) == {}
    shutil.rmtree(tmp_path / "outside", ignore_errors=True)
    cell = FileCasCell(store.root / "leases" / f"{KEY}.json")
    cell.write("held", "")
    replace(cell.path)
    assert cell.read() == ("", "") and store.snapshot([KEY]).held == {}
    (store.root / "leases" / ".lock").unlink()
    replace(store.root / "leases" / ".lock")
    with pytest.raises(IrregularFile), locked(store.root / "leases"):
        pass


@pytest.mark.parametrize("name", [POINT, STATE])
def test_a_checkpoint_with_such_a_file_is_passed_over(store: Store, replace: Callable[[Path], None], name: str) -> None:
    points = Checkpoints(store.work_dir(KEY).folder)
    for step in (1, 2):
        points.save(Checkpoint(step, {"a": torch.ones(2)}, {}))
    replace(max(store.work_dir(KEY).folder.glob("step-*")) / name)
    latest = points.latest()
    assert latest is not None and latest.step == 1


def test_links_inside_are_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", tmp_path) == b"text" and read_text(tmp_path / "file", tmp_path) == "text"
    assert is_regular(tmp_path / "link", tmp_path) and not is_regular(tmp_path / "none", tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none", tmp_path)
