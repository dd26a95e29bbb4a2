"""Reads files of a store as what they should be: regular files inside it.

Whoever can write to a store could put a FIFO there, whose readers wait for ever, a device, which has no end, or a link
to a file that only the reader may read.
"""

import errno
import io
import os
import stat
from pathlib import Path


class IrregularFile(OSError):
    """A path of a store holds no regular file, or one outside."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ELOOP, "is no regular file of the store", str(path))


def open_regular(path: Path, root: Path, flags: int = os.O_RDONLY) -> io.FileIO:
    """Opens a regular file below the folder `root`, never waiting; `root` itself may be a link.

    `flags` are those of `os.open`. Raises `IrregularFile` for anything else, and `OSError` as `open` does.
    """
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise IrregularFile(path)
    try:
        descriptor = os.open(real, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        # A link that was put there meanwhile, a socket, or a folder or a FIFO where a file is to be written.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise IrregularFile(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IrregularFile(path)
    return io.FileIO(descriptor, "r" if flags & os.O_ACCMODE == os.O_RDONLY else "a")


def status_of(path: Path, root: Path) -> os.stat_result:
    """Returns the status of a regular file below `root`. Raises as `open_regular`."""
    with open_regular(path, root) as file:
        return os.fstat(file.fileno())


def is_regular(path: Path, root: Path) -> bool:
    """Whether there is a regular file below `root`."""
    try:
        status_of(path, root)
    except (FileNotFoundError, NotADirectoryError, IrregularFile):
        return False
    return True


def read_bytes(path: Path, root: Path) -> bytes:
    """Returns the content of a regular file below `root`. Raises as `open_regular`."""
    with open_regular(path, root) as file:
        return file.read()


def read_text(path: Path, root: Path, errors: str = "strict") -> str:
    """Returns the content of a regular file below `root` as UTF-8. Raises as `open_regular`, and `ValueError`."""
    return read_bytes(path, root).decode("utf-8", errors)
