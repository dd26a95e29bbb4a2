"""The store in object storage. `ktrain.store.object_names` describes its layout."""

import shutil
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ktrain.errors import WrongRequest
from ktrain.fingerprint import checked_key, digest
from ktrain.store import object_names
from ktrain.store.base import Publishable, Store, StoreSnapshot, WorkDir
from ktrain.store.compare_and_swap import CasCell, ObjectCasCell
from ktrain.store.download_cache import DownloadCache, SharedScratch
from ktrain.store.garbage_collection import collect_garbage, probe_conditional_writes
from ktrain.store.json_files import Damage
from ktrain.store.lease import Lease, living_holders
from ktrain.store.object_client import ObjectClient
from ktrain.store.object_names import DAMAGED, DATA, FAILURES, LEASES
from ktrain.store.object_stages import ObjectStages
from ktrain.system import cache_dirs
from ktrain.system.process import Process
from ktrain.system.retry import StorageUnavailable, retry_until

if TYPE_CHECKING:
    from ktrain.store.checkpoint_mirror import CheckpointMirror

AT_ONCE = 32
"""Small requests that are sent in parallel."""
T = TypeVar("T")


@dataclass(frozen=True)
class ObjectStore(Store):
    """A bucket with a prefix; `url` has no slash at its end. Stores with the same `word` share a scratch folder."""

    url: str
    word: str = field(default_factory=lambda: f"{Process.current().pid}-{uuid.uuid4().hex[:8]}", compare=False)
    _leases: dict[str, Lease] = field(default_factory=dict, init=False, repr=False, compare=False)
    _mirrors: dict[str, "CheckpointMirror"] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def address(self) -> str:
        """The URL."""
        return self.url

    def reached(self, patience: float) -> "ObjectStore":
        """Returns this store once it has answered; raises what `store_at` raises."""
        self._contact(self._hasty.check, patience)
        return self

    @property
    def reports(self) -> Path:
        """`results/reports` in the working directory."""
        return Path("results").absolute() / "reports"

    @property
    def scratch(self) -> Path:
        """A folder in the temporary folder of the user."""
        return cache_dirs.temporary_folder() / digest(self.address)

    def ready(self, patience: float = 0.0, given: str = "") -> None:
        """Tests conditional writes and collects garbage. Garbage that cannot be removed now waits for the next call."""
        now = self._contact(partial(probe_conditional_writes, self._hasty), patience)
        self._scratch.remove_abandoned()
        with suppress(StorageUnavailable):
            collect_garbage(self._objects, now)

    def require_writable(self, given: str = "") -> None:
        self._contact(partial(probe_conditional_writes, self._hasty), 0.0)

    def with_shared_scratch(self, word: str) -> "Store":
        return ObjectStore(self.url, word)

    def exists(self, key: str) -> bool:
        return bool(self._objects.size(object_names.manifest_of(key)))

    def complete(self) -> list[str]:
        return sorted(object_names.complete(self._objects))

    def fetch(self, key: str) -> Path | None:
        return self._stages.fetch(key)

    def verify(self, key: str) -> str | None:
        return self._stages.verify(key)

    def set_aside(self, key: str, damage: str) -> None:
        self._stages.set_aside(key, damage)

    def is_intact(self, key: str) -> bool:
        return self._stages.is_intact(key)

    def manifest(self, key: str) -> dict[str, Any]:
        try:
            return self._stages.manifest(key)
        except Damage:
            raise self._missing(key) from None

    def read(self, key: str, name: str) -> bytes:
        header = self.manifest(key)
        try:
            return self._stages.file(header, name)
        except FileNotFoundError:
            raise self._missing(f"{name} of {key}") from None

    def snapshot(self, keys: Collection[str] | None = None) -> StoreSnapshot:
        """See `Store`. Costs five listings, and two requests for each stage that this machine has not cached."""
        manifests = object_names.complete(self._objects)
        wanted = set(manifests if keys is None else keys)
        complete = sorted(wanted & manifests.keys())
        sizes = self._stages.sizes(DATA) if complete else {}
        damaged = self._set_aside_before(wanted - manifests.keys())
        failed = sorted(wanted & {object_names.named(entry) for entry in self._objects.entries(FAILURES)})
        done = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            summaries = pool.map(lambda key: self._stages.summary(key, manifests[key], sizes), complete)
            lines = pool.map(self.failure, failed)
            for key, summary in zip(complete, summaries, strict=True):
                if isinstance(summary, Damage):
                    damaged[key] = str(summary)
                else:
                    done[key] = summary
            failures = {key: line for key, line in zip(failed, lines, strict=True) if line is not None}
        return StoreSnapshot(done, damaged, failures, living_holders(lambda: self._leases_of(wanted)))

    def work_dir(self, key: str) -> WorkDir:
        """See `Store`. The folder is on this machine, with a mirror in the store."""
        mirror = self._mirror(key)
        return WorkDir(mirror.pull(), partial(mirror.upload_async, self._pool))

    def flush_uploads(self) -> None:
        for mirror in self._mirrors.values():
            mirror.flush()

    def _note(self, key: str, name: str, text: str | None) -> None:
        note = object_names.note_of(key, name)
        if text is not None:
            self._objects.put(note, text.encode())
        else:
            self._objects.remove([note])

    def _noted(self, key: str, name: str) -> str | None:
        stored = self._objects.get(object_names.note_of(key, name))
        return stored[0].decode("utf-8", errors="replace") if stored else None

    def clear_work(self, key: str) -> None:
        self._mirror(key).clear()
        self.note_failure(key, None)

    @cached_property
    def _objects(self) -> ObjectClient:
        return ObjectClient(self.address)

    @cached_property
    def _hasty(self) -> ObjectClient:
        """A client that gives up soon, for requests that others repeat and that must not hang."""
        return ObjectClient(self.address, patience=0.0, hasty=True)

    @cached_property
    def _stages(self) -> ObjectStages:
        cache = DownloadCache(cache_dirs.cache_folder() / digest(self.address))
        return ObjectStages(self._objects, self._hasty, cache)

    @cached_property
    def _scratch(self) -> SharedScratch:
        return SharedScratch(cache_dirs.cache_folder() / digest(self.address) / "scratch", self.word)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """One thread, so that uploads keep their order: small files arrive before the results made from them."""
        return ThreadPoolExecutor(1, thread_name_prefix="upload")

    def _publish(self, stage: Publishable, write: Callable[[Path], None]) -> None:
        key = checked_key(stage.key)
        self.require(key)
        header = self._header(stage) | {"publication": uuid.uuid4().hex[:12]}
        folder = self._scratch.folder / object_names.publication(header)
        folder.mkdir()
        try:
            write(folder)
            self.require(key)
            self._stages.publish(header, folder, self.require)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _lease_cell(self, key: str) -> CasCell:
        return ObjectCasCell(self._hasty, object_names.lease_of(key))

    def _mirror(self, key: str) -> "CheckpointMirror":
        # Checkpoints are tensors; a plan, which has none, starts faster without importing torch.
        from ktrain.store.checkpoint_mirror import CheckpointMirror

        if key not in self._mirrors:
            self._mirrors[key] = CheckpointMirror(self._objects, checked_key(key), self._scratch.folder / key)
        return self._mirrors[key]

    def _contact(self, once: Callable[[], T], patience: float) -> T:
        try:
            return retry_until(f"store={self.address}", once, passing=_unavailable, patience=patience)
        except StorageUnavailable as error:
            if patience:
                raise
            raise WrongRequest(str(error.__cause__)) from None

    def _set_aside_before(self, keys: set[str]) -> dict[str, str]:
        """Where the record of each of these stages lies that was set aside, in words."""
        aside = {}
        for entry in self._objects.entries(DAMAGED) if keys else ():
            if (key := object_names.named(entry).partition("~")[0]) in keys:
                aside[key] = f"moved to {self.address}/{entry.name}"
        return aside

    def _leases_of(self, keys: set[str]) -> dict[str, tuple[str, float]]:
        """The text of each lease that somebody holds, and when it changed, in seconds since the epoch."""
        entries = {object_names.named(entry): entry for entry in self._objects.entries(LEASES) if entry.size}
        held = sorted(keys & entries.keys())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            texts = pool.map(lambda key: self._lease_cell(key).read()[0], held)
            return {
                key: (text, entries[key].modified.timestamp()) for key, text in zip(held, texts, strict=True) if text
            }


def _unavailable(error: BaseException) -> str | None:
    return "does not answer" if isinstance(error, StorageUnavailable) else None
