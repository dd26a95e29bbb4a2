"""What this machine keeps of a store in object storage: verified copies, and the scratch folders of its processes."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ktrain.store import manifest, object_names
from ktrain.store.compare_and_swap import locked
from ktrain.store.json_files import Damage
from ktrain.system.atomic_write import atomic_write

RECENT = 3600.0
"""Seconds after its last use during which a copy stays, even if the disk is full."""
SPARE = 1 << 30
"""Bytes that a download leaves free on the disk."""
_DIGITS = 64


@dataclass(frozen=True)
class DownloadCache:
    """Copies of stages in `stages/<name>/` and of small files in `small/`, verified and shared by all processes of a
    machine. Every copy can be downloaded again. Methods raise `OSError` for the disk."""

    root: Path

    def stage(self, content: bytes, header: Mapping[str, Any], download: Callable[[str, Path], None]) -> Path:
        """Returns the verified folder of a stage with the manifest `header`, whose text is `content`. Where the copy is
        missing or damaged, `download(file, path)` fetches each file.

        Raises `Damage` for a file that does not match the manifest even after a second download.
        """
        name = object_names.publication(header)
        folder = self.root / "stages" / name
        with self._locked(name):
            if not _intact(folder, header):
                shutil.rmtree(folder, ignore_errors=True)
                self._make_room(sum(entry["size"] for entry in header["files"].values()))
                part = folder.with_name(f"{name}.part")
                shutil.rmtree(part, ignore_errors=True)
                try:
                    for file, entry in header["files"].items():
                        download_verified(part, file, entry, download)
                    (part / manifest.NAME).write_bytes(content)
                    os.rename(part, folder)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
            os.utime(folder)
        return folder

    def folder(self) -> Path:
        """The folder of the cache, created if missing."""
        self.root.mkdir(parents=True, exist_ok=True)
        return self.root

    def adopt(self, header: Mapping[str, Any], folder: Path) -> None:
        """Moves the folder from which a stage was published, manifest included, into the cache."""
        name = object_names.publication(header)
        with self._locked(name):
            os.rename(folder, self.root / "stages" / name)

    def small(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Returns the content cached under `name`, or else what `make` returns. One name must always mean the same
        content."""
        path = self.root / "small" / hashlib.sha256(name.encode()).hexdigest()
        with suppress(OSError):
            cached = path.read_bytes()
            if cached[:_DIGITS] == _sum(cached[_DIGITS:]):
                return cached[_DIGITS:]
        content = make()
        with suppress(OSError):  # On a full disk the next call downloads again.
            atomic_write(path, _sum(content) + content)
        return content

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Makes two processes that want the same copy download it once."""
        for part in ("stages", "locks"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        with locked(self.root / "locks", name):
            yield

    def _make_room(self, need: int) -> None:
        """Removes copies, the least recently used first, until `need` bytes fit."""
        ages = sorted((path.stat().st_mtime, path) for path in (self.root / "stages").iterdir())
        for used, path in ages:
            if shutil.disk_usage(self.root).free >= need + SPARE or time.time() - used < RECENT:
                return
            shutil.rmtree(path, ignore_errors=True)


class SharedScratch:
    """A folder for unfinished work, shared by the processes of a machine that pass the same `word`. It is removed once
    the last of them has ended."""

    def __init__(self, root: Path, word: str) -> None:
        self._root, self._word = root, word
        self._file: IO[str] | None = None

    @property
    def folder(self) -> Path:
        """The folder, which exists from now on until this process ends."""
        folder = self._root / self._word
        if self._file is None:
            self._root.mkdir(parents=True, exist_ok=True)
            with locked(self._root):
                folder.mkdir(exist_ok=True)
                self._file = (folder / ".alive").open("a")
                # The kernel releases the lock when the process ends, however it ends.
                fcntl.flock(self._file, fcntl.LOCK_SH)
        return folder

    def remove_abandoned(self) -> None:
        """Removes the folders of processes that have ended."""
        if not self._root.is_dir():
            return
        with locked(self._root):
            for alive in self._root.glob("*/.alive"):
                with suppress(OSError), alive.open("a") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(alive.parent, ignore_errors=True)


def _intact(folder: Path, header: Mapping[str, Any]) -> bool:
    try:
        for file, entry in header["files"].items():
            manifest.verify(folder, file, entry)
        return (folder / manifest.NAME).is_file()
    except Damage:
        return False


def download_verified(part: Path, file: str, entry: dict[str, Any], download: Callable[[str, Path], None]) -> None:
    """Downloads a file, and once more if it arrives damaged: the network or the disk may be at fault, not the store.

    Raises `Damage` for a file that is missing, and for one that is damaged the second time.
    """
    path = part / file
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in (1, 2):
        try:
            download(file, path)
            return manifest.verify(part, file, entry)
        except FileNotFoundError:
            raise Damage(f"{file} is missing") from None
        except Damage:
            if attempt == 2:
                raise
            path.unlink()


def _sum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
