"""Mirrors the work folder of a stage into the store, so that the work outlives this machine.

In the store, `work/<key>/<file>` is a small file of the folder and `work/<key>/step-<n>~<id>/` a checkpoint, which
exists once its `point.json` does: that file is written last and removed first. Each upload of a checkpoint has an `id`
of its own, so that two drivers, one of which has lost its lease without knowing it yet, never mix their files.
"""

import logging
import os
import shutil
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ktrain.store.checkpoints import KEPT, POINT, STATE, Checkpoints, checkpoint_folders
from ktrain.store.compare_and_swap import locked
from ktrain.store.object_client import ObjectClient, ObjectInfo
from ktrain.system.atomic_write import UNFINISHED
from ktrain.system.retry import retry_until

_log = logging.getLogger("ktrain.store")


class CheckpointMirror:
    """The work on one stage. Only the holder of the stage's lease may call `upload_async` and `clear`."""

    def __init__(self, objects: ObjectClient, key: str, folder: Path) -> None:
        self._objects, self._prefix, self._folder = objects, f"work/{key}", folder
        # Content of small files, and names of checkpoints, that the store has already.
        self._uploaded: dict[str, bytes | None] = {}
        self._lock, self._queued, self._uploads = threading.Lock(), False, list[Future[None]]()
        self._failed = False

    def pull(self) -> Path:
        """Returns the folder with all uploaded files and the newest intact checkpoint. Processes that share the folder
        download it once. Raises `StorageUnavailable`."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        done = self._folder.with_name(f"{self._folder.name}.pulled")
        with locked(self._folder.parent, f"{self._folder.name}.lock"):
            if not done.exists():
                retry_until(f"work folder {self._folder}", self._fetch)
                done.touch()
        return self._folder

    def upload_async(self, pool: ThreadPoolExecutor) -> None:
        """Has `pool` upload new files. An upload that is queued and has not begun includes them already."""
        with self._lock:
            if self._queued:
                return
            self._queued = True
        self._uploads = [upload for upload in self._uploads if not upload.done()]
        self._uploads.append(pool.submit(self._try_to_push))

    def flush(self) -> None:
        """Waits until every queued upload has succeeded or failed."""
        for upload in self._uploads:
            upload.result()

    def clear(self) -> None:
        """Removes the folder and its copy in the store. Raises `StorageUnavailable`."""
        self.flush()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.with_name(f"{self._folder.name}.pulled").unlink(missing_ok=True)
        self._remove(list(self._objects.entries(self._prefix)))
        self._uploaded = {}

    def _fetch(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        entries = list(self._objects.entries(self._prefix))
        for entry in entries:
            if "/" not in (name := self._name(entry)):
                self._download(entry, self._folder / name)
                self._uploaded[name] = (self._folder / name).read_bytes()
        for name, parts in self._points(entries):
            point = self._folder / name.partition("~")[0]
            point.mkdir()
            for entry in parts:
                self._download(entry, point / entry.name.rpartition("/")[2])
            if Checkpoints(self._folder).latest():
                self._uploaded[point.name] = None
                return
            shutil.rmtree(point)

    def _download(self, entry: ObjectInfo, path: Path) -> None:
        try:
            self._objects.download(entry.name, path)
        except FileNotFoundError:
            path.write_bytes(b"")  # Removed since it was listed; a damaged checkpoint is not used.

    def _try_to_push(self) -> None:
        with self._lock:
            self._queued = False
        try:
            self._push()
            self._failed = False
        except OSError as error:
            if not self._failed:
                _log.warning("%s is not safe from a loss of this machine: %s", self._prefix, error)
            self._failed = True

    def _push(self) -> None:
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and path.suffix != UNFINISHED:
                content = path.read_bytes()
                if self._uploaded.get(path.name) != content:
                    self._objects.put(f"{self._prefix}/{path.name}", content)
                    self._uploaded[path.name] = content
        # Hard links keep the files while they upload: training may remove the checkpoint meanwhile.
        links = self._folder.with_name(f"{self._folder.name}.{uuid.uuid4().hex[:8]}")
        try:
            newest = self._link_newest(links)
            if newest is None or newest in self._uploaded:
                return
            target = f"{self._prefix}/{newest}~{uuid.uuid4().hex[:8]}"
            for path in sorted(links.iterdir(), key=lambda path: path.name == POINT):
                self._objects.put(f"{target}/{path.name}", path)
        finally:
            shutil.rmtree(links, ignore_errors=True)
        self._uploaded[newest] = None
        for _, parts in self._points(list(self._objects.entries(self._prefix)))[KEPT:]:
            self._remove(parts)

    def _link_newest(self, links: Path) -> str | None:
        """Links the files of the newest checkpoint into `links`, unless it is uploaded already, and returns its name;
        None where there is none."""
        while points := checkpoint_folders(self._folder):
            newest = points[-1]
            if newest.name in self._uploaded:
                return newest.name
            links.mkdir()
            try:
                for file in (STATE, POINT):
                    os.link(newest / file, links / file)
                return newest.name
            except FileNotFoundError:
                shutil.rmtree(links)
                # Training removes a checkpoint only when there are newer ones; this one has been cut short.
                if checkpoint_folders(self._folder)[-1:] == [newest]:
                    break
        return None

    def _points(self, entries: list[ObjectInfo]) -> list[tuple[str, list[ObjectInfo]]]:
        """The complete checkpoints in the store by name, the newest first."""
        points: dict[str, list[ObjectInfo]] = {}
        for entry in entries:
            name, slash, _ = self._name(entry).partition("/")
            if slash:
                points.setdefault(name, []).append(entry)
        whole = [(name, parts) for name, parts in points.items() if any(p.name.endswith(f"/{POINT}") for p in parts)]
        return sorted(whole, key=lambda point: point[0], reverse=True)

    def _remove(self, entries: list[ObjectInfo]) -> None:
        """Removes objects, and before all others the file that makes a checkpoint complete."""
        last = [entry.name for entry in entries if entry.name.endswith(f"/{POINT}")]
        self._objects.remove(last)
        self._objects.remove(entry.name for entry in entries if entry.name not in last)

    def _name(self, entry: ObjectInfo) -> str:
        return entry.name.removeprefix(f"{self._prefix}/")
