"""Mirrors: the work on a stage in a folder of this machine, and the copy of it that outlives the machine.

In the store, `work/<key>/<file>` is a small file of the folder and `work/<key>/step-<n>~<id>/` a resume point, which
is there when its `point.json` is: that is written last and removed first. Each upload of a point has an `id` of its
own, so that two drivers, one of which does not know yet that it lost its lease, never make one point of two.
"""

import logging
import os
import shutil
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ktrain.patience import persist
from ktrain.register import locked
from ktrain.resume import KEPT, POINT, STATE, ResumePoints, found
from ktrain.storage import Entry, Objects

_log = logging.getLogger("ktrain.store")


class Mirror:
    """The work on one stage. Only the process that holds the stage's lease may `keep` and `clear`."""

    def __init__(self, objects: Objects, key: str, folder: Path) -> None:
        self._objects, self._prefix, self._folder = objects, f"work/{key}", folder
        self._kept: dict[str, bytes | None] = {}
        self._lock, self._waiting, self._running = threading.Lock(), False, list[Future[None]]()
        self._failed = False

    def pull(self) -> Path:
        """The folder with all that was kept, of resume points the newest that is whole; fetched once for all processes
        that share the folder. Raises `StorageAway`."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        done = self._folder.with_name(f"{self._folder.name}.pulled")
        with locked(self._folder.parent, f"{self._folder.name}.lock"):
            if not done.exists():
                persist(f"work folder {self._folder}", self._fetch)
                done.touch()
        return self._folder

    def keep(self, pool: ThreadPoolExecutor) -> None:
        """Has `pool` bring what is new to the store. Where that has been asked for and has not begun, it is enough."""
        with self._lock:
            if self._waiting:
                return
            self._waiting = True
        self._running = [one for one in self._running if not one.done()]
        self._running.append(pool.submit(self._try_to_push))

    def settle(self) -> None:
        """Waits until what `keep` was called for has been kept, or has failed."""
        for one in self._running:
            one.result()

    def clear(self) -> None:
        """Removes the folder and all that was kept of it. Raises `StorageAway`."""
        self.settle()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.with_name(f"{self._folder.name}.pulled").unlink(missing_ok=True)
        self._remove(list(self._objects.entries(self._prefix)))
        self._kept = {}

    def _fetch(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        there = list(self._objects.entries(self._prefix))
        for entry in there:
            if "/" not in (name := self._name(entry)):
                self._download(entry, self._folder / name)
                self._kept[name] = (self._folder / name).read_bytes()
        for name, parts in self._points(there):
            point = self._folder / name.partition("~")[0]
            point.mkdir()
            for entry in parts:
                self._download(entry, point / entry.name.rpartition("/")[2])
            if ResumePoints(self._folder).latest():
                self._kept[point.name] = None
                return
            shutil.rmtree(point)

    def _download(self, entry: Entry, path: Path) -> None:
        try:
            self._objects.download(entry.name, path)
        except FileNotFoundError:
            path.write_bytes(b"")  # Removed since it was listed; what is not whole is not used.

    def _try_to_push(self) -> None:
        with self._lock:
            self._waiting = False
        try:
            self._push()
            self._failed = False
        except OSError as error:
            if not self._failed:
                _log.warning("%s is not safe from a loss of this machine: %s", self._prefix, error)
            self._failed = True

    def _push(self) -> None:
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and path.suffix != ".part":
                content = path.read_bytes()
                if self._kept.get(path.name) != content:
                    self._objects.put(f"{self._prefix}/{path.name}", content)
                    self._kept[path.name] = content
        # Linked, because training may remove the point while it is on its way.
        held = self._folder.with_name(f"{self._folder.name}.{uuid.uuid4().hex[:8]}")
        try:
            newest = self._link_newest(held)
            if newest is None or newest in self._kept:
                return
            target = f"{self._prefix}/{newest}~{uuid.uuid4().hex[:8]}"
            for path in sorted(held.iterdir(), key=lambda path: path.name == POINT):
                self._objects.put(f"{target}/{path.name}", path)
        finally:
            shutil.rmtree(held, ignore_errors=True)
        self._kept[newest] = None
        for _, parts in self._points(list(self._objects.entries(self._prefix)))[KEPT:]:
            self._remove(parts)

    def _link_newest(self, held: Path) -> str | None:
        """The name of the newest resume point, whose files `held` then has; None where there is none."""
        while points := found(self._folder):
            newest = points[-1]
            if newest.name in self._kept:
                return newest.name
            held.mkdir()
            try:
                for file in (STATE, POINT):
                    os.link(newest / file, held / file)
                return newest.name
            except FileNotFoundError:
                shutil.rmtree(held)
                # Training removes a point when there are newer ones; one that is not whole has been cut short.
                if found(self._folder)[-1:] == [newest]:
                    break
        return None

    def _points(self, there: list[Entry]) -> list[tuple[str, list[Entry]]]:
        """Whole resume points in the store, the newest first."""
        points: dict[str, list[Entry]] = {}
        for entry in there:
            name, slash, _ = self._name(entry).partition("/")
            if slash:
                points.setdefault(name, []).append(entry)
        whole = [(name, parts) for name, parts in points.items() if any(p.name.endswith(f"/{POINT}") for p in parts)]
        return sorted(whole, key=lambda point: point[0], reverse=True)

    def _remove(self, entries: list[Entry]) -> None:
        """What makes a point one goes first."""
        last = [entry.name for entry in entries if entry.name.endswith(f"/{POINT}")]
        self._objects.remove(last)
        self._objects.remove(entry.name for entry in entries if entry.name not in last)

    def _name(self, entry: Entry) -> str:
        return entry.name.removeprefix(f"{self._prefix}/")
