"""Disks that fail: a small one in memory that can be full, and a folder that can refuse to be written."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NotHere(Exception):
    """This machine does not allow what a scenario needs."""


class Disk:
    """A file system in memory, of so many MB."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self._filler = folder, folder / "filler"
        folder.mkdir(parents=True)
        _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder))

    def __enter__(self) -> "Disk":
        return self

    def __exit__(self, *_: object) -> None:
        # Lazily, because what was killed may not have let go of its files yet.
        subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def fill(self) -> None:
        """Fills the disk to the last byte."""
        with self._filler.open("ab", buffering=0) as file:
            for block in (b"\0" * (1 << 20), b"\0" * 4096):
                while True:
                    try:
                        if file.write(block) < len(block):
                            break
                    except OSError:
                        break

    def free(self) -> None:
        """Frees the space again."""
        self._filler.unlink()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuses all writes for the time of the block."""
        self._remount("ro")
        try:
            yield
        finally:
            self._remount("rw")

    def _remount(self, how: str) -> None:
        # A file that is open for writing keeps it from being read-only; it is closed in a moment.
        for _ in range(1000):
            if not subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], capture_output=True).returncode:
                return
        raise NotHere(f"remount,{how}: always in use")


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        raise NotHere(f"mount is not allowed here: {done.stderr.strip()}")
