"""Leases: one driver at a time does a stage; the others wait for it, and take over from one that died.

A lease is a register (`ktrain.register`) that names its holder and is written anew at every beat. Every step is a
compare-and-swap: two contenders cannot both take over, and a late beat cannot overwrite a successor.

No clock of one machine is compared with that of another, and none of them has to be right: a holder that cannot be
looked at is dead when its lease has not changed for `stale` seconds in which somebody who wants it was watching.
"""

import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ktrain.patience import StorageAway, disk, persist
from ktrain.process import Process
from ktrain.register import FileRegister, Register

BEAT, STALE = 5.0, 30.0
"""Seconds between two beats, and without one until a holder is taken for dead."""
_log = logging.getLogger("ktrain.lease")


class LeaseHeld(RuntimeError):
    """Another driver does this stage, and patience ran out."""

    def __init__(self, key: str, holder: str) -> None:
        self.key, self.holder = key, holder
        super().__init__(f"{key}: held by {holder}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.key, self.holder)


class LeaseLost(RuntimeError):
    """Another driver took this one for dead and does the stage now; what was done is not published."""


@dataclass
class Lease:
    """What a holder sees: `lost` becomes true, at most a beat late, once the lease is no longer its own."""

    lost: bool = False


def lease(store_root: Path, key: str, **options: Any) -> AbstractContextManager[Lease]:
    """`hold` for a stage of a store in a local folder: the file `leases/<key>.json`."""
    return hold(FileRegister(Path(store_root) / "leases" / f"{key}.json"), **options)


@contextmanager
def hold(
    register: Register,
    *,
    patience: float | None = None,
    beat: float = BEAT,
    stale: float = STALE,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Lease]:
    """Holds the lease in a register while the block runs, beating every `beat` seconds.

    A holder is dead at once if its process on this machine has ended, and otherwise when its lease has not changed
    while it was watched for `stale` seconds; of a time in which the store did not answer, or in which this process
    slept, at most `beat` counts. While another one lives, waits for at most `patience` seconds (None: for ever), and
    tells `on_wait` of each new holder once.

    Raises `LeaseHeld` when patience runs out, `StorageAway`, `ValueError` unless 0 < beat < stale.
    """
    if not 0 < beat < stale:
        raise ValueError(f"beat={beat}, stale={stale}: a living holder would look dead between two beats")
    claim, waited_for = Claim(register, beat, stale), ""
    end = math.inf if patience is None else time.monotonic() + patience
    while (holder := claim.attempt()) is not None:
        left = end - time.monotonic()
        if left <= 0:
            raise LeaseHeld(register.name, f"{holder}, last beat {claim.still:.0f} s ago")
        if on_wait is not None and holder.token != waited_for:
            on_wait(str(holder))
        waited_for = holder.token
        time.sleep(min(left, beat / 4, 0.5))
    beats = threading.Thread(target=claim.keep, name=f"lease {register.name}", daemon=True)
    try:
        beats.start()
        yield claim.lease
    finally:
        claim.done.set()
        if beats.ident is not None:
            beats.join()
        claim.release()


def living(look: Callable[[], Mapping[str, tuple[str, float]]], pause: float = 1.5 * BEAT) -> dict[str, str]:
    """Who lives, in words, of the holders of all leases that `look` finds by key: their text and when it changed,
    in seconds since the epoch by whatever clock. For show alone: what is told may be a lease's `STALE` seconds old.

    A time that cannot be that of a living holder may be one of a clock that is off: then there is a second look after
    `pause` seconds, for a beat.
    """
    found, now = look(), time.time()
    holders = {key: _Holder.read(text) for key, (text, _) in found.items()}
    alive = {key: str(one) for key, one in holders.items() if one is not None and not one.surely_dead()}
    doubtful = {key: found[key][0] for key in alive if not 0 <= now - found[key][1] <= STALE}
    if doubtful:
        time.sleep(pause)
        again = look()
        for key, text in doubtful.items():
            if again.get(key, (text, 0.0))[0] == text:
                del alive[key]
    return alive


@dataclass(frozen=True)
class _Holder:
    """Who wrote a lease; `process` is None where it cannot be read."""

    process: Process | None
    token: str

    @classmethod
    def read(cls, text: str) -> "_Holder | None":
        """None for the empty text of a lease that nobody holds."""
        if not text:
            return None
        try:
            fields = json.loads(text)
            token = fields.pop("token")
            for about in ("beat", "count"):
                fields.pop(about, None)
            return cls(Process(**fields), token)
        except (ValueError, KeyError, TypeError, AttributeError):
            # The disk lost it: nothing tells who, only whether it changes.
            return cls(None, "")

    def surely_dead(self) -> bool:
        return self.process is not None and self.process.surely_dead()

    def __str__(self) -> str:
        return "an unknown process" if self.process is None else f"process {self.process.pid} on {self.process.host}"


class Claim:
    """One who wants a lease, or has it: `attempt` until it is ours, then `beat` in time, then `release`."""

    def __init__(self, register: Register, beat: float = BEAT, stale: float = STALE) -> None:
        self.lease, self.done = Lease(), threading.Event()
        self.still = 0.0
        """For how many seconds the lease of another one has been seen not to change."""
        self._register, self._beat, self._stale = register, beat, stale
        self._token, self._count = uuid.uuid4().hex, 0
        self._text, self._looked = "", time.monotonic()
        self._seen: Any = None

    def attempt(self) -> _Holder | None:
        """Who lives and holds the lease; None, and it is ours. Raises `StorageAway`."""
        asked = f"lease of {self._register.name}"
        while True:
            text, seen = persist(asked, self._register.read, passing=_passing)
            self._look(text)
            holder = _Holder.read(text)
            if holder is not None and self.still <= self._stale and not holder.surely_dead():
                return holder
            self._seen = persist(asked, partial(self._register.write, self._content(), seen), passing=_passing)
            if self._seen is not None:
                if holder is not None:
                    _log.info("%s: lease taken over from %s", self._register.name, holder)
                return None
            # Somebody was faster: the next look tells who.

    def keep(self) -> None:
        """Beats until `done`, or until the lease is found in other hands; a store that fails for a while is borne."""
        failing = False
        while not self.done.wait(self._beat) and not self.lease.lost:
            try:
                self.beat()
                failing = False
            except OSError as error:
                if not failing:
                    _log.warning("%s: a beat of the lease failed: %s", self._register.name, error)
                failing = True

    def beat(self) -> None:
        """Shows that the holder lives, or learns that the lease is lost. Raises `OSError` where the store refuses."""
        self._count += 1
        if not self._write(self._content()):
            self.lease.lost = True
            _log.warning("%s: lease lost: it is in other hands now", self._register.name)

    def release(self) -> None:
        """Gives the lease back. One that cannot be given back goes stale; that must not hide how the block ended."""
        try:
            if not self.lease.lost:
                self._write("")
        except OSError as error:
            _log.info("%s: the lease was not given back: %s", self._register.name, error)

    def _look(self, text: str) -> None:
        now = time.monotonic()
        self.still = self.still + min(now - self._looked, self._beat) if text == self._text else 0.0
        self._text, self._looked = text, now

    def _write(self, text: str) -> bool:
        """Whether a text of ours is there now; false where the lease is no longer ours."""
        fresh = self._register.write(text, self._seen)
        if fresh is None:
            # A write that failed may have arrived all the same.
            found, seen = self._register.read()
            holder = _Holder.read(found)
            if holder is None or holder.token != self._token:
                return False
            fresh = self._register.write(text, seen)
        self._seen = fresh
        return fresh is not None

    def _content(self) -> str:
        # The time is for people who read it. A clock may stand still or go back; the count of beats does not.
        about = {**asdict(Process.current()), "token": self._token, "beat": time.time(), "count": self._count}
        return json.dumps(about)


def _passing(error: BaseException) -> str | None:
    return str(error) if isinstance(error, StorageAway) else disk(error)
