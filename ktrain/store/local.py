"""The store in a local folder.

stages/<key>/      a complete stage: manifest.json holds size and SHA-256 of every file, config and versions
work/<key>/        checkpoints of a running stage; only the holder of its lease writes there
work/<key>~.../    files of a stage that is being published
damaged/<key>-<k>/ stages that did not verify, kept for inspection
leases/            one file for each lease that somebody holds
"""

import errno
import itertools
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ktrain.errors import WrongRequest
from ktrain.fingerprint import NAME, checked_key
from ktrain.store import manifest
from ktrain.store.base import Publishable, StageSummary, Store, StoreSnapshot, WorkDir, no_upload
from ktrain.store.compare_and_swap import CasCell, FileCasCell, locked
from ktrain.store.json_files import Damage
from ktrain.store.lease import Lease, living_holders
from ktrain.store.regular_files import is_regular, read_bytes, read_text
from ktrain.system.atomic_write import atomic_write
from ktrain.system.process import Process, ended
from ktrain.system.retry import StorageUnavailable, retry_until

_FOLDERS = ("work", "stages", "damaged", "leases")
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_log = logging.getLogger("ktrain.store")


@dataclass(frozen=True)
class LocalStore(Store):
    """A folder on a local disk, or on a file system that machines share; `root` is absolute."""

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

    def ready(self, patience: float = 0.0, given: str = "") -> None:
        """Creates the folders, tests that they are writable, and removes what dead processes left."""
        self._tried(self._create, patience, given)
        self._remove_abandoned()

    def require_writable(self, given: str = "") -> None:
        """See `Store`. For folders that are not there yet, temporary ones are tested, in the place where they would
        be made."""
        self._tried(self._probe_without_trace, 0.0, given)

    def _tried(self, once: Callable[[], None], patience: float, given: str) -> None:
        """Calls `once`; raises `WrongRequest` where the disk refuses, or with patience `StorageUnavailable`."""
        try:
            retry_until(f"store={self.root}", once, patience=patience)
        except (OSError, ValueError) as error:
            if patience and isinstance(error, StorageUnavailable):
                raise
            cause = error.__cause__ or error
            reason = getattr(cause, "strerror", None) or cause
            raise WrongRequest(f"store={given or self.root}: not writable: {reason}") from None

    def exists(self, key: str) -> bool:
        return is_regular(self._stage(key) / manifest.NAME, self.root / "stages")

    def complete(self) -> list[str]:
        folders = (self.root / "stages").glob(f"*/{manifest.NAME}")
        return sorted(path.parent.name for path in folders if NAME.fullmatch(path.parent.name))

    def present(self) -> list[str]:
        with suppress(FileNotFoundError):
            return sorted(path.name for path in (self.root / "stages").iterdir() if NAME.fullmatch(path.name))
        return []

    def fetch(self, key: str) -> Path | None:
        folder = self._stage(key)
        return folder if self._examine(key, lambda: manifest.damage_of(folder, key)) == "" else None

    def verify(self, key: str) -> str | None:
        folder = self._stage(key)
        return self._examine(key, lambda: manifest.damage_of(folder, key, afresh=True)) or None

    def set_aside(self, key: str, damage: str) -> None:
        self._examine(key, lambda: damage)

    def _examine(self, key: str, find_damage: Callable[[], str | None]) -> str | None:
        """Returns the damage of a stage after moving it aside, empty where there is none; None without a stage."""
        while True:
            try:
                inode = self._stage(key).lstat().st_ino
            except FileNotFoundError:
                return None
            damage = find_damage()
            if damage is None:
                return ""
            if self._move_aside(key, inode, damage):
                return damage

    def is_intact(self, key: str) -> bool:
        """See `Store`. Reads every file."""
        return self.fetch(key) is not None

    def _publish(self, stage: Publishable, write: Callable[[Path], None]) -> None:
        key = stage.key
        self.require(key)
        target, me = self._stage(key), Process.current()
        name = f"{key}~{me.host}~{me.namespace}~{me.pid}~{me.started or 0}~{uuid.uuid4().hex[:8]}"
        folder = self.root / "work" / name
        folder.mkdir(parents=True)
        try:
            write(folder)
            self.require(key)
            manifest.write_manifest(folder, self._header(stage))
            target.parent.mkdir(exist_ok=True)
            while True:
                try:
                    # A folder cannot replace another one that has files in it: of several drivers one succeeds.
                    os.rename(folder, target)
                    break
                except OSError as error:
                    if error.errno not in _OCCUPIED:
                        raise
                    if self.fetch(key) is not None:
                        break
            manifest.flush(target.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def manifest(self, key: str) -> dict[str, Any]:
        try:
            return manifest.read(self._stage(key), key)
        except Damage:
            raise self._missing(key) from None

    def read(self, key: str, name: str) -> bytes:
        folder = self._stage(key)
        try:
            manifest.verify(folder, name, self.manifest(key)["files"][name])
            return read_bytes(folder / name, folder.parent)
        except (Damage, KeyError):
            raise self._missing(f"{name} of {key}") from None

    def snapshot(self, keys: Collection[str] | None = None) -> StoreSnapshot:
        wanted = self.complete() if keys is None else keys
        done, damaged, failures = {}, {}, {}
        aside = self._moved_aside()
        for key in wanted:
            try:
                done[key] = self._summary(key)
            except Damage as damage:
                # Whoever rebuilds it moves it aside first.
                if os.path.lexists(self._stage(key)):
                    damaged[key] = str(damage)
                elif key in aside:
                    damaged[key] = f"moved to {aside[key]}"
            if (line := self.failure(key)) is not None:
                failures[key] = line
        return StoreSnapshot(done, damaged, failures, living_holders(lambda: self._leases_of(set(wanted))))

    def work_dir(self, key: str) -> WorkDir:
        """Returns a folder of the store, created where missing."""
        folder = self._work(key)
        folder.mkdir(parents=True, exist_ok=True)
        return WorkDir(folder, no_upload)

    def flush_uploads(self) -> None:
        """Returns at once: nothing is ever uploaded."""

    def _note(self, key: str, name: str, text: str | None) -> None:
        if text is not None:
            atomic_write(self.work_dir(key).folder / name, text)
        else:
            (self._work(key) / name).unlink(missing_ok=True)

    def _noted(self, key: str, name: str) -> str | None:
        with suppress(OSError):
            return read_text(self._work(key) / name, self.root / "work", "replace")
        return None

    def clear_work(self, key: str) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._work(key))

    def _lease_cell(self, key: str) -> CasCell:
        return FileCasCell(self.root / "leases" / f"{key}.json")

    def _leases_of(self, keys: set[str]) -> dict[str, tuple[str, float]]:
        """The text of each lease, and when it changed, in seconds since the epoch."""
        leases = {}
        for path in (self.root / "leases").glob("*.json"):
            if path.stem in keys:
                with suppress(OSError):
                    leases[path.stem] = read_text(path, path.parent, "replace"), path.stat().st_mtime
        return leases

    def _summary(self, key: str) -> StageSummary:
        """Raises `Damage`, also where there is no such stage."""
        folder = self._stage(key)
        header = manifest.read_unchanged(folder, key)
        if manifest.METRICS not in header["files"]:
            raise Damage(f"{manifest.METRICS} is missing")
        manifest.verify(folder, manifest.METRICS, header["files"][manifest.METRICS])
        return StageSummary(str(folder), header, manifest.read_metrics(folder))

    def _moved_aside(self) -> dict[str, Path]:
        """The folder of the stage that was moved aside last, by key."""
        aside: dict[str, Path] = {}
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in (self.root / "damaged").iterdir():
                key, _, number = path.name.rpartition("-")
                before = int(aside[key].name.rpartition("-")[2]) if key in aside else 0
                if number.isdecimal() and int(number) > before:
                    aside[key] = path
        return aside

    def _stage(self, key: str) -> Path:
        return self.root / "stages" / checked_key(key)

    def _work(self, key: str) -> Path:
        return self.root / "work" / checked_key(key)

    def _create(self) -> None:
        _probe({name: self.root / name for name in _FOLDERS})

    def _probe_without_trace(self) -> None:
        folders = {name: self.root / name for name in _FOLDERS}
        if all(map(os.path.lexists, folders.values())):
            _probe(folders)
            return
        place = next(path for path in (self.root, *self.root.parents) if os.path.lexists(path))
        with tempfile.TemporaryDirectory(prefix=".ktrain-", dir=place, ignore_cleanup_errors=True) as temporary:
            _probe({name: f if os.path.lexists(f) else Path(temporary) / name for name, f in folders.items()})

    def _remove_abandoned(self) -> None:
        """Removes files that processes of this machine were about to publish when they died."""
        me = Process.current()
        for folder in (self.root / "work").glob("*~*~*~*~*~*"):
            host, namespace, pid, started, _ = folder.name.split("~")[-5:]
            if (host, namespace) == (me.host, me.namespace) and ended(int(pid), int(started) or None):
                shutil.rmtree(folder, ignore_errors=True)

    def _move_aside(self, key: str, inode: int, damage: str) -> bool:
        """Moves a stage to `damaged/` if its folder still has this inode, and returns whether it had: another process
        may have moved and even rebuilt the stage meanwhile."""
        folder = self._stage(key)
        for name in ("damaged", "leases"):
            (self.root / name).mkdir(exist_ok=True)  # Users short of disk space delete them.
        with locked(self.root / "leases"):
            try:
                if folder.lstat().st_ino != inode:
                    return False
            except FileNotFoundError:
                return False
            aside = (self.root / "damaged" / f"{key}-{k}" for k in itertools.count(1))
            target = next(path for path in aside if not os.path.lexists(path))
            os.rename(folder, target)
        _log.warning("%s is damaged (%s): moved to %s, to be rebuilt", key, damage, target)
        return True


def _probe(folders: Mapping[str, Path]) -> None:
    """Creates the folders of a store, and moves one file through all of them: shows that each is writable, that all lie
    on one file system, so that renames are atomic, and that file locks work.

    Permission bits would not show it: root passes them all, yet cannot write to a read-only disk.
    """
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    probe = folders["work"] / f"probe~{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"x")
        for folder in folders.values():
            probe = probe.rename(folder / probe.name)
        with locked(folders["leases"]):
            pass
    finally:
        with suppress(OSError):
            probe.unlink()
