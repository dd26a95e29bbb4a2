"""The store: finished stages in folders that are complete or not there at all.

stages/<key>/      complete: manifest.json with size and SHA-256 of every file, config and versions
work/<key>/        resume points of a stage that runs, in the hands of whoever holds its lease
work/<key>~.../    a result on its way into stages/
damaged/<key>-<k>/ what did not verify, kept to be looked at
leases/            who does which stage now
"""

import errno
import itertools
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ktrain import manifest
from ktrain.errors import WrongRequest
from ktrain.keys import NAME
from ktrain.lease import Process, ended, locked

FAILURE = "failure.txt"
_FOLDERS = ("work", "stages", "damaged", "leases")
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_log = logging.getLogger("ktrain.store")


@dataclass(frozen=True)
class Store:
    """A local folder of results; `root` is absolute."""

    root: Path

    @classmethod
    def at(cls, root: str | Path) -> "Store":
        """The store at a path or file:// address, untouched and perhaps not there yet: enough for plan and status.

        Raises `WrongRequest` for any other address.
        """
        text = str(root)
        address = urlsplit(text) if "://" in text or re.match(r"[A-Za-z][\w+.-]+:/", text) else None
        if not text or (address and (address.scheme != "file" or address.netloc not in ("", "localhost"))):
            raise WrongRequest(f"store={text}: only local folders are supported yet")
        return cls(Path(os.path.abspath(unquote(address.path) if address else os.path.expanduser(text))))

    @classmethod
    def open(cls, root: str | Path) -> "Store":
        """The store at a path, ready for writing: created where missing, tried out, freed of what the dead left.

        Raises `WrongRequest` for an address that is not local and for a folder that cannot hold a store.
        """
        store = cls.at(root)
        try:
            store._try_out()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise WrongRequest(f"store={root}: not writable: {reason}") from None
        store._sweep()
        return store

    def exists(self, key: str) -> bool:
        """Whether the stage is complete, at the price of one look; its files are not read."""
        return (self._stage(key) / manifest.NAME).is_file()

    def complete(self) -> list[str]:
        """The keys of all complete stages, sorted, at the price of one look at each."""
        folders = (self.root / "stages").glob(f"*/{manifest.NAME}")
        return sorted(path.parent.name for path in folders if NAME.fullmatch(path.parent.name))

    def find(self, key: str) -> Path | None:
        """The folder of a complete stage whose files all verify, else None.

        A damaged one is moved aside with a warning, so that None always means: to be built. Raises `OSError` where
        the disk does not answer, which says nothing about the stage.
        """
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

    @contextmanager
    def publish(self, key: str, config: dict[str, Any], kind: str) -> Iterator[Path]:
        """An empty folder that becomes the stage `key` in one step when the block ends, or nothing if it raises.

        Where another driver was faster, its result stays and this one is dropped. Raises `ValueError` for anything
        but regular files and folders, for a `manifest.json` among them, and for a config that JSON cannot hold.
        """
        target, me = self._stage(key), Process.current()
        name = f"{key}~{me.host}~{me.namespace}~{me.pid}~{me.started or 0}~{uuid.uuid4().hex[:8]}"
        folder = self.root / "work" / name
        folder.mkdir(parents=True)
        try:
            yield folder
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
        """The manifest of a complete stage: key, kind, config, files, versions, created.

        Raises `FileNotFoundError` where there is none that can be read.
        """
        try:
            return manifest.read(self._stage(key), key)
        except manifest.Damage:
            raise self._missing(key) from None

    def metrics(self, key: str) -> dict[str, Any]:
        """The verified `metrics.json` of a complete stage. Raises `FileNotFoundError` where there is none."""
        folder, name = self._stage(key), "metrics.json"
        try:
            manifest.verify(folder, name, self.manifest(key)["files"][name])
        except (manifest.Damage, KeyError):
            raise self._missing(f"{name} of {key}") from None
        metrics: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
        return metrics

    def work(self, key: str) -> Path:
        """The folder for the resume points of a stage, created where missing. Only a holder of the lease writes it."""
        folder = self.work_path(key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def work_path(self, key: str) -> Path:
        """Where `work` is or would be, untouched."""
        return self.root / "work" / _checked(key)

    def note_failure(self, key: str, line: str | None) -> None:
        """Leaves word of how the stage failed, for status and for the next run; None takes it back."""
        if line is not None:
            (self.work(key) / FAILURE).write_text(line, encoding="utf-8")
        else:
            (self.work_path(key) / FAILURE).unlink(missing_ok=True)

    def failure(self, key: str) -> str | None:
        """How the stage failed when it was last tried; None where it did not."""
        with suppress(OSError):
            return (self.work_path(key) / FAILURE).read_text(encoding="utf-8")
        return None

    def clear_work(self, key: str) -> None:
        """Removes the resume points of a stage, if any."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.work_path(key))

    def _stage(self, key: str) -> Path:
        return self.root / "stages" / _checked(key)

    def _missing(self, what: str) -> FileNotFoundError:
        return FileNotFoundError(f"{what}: not in the store {self.root}, or damaged there")

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


def _checked(key: str) -> str:
    if not NAME.fullmatch(key):
        raise ValueError(f"{key!r} is no key of a stage")
    return key
