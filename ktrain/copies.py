"""Copies: what this machine has fetched of a store that lies elsewhere. All of them can be fetched again."""

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ktrain import layout, manifest
from ktrain.register import locked

RECENT = 3600.0
"""Seconds for which a copy is left alone after its last use, however short of room the disk is."""
SPARE = 1 << 30
"""Bytes that fetching leaves free on the disk."""
_DIGITS = 64


@dataclass(frozen=True)
class Copies:
    """Verified copies of stages, `stages/<name>/`, and of small files in `small/`, shared by all processes of a
    machine. Methods raise `OSError` for the disk."""

    root: Path

    def stage(self, content: bytes, about: Mapping[str, Any], download: Callable[[str, Path], None]) -> Path:
        """The folder of a stage with the manifest `about`, whose text is `content`: verified, and fetched by
        `download(file, path)` where it is not here or damaged.

        Raises `Damage` for a file that has other content than the manifest says each time that it is fetched.
        """
        name = layout.publication(about)
        folder = self.root / "stages" / name
        with self._alone(name):
            if not _whole(folder, about):
                shutil.rmtree(folder, ignore_errors=True)
                self._make_room(sum(entry["size"] for entry in about["files"].values()))
                part = folder.with_name(f"{name}.part")
                shutil.rmtree(part, ignore_errors=True)
                try:
                    for file, entry in about["files"].items():
                        _fetched(part, file, entry, download)
                    (part / manifest.NAME).write_bytes(content)
                    os.rename(part, folder)
                finally:
                    shutil.rmtree(part, ignore_errors=True)
            os.utime(folder)
        return folder

    def adopt(self, about: Mapping[str, Any], folder: Path) -> None:
        """Makes a folder with its manifest the copy of the stage that was published from it."""
        name = layout.publication(about)
        with self._alone(name):
            os.rename(folder, self.root / "stages" / name)

    def small(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` returned when it was first called under this name, which must tell the content."""
        path = self.root / "small" / hashlib.sha256(name.encode()).hexdigest()
        with suppress(OSError):
            found = path.read_bytes()
            if found[:_DIGITS] == _sum(found[_DIGITS:]):
                return found[_DIGITS:]
        content = make()
        with suppress(OSError):  # A disk that is full costs the next look a request.
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{uuid.uuid4().hex}")
            try:
                fresh.write_bytes(_sum(content) + content)
                os.replace(fresh, path)
            finally:
                fresh.unlink(missing_ok=True)
        return content

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Two processes that want one copy fetch it once."""
        for part in ("stages", "locks"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        with locked(self.root / "locks", name):
            yield

    def _make_room(self, need: int) -> None:
        """Removes copies that were not used for long, the longest unused first, until `need` bytes fit."""
        ages = sorted((path.stat().st_mtime, path) for path in (self.root / "stages").iterdir())
        for used, path in ages:
            if shutil.disk_usage(self.root).free >= need + SPARE or time.time() - used < RECENT:
                return
            shutil.rmtree(path, ignore_errors=True)


class Scratch:
    """A folder for what processes of one machine write in the course of their work; it goes with the last of them.

    Those that say the same `word` have the same folder.
    """

    def __init__(self, root: Path, word: str) -> None:
        self._root, self._word = root, word
        self._file: IO[str] | None = None

    @property
    def folder(self) -> Path:
        """The folder, there from now on until this process ends."""
        folder = self._root / self._word
        if self._file is None:
            self._root.mkdir(parents=True, exist_ok=True)
            with locked(self._root):
                folder.mkdir(exist_ok=True)
                self._file = (folder / ".alive").open("a")
                # The system lets go of the lock when the process ends, however it ends.
                fcntl.flock(self._file, fcntl.LOCK_SH)
        return folder

    def sweep(self) -> None:
        """Removes the folders of processes that have ended."""
        if not self._root.is_dir():
            return
        with locked(self._root):
            for alive in self._root.glob("*/.alive"):
                with suppress(OSError), alive.open("a") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(alive.parent, ignore_errors=True)


def _whole(folder: Path, about: Mapping[str, Any]) -> bool:
    try:
        for file, entry in about["files"].items():
            manifest.verify(folder, file, entry)
        return (folder / manifest.NAME).is_file()
    except manifest.Damage:
        return False


def _fetched(part: Path, file: str, entry: dict[str, Any], download: Callable[[str, Path], None]) -> None:
    """Fetches a file, and once more where it came damaged: that may be the way or the disk, and not what is stored."""
    path = part / file
    path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in (1, 2):
        try:
            download(file, path)
            return manifest.verify(part, file, entry)
        except FileNotFoundError:
            raise manifest.Damage(f"{file} is missing") from None
        except manifest.Damage:
            if attempt == 2:
                raise
            path.unlink()


def _sum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
