"""Cells of one short text each with compare-and-swap: a write succeeds only if nobody has written since the read."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ktrain.store.object_client import ObjectClient
from ktrain.store.regular_files import IrregularFile, open_regular, read_text
from ktrain.system.atomic_write import atomic_write


class CasCell(Protocol):
    """A text, empty until somebody writes one, with compare-and-swap."""

    @property
    def name(self) -> str:
        """The cell's name in the log."""

    def read(self) -> tuple[str, Any]:
        """Returns the text and its version."""

    def write(self, text: str, version: Any) -> Any | None:
        """Replaces the text of `version` and returns the new version; None where the text has changed since.

        No other writer may write the same text, unless it is empty.
        """


@dataclass(frozen=True)
class FileCasCell:
    """A cell in a file, which exists only while the text is not empty.

    Every change happens under one file lock of the folder, held for less than a millisecond. Methods raise `OSError`.
    """

    path: Path

    @property
    def name(self) -> str:
        """The name of the file without its suffix."""
        return self.path.stem

    def read(self) -> tuple[str, Any]:
        try:
            text = read_text(self.path, self.path.parent, "replace")
        except (FileNotFoundError, NotADirectoryError, IrregularFile):
            text = ""
        return text, text

    def write(self, text: str, version: Any) -> Any | None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent):
            if self.read()[0] != version:
                return None
            if not text:
                self.path.unlink(missing_ok=True)
                return text
            atomic_write(self.path, text)
            return text


@dataclass(frozen=True)
class ObjectCasCell:
    """A cell in an object, by conditional writes. An empty text leaves an empty object, because most storage cannot
    remove an object on the condition that it has not changed."""

    objects: ObjectClient
    path: str

    @property
    def name(self) -> str:
        """The last part of the object's name without its suffix."""
        return self.path.rpartition("/")[2].removesuffix(".json")

    def read(self) -> tuple[str, Any]:
        stored = self.objects.get(self.path)
        return ("", None) if stored is None else (stored[0].decode("utf-8", errors="replace"), stored[1])

    def write(self, text: str, version: Any) -> Any | None:
        content = text.encode()
        if version is None:
            return self.objects.create(self.path, content)
        return self.objects.replace(self.path, content, version)


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Holds a file lock: excludes other threads and processes that lock the same folder under the same name.

    Raises `OSError` where the file system has no locks.
    """
    with open_regular(folder / name, folder, os.O_WRONLY | os.O_CREAT) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Closing is not enough: a child that another thread forked meanwhile has this file open too.
            fcntl.flock(file, fcntl.LOCK_UN)
