"""Leases: one driver at a time does a stage; the others wait for it, and take over from one that died.

A lease is a file `leases/<key>.json` that names its holder and the time of its last beat. Every look that may be
followed by a change happens under one file lock of the store, held for less than a millisecond and never during
compute: so two contenders cannot both take over, and a late beat cannot overwrite a successor. The lock alone would
not do as the lease: nobody could read from it who holds it, and a hung holder would hold it for ever.
"""

import fcntl
import json
import logging
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_log = logging.getLogger("ktrain.lease")


class LeaseHeld(RuntimeError):
    """Another driver does this stage, and patience ran out."""

    def __init__(self, key: str, holder: str) -> None:
        self.key, self.holder = key, holder
        super().__init__(f"{key}: held by {holder}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.key, self.holder)


@dataclass
class Lease:
    """What a holder sees: `lost` becomes true, at most a beat late, once the lease is no longer its own."""

    lost: bool = False


@dataclass(frozen=True)
class Process:
    """A process such that no other one, before or after it, here or elsewhere, has the same fields.

    `namespace` is that of process ids: two containers of one machine may share host name and boot, but not this.
    `boot` and `namespace` are empty and `started` (clock ticks since boot) is None where there is no /proc.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int | None

    @classmethod
    def current(cls) -> "Process":
        """This process. Not cached, because a fork is another one."""
        boot, namespace = "", ""
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        with suppress(OSError):
            namespace = "".join(c for c in os.readlink("/proc/self/ns/pid") if c.isdigit())
        pid = os.getpid()
        return cls(socket.gethostname(), boot, namespace, pid, _state(pid)[1])

    def surely_dead(self) -> bool:
        """Whether it ran where we run and has ended; false for a process that cannot be looked at from here."""
        me = Process.current()
        near = (self.host, self.boot, self.namespace) == (me.host, me.boot, me.namespace)
        return near and ended(self.pid, self.started)


def ended(pid: int, started: int | None) -> bool:
    """Whether this machine runs no process `pid` that began at `started` (clock ticks since boot; None: unknown)."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # It runs, as another user.
    state, began = _state(pid)
    # A zombie answers to signals until its parent collects it, but does nothing more.
    return state in ("Z", "X") or (None not in (began, started) and began != started)


def _state(pid: int) -> tuple[str, int | None]:
    """One letter and the start in clock ticks since boot, from /proc; empty and None where that is not known."""
    try:
        # The command's name comes before and may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Excludes all other threads and processes that lock the same folder, for as short a time as can be.

    Raises `OSError` where the file system has no locks.
    """
    with (folder / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Closing is not enough: a child forked meanwhile by another thread has this file open too.
            fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def lease(
    store_root: Path,
    key: str,
    *,
    patience: float | None = None,
    beat: float = 5.0,
    stale: float = 30.0,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Lease]:
    """Holds the lease of `key` while the block runs, beating every `beat` seconds.

    A holder is dead at once if its process on this machine has ended, and otherwise when its last beat is more than
    `stale` seconds old; hosts that share a store must agree on the time to much better than that. While another
    one lives, waits for at most `patience` seconds (None: for ever), and tells `on_wait` of each new holder once.

    Raises `LeaseHeld` when patience runs out, `ValueError` unless 0 < beat < stale.
    """
    if not 0 < beat < stale:
        raise ValueError(f"beat={beat}, stale={stale}: a living holder would look dead between two beats")
    path, token = Path(store_root) / "leases" / f"{key}.json", uuid.uuid4().hex
    path.parent.mkdir(parents=True, exist_ok=True)
    end = math.inf if patience is None else time.monotonic() + patience
    waited_for = ""
    while (holder := _take(path, token, stale)) is not None:
        left = end - time.monotonic()
        if left <= 0:
            raise LeaseHeld(key, str(holder))
        if on_wait is not None and holder.token != waited_for:
            on_wait(str(holder))
        waited_for = holder.token
        time.sleep(min(left, beat / 4, 0.5))
    held, done = Lease(), threading.Event()
    beats = threading.Thread(target=_keep, args=(held, path, token, beat, done), name=f"lease {key}", daemon=True)
    try:
        beats.start()
        yield held
    finally:
        done.set()
        if beats.ident is not None:
            beats.join()
        _release(path, token)


def holder(store_root: Path, key: str, *, stale: float = 30.0) -> str | None:
    """Who holds the lease of `key` now, in words; None where nobody alive does. Touches nothing."""
    found = _read(Path(store_root) / "leases" / f"{key}.json")
    return None if found is None or found.dead(stale) else str(found)


@dataclass(frozen=True)
class _Holder:
    """The content of a lease; `process` is None where it cannot be read. `beat` is in seconds since the epoch."""

    process: Process | None
    token: str
    beat: float

    def dead(self, stale: float) -> bool:
        return time.time() - self.beat > stale or (self.process is not None and self.process.surely_dead())

    def __str__(self) -> str:
        who = "an unknown process" if self.process is None else f"process {self.process.pid} on {self.process.host}"
        return f"{who}, last beat {max(0.0, time.time() - self.beat):.0f} s ago"


def _read(path: Path) -> _Holder | None:
    try:
        fields = json.loads(path.read_text())
        token, beat = fields.pop("token"), float(fields.pop("beat"))
        return _Holder(Process(**fields), token, beat)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        # Its writer died between creating and writing it, or the disk lost it: nothing tells who, only when.
        return _Holder(None, "", path.stat().st_mtime)


def _content(token: str) -> str:
    return json.dumps({**asdict(Process.current()), "token": token, "beat": time.time()})


def _take(path: Path, token: str, stale: float) -> _Holder | None:
    """The living holder, or None and the lease is ours."""
    with locked(path.parent):
        holder = _read(path)
        if holder is not None:
            if not holder.dead(stale):
                return holder
            _log.info("%s: lease taken over from %s", path.stem, holder)
            path.unlink()
        with path.open("x") as file:
            try:
                file.write(_content(token))
                file.flush()
            except OSError:
                path.unlink()  # A full disk must not leave a lease of nobody.
                raise
    return None


def _keep(held: Lease, path: Path, token: str, beat: float, done: threading.Event) -> None:
    """Beats until `done`, or until the lease is found in other hands; a disk that fails for a while is borne."""
    failing = False
    while not done.wait(beat):
        try:
            with locked(path.parent):
                holder = _read(path)
                if holder is None or holder.token != token:
                    held.lost = True
                    _log.warning("%s: lease lost to %s", path.stem, holder or "nobody: its file is gone")
                    return
                # One name for all is enough under the lock, and what a crash leaves is overwritten.
                fresh = path.with_suffix(".tmp")
                fresh.write_text(_content(token))
                os.replace(fresh, path)
            failing = False
        except OSError as error:
            if not failing:
                _log.warning("%s: a beat of the lease failed: %s", path.stem, error)
            failing = True


def _release(path: Path, token: str) -> None:
    # A lease that cannot be removed goes stale; it must not hide how the block ended.
    with suppress(OSError), locked(path.parent):
        holder = _read(path)
        if holder is not None and holder.token == token:
            path.unlink()
