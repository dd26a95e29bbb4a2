"""Registers: one short text each, which only changes in the hands of who has seen what it was before."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ktrain.storage import Objects


class Register(Protocol):
    """A text, empty where nobody has written one, with compare-and-swap."""

    @property
    def name(self) -> str:
        """For the log."""

    def read(self) -> tuple[str, Any]:
        """The text, and what to show for having seen it."""

    def write(self, text: str, seen: Any) -> Any | None:
        """Puts a text in place of the one that was `seen`, empty for none; None where it has changed since.

        A text must be one that nobody else writes, or empty.
        """


@dataclass(frozen=True)
class FileRegister:
    """A register in a file that is there only while it has a text.

    Every change happens under one file lock of the folder, held for less than a millisecond. Methods raise `OSError`.
    """

    path: Path

    @property
    def name(self) -> str:
        """The name of the file without its suffix."""
        return self.path.stem

    def read(self) -> tuple[str, Any]:
        """See `Register`."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            text = ""
        return text, text

    def write(self, text: str, seen: Any) -> Any | None:
        """See `Register`."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.parent):
            if self.read()[0] != seen:
                return None
            if not text:
                self.path.unlink(missing_ok=True)
                return text
            # One name for all is enough under the lock, and what a crash leaves is overwritten.
            fresh = self.path.with_suffix(".tmp")
            fresh.write_text(text, encoding="utf-8")
            os.replace(fresh, self.path)
            return text


@dataclass(frozen=True)
class ObjectRegister:
    """A register in an object, by conditional writes. The object stays, empty, where the text is gone: to remove an
    object only if it has not changed is more than most stores can do."""

    objects: Objects
    path: str

    @property
    def name(self) -> str:
        """The last part of the object's name without its suffix."""
        return self.path.rpartition("/")[2].removesuffix(".json")

    def read(self) -> tuple[str, Any]:
        """See `Register`."""
        found = self.objects.get(self.path)
        return ("", None) if found is None else (found[0].decode("utf-8", errors="replace"), found[1])

    def write(self, text: str, seen: Any) -> Any | None:
        """See `Register`."""
        content = text.encode()
        if seen is None:
            return self.objects.create(self.path, content)
        return self.objects.replace(self.path, content, seen)


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Excludes all other threads and processes that lock the same folder under the same name.

    Raises `OSError` where the file system has no locks.
    """
    with (folder / name).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Closing is not enough: a child forked meanwhile by another thread has this file open too.
            fcntl.flock(file, fcntl.LOCK_UN)
