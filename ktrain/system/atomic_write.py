"""Writes a file in one step: other processes see the old content or the new one, never half of it."""

import errno
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

UNFINISHED = ".part"
"""The suffix of files that are still being written."""
DEEPEST = 300
"""Folders within each other; Python makes missing ones by a function that calls itself for each."""


def atomic_write(
    path: Path,
    content: str | bytes | Callable[[Path], object],
    *,
    mode: int = 0o666,
    keep_existing: bool = False,
) -> None:
    """Writes a file, and its folder where that is missing, whole or not at all. Raises `OSError`.

    A callable writes the file at the path that it is given. `mode`, less the umask, holds from the first byte on. With
    `keep_existing`, the first of several writers wins and a file that exists stays.
    """
    if len(path.parts) > DEEPEST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    try:
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        if callable(content):
            content(unfinished)
        else:
            unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        if keep_existing:
            with suppress(FileExistsError):
                os.link(unfinished, path)
        else:
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def follow_umask(folder: Path) -> None:
    """Gives the files of a folder the permissions that a new file gets there. Raises `OSError`.

    Some libraries write through temporary files, which their owner alone may read, so that nobody else of a group could
    use what they have written into a shared store.
    """
    probe = folder / f"{uuid.uuid4().hex[:8]}{UNFINISHED}"
    probe.touch()
    granted = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and (mode := path.stat().st_mode & 0o777) | granted != mode:
            path.chmod(mode | granted)
