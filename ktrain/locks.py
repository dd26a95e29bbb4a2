"""Locks that a killed build leaves behind, for which the next build would wait for ever."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NAMES = ("lock",)
"""What PyTorch calls the lock of an extension that it builds, in the extension's folder."""
LOOKS = 2
APART = 0.2
"""A lock is free to go when so many looks, so many seconds apart, find the same file in nobody's hands: its holder
closes it a moment before removing it."""


def remove_stale_locks(folder: Path) -> list[Path]:
    """Removes the locks of builds under `folder` whose process has died; returns their paths.

    PyTorch's lock is a file that its holder keeps open until the build ends, so a lock that no process of this machine
    has open is nobody's. The folder must be this machine's own. Where other users' processes cannot be looked into,
    their locks are left alone.
    """
    found = {path: _identity(path) for name in NAMES for path in Path(folder).rglob(name) if path.is_file()}
    for look in range(LOOKS):
        if not found:
            break
        if look:
            time.sleep(APART)
        held = set(_open_files())
        uid = os.geteuid()
        found = {
            path: identity
            for path, identity in found.items()
            if identity and identity == _identity(path) and identity[:2] not in held and uid in (0, identity[3])
        }
    removed = []
    for path in found:
        with suppress(FileNotFoundError):
            path.unlink()
            removed.append(path)
    return sorted(removed)


def _identity(path: Path) -> tuple[int, int, int, int] | None:
    """Device, inode, time of the last change and owner of a file; None where it is gone."""
    with suppress(OSError):
        found = path.stat()
        return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_uid
    return None


def _open_files() -> Iterator[tuple[int, int]]:
    """Device and inode of every file that a process of this machine has open, of those that we may look into."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for descriptor in os.scandir(process / "fd"):
                with suppress(OSError):
                    found = descriptor.stat()
                    yield found.st_dev, found.st_ino
