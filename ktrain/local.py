"""Stores in a local folder.

stages/<key>/      complete: manifest.json with size and SHA-256 of every file, config and versions
work/<key>/        resume points of a stage that runs, in the hands of whoever holds its lease
work/<key>~.../    a result on its way into stages/
damaged/<key>-<k>/ what did not verify, kept to be looked at
leases/            who does which stage now
"""

import errno
import itertools
import logging
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ktrain import manifest
from ktrain.errors import WrongRequest
from ktrain.keys import NAME
from ktrain.lease import Lease, living
from ktrain.patience import StorageAway, persist
from ktrain.process import Process, ended
from ktrain.register import FileRegister, Register, locked
from ktrain.store import Glance, Place, Store, Summary, checked, nothing

FAILURE = "failure.txt"
_FOLDERS = ("work", "stages", "damaged", "leases")
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_log = logging.getLogger("ktrain.store")


@dataclass(frozen=True)
class LocalStore(Store):
    """A local folder of results, or one on a file system that machines share; `root` is absolute."""

    root: Path
    _leases: dict[str, Lease] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.root)

    @property
    def reports(self) -> Path:
        """Beside the results."""
        return self.root / "reports"

    @property
    def scratch(self) -> Path:
        """Beside the results."""
        return self.root

    def ready(self, patience: float = 0.0, told: str = "") -> None:
        """Created where missing, tried out, freed of what the dead left."""
        try:
            persist(f"store={self.root}", self._try_out, patience=patience)
        except (OSError, ValueError) as error:
            if patience and isinstance(error, StorageAway):
                raise
            cause = error.__cause__ or error
            reason = getattr(cause, "strerror", None) or cause
            raise WrongRequest(f"store={told or self.root}: not writable: {reason}") from None
        self._sweep()

    def exists(self, key: str) -> bool:
        """See `Store`."""
        return (self._stage(key) / manifest.NAME).is_file()

    def complete(self) -> list[str]:
        """See `Store`; at the price of one look at each."""
        folders = (self.root / "stages").glob(f"*/{manifest.NAME}")
        return sorted(path.parent.name for path in folders if NAME.fullmatch(path.parent.name))

    def find(self, key: str) -> Path | None:
        """See `Store`."""
        folder = self._stage(key)
        while True:
            try:
                judged = folder.lstat().st_ino
            except FileNotFoundError:
                return None
            found = manifest.finding(folder, key)
            if found is None:
                return folder
            if self._move_aside(key, judged, found):
                return None

    def sound(self, key: str) -> bool:
        """See `Store`; every file is read."""
        return self.find(key) is not None

    @contextmanager
    def publish(self, key: str, config: dict[str, Any], kind: str) -> Iterator[Path]:
        """See `Store`."""
        self.require(key)
        target, me = self._stage(key), Process.current()
        name = f"{key}~{me.host}~{me.namespace}~{me.pid}~{me.started or 0}~{uuid.uuid4().hex[:8]}"
        folder = self.root / "work" / name
        folder.mkdir(parents=True)
        try:
            yield folder
            self.require(key)
            manifest.seal(folder, {"key": key, "kind": kind, "config": config})
            target.parent.mkdir(exist_ok=True)
            while True:
                try:
                    # A folder replaces no other one that has files in it: of several drivers one succeeds.
                    os.rename(folder, target)
                    break
                except OSError as error:
                    if error.errno not in _OCCUPIED:
                        raise
                    if self.find(key) is not None:
                        break
            manifest.flush(target.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def manifest(self, key: str) -> dict[str, Any]:
        """See `Store`."""
        try:
            return manifest.read(self._stage(key), key)
        except manifest.Damage:
            raise self._missing(key) from None

    def read(self, key: str, name: str) -> bytes:
        """See `Store`."""
        folder = self._stage(key)
        try:
            manifest.verify(folder, name, self.manifest(key)["files"][name])
            return (folder / name).read_bytes()
        except (manifest.Damage, KeyError):
            raise self._missing(f"{name} of {key}") from None

    def glance(self, keys: Collection[str] | None = None) -> Glance:
        """See `Store`."""
        asked = self.complete() if keys is None else keys
        done = {}
        for key in asked:
            with suppress(FileNotFoundError):
                done[key] = Summary(str(self._stage(key)), self.manifest(key), self.metrics(key))
        failures = {key: line for key in asked if (line := self.failure(key)) is not None}
        return Glance(done, failures, living(lambda: self._leases_of(set(asked))))

    def place(self, key: str) -> Place:
        """A folder of the store, created where missing, which needs no keeping."""
        folder = self.work_path(key)
        folder.mkdir(parents=True, exist_ok=True)
        return Place(folder, nothing)

    def settle(self) -> None:
        """See `Store`; nothing is under way."""

    def work_path(self, key: str) -> Path:
        """Where `work` is or would be, untouched."""
        return self.root / "work" / checked(key)

    def note_failure(self, key: str, line: str | None) -> None:
        """See `Store`."""
        if line is not None:
            (self.work(key) / FAILURE).write_text(line, encoding="utf-8")
        else:
            (self.work_path(key) / FAILURE).unlink(missing_ok=True)

    def failure(self, key: str) -> str | None:
        """See `Store`."""
        with suppress(OSError):
            return (self.work_path(key) / FAILURE).read_text(encoding="utf-8")
        return None

    def clear_work(self, key: str) -> None:
        """See `Store`."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.work_path(key))

    def _register(self, key: str) -> Register:
        return FileRegister(self.root / "leases" / f"{key}.json")

    def _leases_of(self, keys: set[str]) -> dict[str, tuple[str, float]]:
        """The text of each lease, and when it changed."""
        found = {}
        for path in (self.root / "leases").glob("*.json"):
            if path.stem in keys:
                with suppress(OSError):
                    found[path.stem] = path.read_text(encoding="utf-8", errors="replace"), path.stat().st_mtime
        return found

    def _stage(self, key: str) -> Path:
        return self.root / "stages" / checked(key)

    def _try_out(self) -> None:
        """One file through all folders: each is writable, renames are atomic (one file system), and locks work.

        Permissions are not asked for, because they do not tell: root may do everything, except on a read-only disk.
        """
        for name in _FOLDERS:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        probe = self.root / "work" / f"probe~{uuid.uuid4().hex}"
        try:
            probe.write_bytes(b"x")
            for name in _FOLDERS:
                probe = probe.rename(self.root / name / probe.name)
            with locked(self.root / "leases"):
                pass
        finally:
            with suppress(OSError):
                probe.unlink()

    def _sweep(self) -> None:
        """Removes what processes of this machine were about to publish when they died."""
        me = Process.current()
        for folder in (self.root / "work").glob("*~*~*~*~*~*"):
            host, namespace, pid, started, _ = folder.name.split("~")[-5:]
            if (host, namespace) == (me.host, me.namespace) and ended(int(pid), int(started) or None):
                shutil.rmtree(folder, ignore_errors=True)

    def _move_aside(self, key: str, judged: int, finding: str) -> bool:
        """Whether the stage with inode `judged` could be moved; it may have been moved, even rebuilt, meanwhile."""
        folder = self._stage(key)
        for name in ("damaged", "leases"):
            (self.root / name).mkdir(exist_ok=True)  # Somebody short of disk may have cleaned up.
        with locked(self.root / "leases"):
            try:
                if folder.lstat().st_ino != judged:
                    return False
            except FileNotFoundError:
                return False
            aside = (self.root / "damaged" / f"{key}-{k}" for k in itertools.count(1))
            target = next(path for path in aside if not os.path.lexists(path))
            os.rename(folder, target)
        _log.warning("%s is damaged (%s): moved to %s, to be rebuilt", key, finding, target)
        return True
