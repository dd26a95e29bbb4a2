"""Locks that killed builds leave behind.

PyTorch compiles an extension under a file named `lock`, which it removes at the end: after a build that was killed,
everybody who wants the extension waits for ever. The builder keeps the file open, so that whether it lives can be seen.
The caches of the compiler of `torch.compile` and of Triton need no such care: their locks end with their process.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from ktrain.mounts import mount

LOST = 3600.0
"""Seconds after which a lock is stale although its builder may be out of sight."""
_APART = 0.2
"""Seconds between two looks. A builder that is done closes its lock just before it removes it."""


def folder() -> Path:
    """Where PyTorch builds extensions, as far as its settings say."""
    if named := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(named)
    cache = os.environ.get("KTRAIN_CACHE")
    return Path(cache) / "extensions" if cache else Path.home() / ".cache" / "torch_extensions"


def stale_locks(root: Path | None = None) -> list[Path]:
    """The locks below `root` (`folder()` by default) whose builder has ended, sorted.

    That is where no process of this machine has the lock open. Where the folder may be another machine's too, and of
    locks of other users, that cannot be seen, and a lock is stale after `LOST` seconds.
    """
    root = root or folder()
    first = _abandoned(root)
    if not first:
        return []
    time.sleep(_APART)
    again = _abandoned(root)
    return [path for path, inode in sorted(first.items()) if again.get(path) == inode]


def remove_stale_locks(root: Path | None = None) -> list[Path]:
    """Removes what `stale_locks` finds, and returns it: then no build waits for one that has ended.

    A folder that cannot be written is left as it is.
    """
    removed = []
    for path in stale_locks(root):
        with suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


def _abandoned(root: Path) -> dict[Path, int]:
    """Locks without a builder, with their inodes."""
    found, shared = {}, mount(root).network
    for path in (*root.glob("*/lock"), *root.glob("*/*/lock")):
        with suppress(OSError):
            about = path.stat()
            hidden = shared or os.geteuid() not in (0, about.st_uid) or not Path("/proc/self/fd").is_dir()
            if time.time() - about.st_mtime > LOST if hidden else not _held(about):
                found[path] = about.st_ino
    return found


def _held(lock: os.stat_result) -> bool:
    """Whether a process of this machine has the file open. Those that cannot be looked into build nothing."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(_same(descriptor, lock) for descriptor in (process / "fd").iterdir()):
                return True
    return False


def _same(descriptor: Path, lock: os.stat_result) -> bool:
    with suppress(OSError):
        # By name first: to ask every file of the machine would wait for file servers that are gone.
        return os.readlink(descriptor).endswith("/lock") and os.path.samestat(descriptor.stat(), lock)
    return False
