"""Leases: one driver at a time works on a stage; the others wait for it, and take over if it dies.

A lease is a cell (`compare_and_swap`) that names its holder; the holder rewrites it at every heartbeat. Every step is a
compare-and-swap: two contenders cannot both take over, and a late heartbeat cannot overwrite a successor.

No clock of one machine is compared with that of another, and none has to be right. A holder on another machine counts
as dead when a contender has watched its lease for `stale` seconds without a change.
"""

import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ktrain.store.compare_and_swap import CasCell, FileCasCell
from ktrain.system.process import Process
from ktrain.system.retry import StorageUnavailable, disk_error, retry_until

BEAT, STALE = 5.0, 30.0
"""Seconds between two heartbeats, and seconds without one after which a holder counts as dead."""
_log = logging.getLogger("ktrain.lease")


class LeaseHeldElsewhere(RuntimeError):
    """Another driver works on this stage, and patience ran out."""

    def __init__(self, key: str, holder: str) -> None:
        self.key, self.holder = key, holder
        super().__init__(f"{key}: held by {holder}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.key, self.holder)


class LeaseLost(RuntimeError):
    """Another driver took over because this one seemed dead; the result of this one is not published."""


@dataclass
class Lease:
    """The holder's view of its lease: `lost` becomes true, at most a heartbeat late, once another driver took over;
    `since` is when it was taken, in seconds since the epoch."""

    lost: bool = False
    since: float = field(default_factory=time.time)


def lease(store_root: Path, key: str, **options: Any) -> AbstractContextManager[Lease]:
    """`hold` for a stage of a store in a local folder: the file `leases/<key>.json`."""
    return hold(FileCasCell(Path(store_root) / "leases" / f"{key}.json"), **options)


@contextmanager
def hold(
    cell: CasCell,
    *,
    patience: float | None = None,
    beat: float = BEAT,
    stale: float = STALE,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Lease]:
    """Holds the lease in `cell` while the block runs, with a heartbeat every `beat` seconds.

    A holder whose process on this machine has ended counts as dead at once; any other when its lease has not changed
    for `stale` watched seconds. A period in which the store did not answer, or this process slept, counts as at most
    `beat` of them. While a living process holds the lease, waits for at most `patience` seconds (None: forever) and
    calls `on_wait` once for each holder.

    Raises `LeaseHeldElsewhere` when patience runs out, `StorageUnavailable`, and `ValueError` unless 0 < beat < stale.
    """
    if not 0 < beat < stale:
        raise ValueError(f"beat={beat}, stale={stale}: a living holder would look dead between two beats")
    contender, waited_for = LeaseHolder(cell, beat, stale), ""
    end = math.inf if patience is None else time.monotonic() + patience
    while (holder := contender.attempt()) is not None:
        left = end - time.monotonic()
        if left <= 0:
            raise LeaseHeldElsewhere(cell.name, f"{holder}, last beat {contender.unchanged_for:.0f} s ago")
        if on_wait is not None and holder.token != waited_for:
            on_wait(str(holder))
        waited_for = holder.token
        time.sleep(min(left, beat / 4, 0.5))
    heartbeats = threading.Thread(target=contender.keep_alive, name=f"lease {cell.name}", daemon=True)
    try:
        heartbeats.start()
        yield contender.lease
    finally:
        contender.done.set()
        if heartbeats.ident is not None:
            heartbeats.join()
        contender.release()


def living_holders(
    read_leases: Callable[[], Mapping[str, tuple[str, float]]], pause: float = 1.5 * BEAT
) -> dict[str, str]:
    """Returns the living holders of leases in words, by key. For display only: it may be `STALE` seconds out of date.

    `read_leases` returns the text of each lease and when it changed, in seconds since the epoch by any clock. A lease
    that is too old, or from the future, may come from a wrong clock: it is read again after `pause` seconds, and its
    holder lives if there was a heartbeat meanwhile.
    """
    leases, now = read_leases(), time.time()
    holders = {key: _Holder.read(text) for key, (text, _) in leases.items()}
    alive = {key: str(holder) for key, holder in holders.items() if holder is not None and not holder.surely_dead()}
    doubtful = [key for key in alive if not 0 <= now - leases[key][1] <= STALE]
    if doubtful:
        time.sleep(pause)
        later = read_leases()
        for key in doubtful:
            text = leases[key][0]
            if later.get(key, (text, 0.0))[0] == text:
                del alive[key]
    return alive


@dataclass(frozen=True)
class _Holder:
    """The process that wrote a lease; None where its text cannot be read."""

    process: Process | None
    token: str

    @classmethod
    def read(cls, text: str) -> "_Holder | None":
        """Returns None for the empty text of a lease that nobody holds."""
        if not text:
            return None
        try:
            fields = json.loads(text)
            token = fields.pop("token")
            for name in ("beat", "count"):
                fields.pop(name, None)
            return cls(Process(**fields), token)
        except (ValueError, KeyError, TypeError, AttributeError):
            # The disk lost part of it: the holder is unknown, but a change still shows that it lives.
            return cls(None, "")

    def surely_dead(self) -> bool:
        return self.process is not None and self.process.surely_dead()

    def __str__(self) -> str:
        return "an unknown process" if self.process is None else f"process {self.process.pid} on {self.process.host}"


class LeaseHolder:
    """A contender for a lease and then its holder: `attempt` until it is ours, `heartbeat` in time, then `release`."""

    def __init__(self, cell: CasCell, beat: float = BEAT, stale: float = STALE) -> None:
        self.lease, self.done = Lease(), threading.Event()
        self.unchanged_for = 0.0
        """Seconds for which the lease of another holder has been watched without a change."""
        self._cell, self._beat, self._stale = cell, beat, stale
        self._token, self._count = uuid.uuid4().hex, 0
        self._text, self._read_at = "", time.monotonic()
        self._version: Any = None

    def attempt(self) -> _Holder | None:
        """Returns the living process that holds the lease, or None once it is ours. Raises `StorageUnavailable`."""
        doing = f"lease of {self._cell.name}"
        while True:
            text, version = retry_until(doing, self._cell.read, passing=_transient_reason)
            self._watch(text)
            holder = _Holder.read(text)
            if holder is not None and self.unchanged_for <= self._stale and not holder.surely_dead():
                return holder
            take = partial(self._cell.write, self._content(), version)
            self._version = retry_until(doing, take, passing=_transient_reason)
            if self._version is not None:
                if holder is not None:
                    _log.info("%s: lease taken over from %s", self._cell.name, holder)
                return None
            # Another contender was faster: read again who holds it.

    def keep_alive(self) -> None:
        """Sends heartbeats until `done` is set or the lease is lost. Survives a store that fails for a while."""
        failing = False
        while not self.done.wait(self._beat) and not self.lease.lost:
            try:
                self.heartbeat()
                failing = False
            except OSError as error:
                if not failing:
                    _log.warning("%s: a heartbeat of the lease failed: %s", self._cell.name, error)
                failing = True

    def heartbeat(self) -> None:
        """Renews the lease, or sets `lease.lost` where another driver holds it. Raises `OSError` for the store."""
        self._count += 1
        if not self._write(self._content()):
            self.lease.lost = True
            _log.warning("%s: lease lost: another driver took over", self._cell.name)

    def release(self) -> None:
        """Gives the lease back. If that fails, the lease goes stale; an error here would hide how the block ended."""
        try:
            if not self.lease.lost:
                self._write("")
        except OSError as error:
            _log.info("%s: the lease was not given back: %s", self._cell.name, error)

    def _watch(self, text: str) -> None:
        now = time.monotonic()
        self.unchanged_for = self.unchanged_for + min(now - self._read_at, self._beat) if text == self._text else 0.0
        self._text, self._read_at = text, now

    def _write(self, text: str) -> bool:
        """Writes our text; returns False where the lease is no longer ours."""
        written = self._cell.write(text, self._version)
        if written is None:
            # An earlier write of ours, whose answer got lost, may have changed the version.
            current, version = self._cell.read()
            holder = _Holder.read(current)
            if holder is None or holder.token != self._token:
                return False
            written = self._cell.write(text, version)
        self._version = written
        return written is not None

    def _content(self) -> str:
        # The time is for human readers: a clock may stand still or go back, so the count is what always changes.
        fields = {**asdict(Process.current()), "token": self._token, "beat": time.time(), "count": self._count}
        return json.dumps(fields)


def _transient_reason(error: BaseException) -> str | None:
    return str(error) if isinstance(error, StorageUnavailable) else disk_error(error)
