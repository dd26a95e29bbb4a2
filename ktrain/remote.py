"""Stores in object storage; `ktrain.layout` says what lies where."""

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ktrain import layout, manifest, node
from ktrain.copies import Copies, Scratch
from ktrain.errors import WrongRequest
from ktrain.keys import digest
from ktrain.layout import DAMAGED, FAILURES, LEASES
from ktrain.lease import Lease, living
from ktrain.patience import StorageAway, persist
from ktrain.process import Process
from ktrain.register import ObjectRegister, Register
from ktrain.storage import Entry, Objects
from ktrain.store import Glance, Place, Store, Summary, checked
from ktrain.upkeep import sweep, try_out

AT_ONCE = 32
"""Small requests that are under way together."""
FILES_AT_ONCE = 4
"""Files that are under way together; a large one travels in several pieces too."""
if TYPE_CHECKING:
    from ktrain.mirror import Mirror

_log = logging.getLogger("ktrain.store")
T = TypeVar("T")


@dataclass(frozen=True)
class RemoteStore(Store):
    """A bucket with a prefix; `url` has no slash at its end."""

    url: str
    word: str = field(default_factory=lambda: f"{Process.current().pid}-{uuid.uuid4().hex[:8]}", compare=False)
    _leases: dict[str, Lease] = field(default_factory=dict, init=False, repr=False, compare=False)
    _mirrors: dict[str, "Mirror"] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def address(self) -> str:
        """The URL."""
        return self.url

    def reached(self, patience: float) -> "RemoteStore":
        """This store, which has answered; raises what `Store.at` raises."""
        self._contact(self._hasty.check, patience)
        return self

    @property
    def reports(self) -> Path:
        """In the folder `results` where the command was given."""
        return Path("results").absolute() / "reports"

    @property
    def scratch(self) -> Path:
        """In the temporary folder."""
        return node.temporary() / digest(self.address)

    def ready(self, patience: float = 0.0, told: str = "") -> None:
        """See `Store.open`. What cannot be swept now is swept another time."""
        now = self._contact(partial(try_out, self._hasty), patience)
        self._scratch.sweep()
        with suppress(StorageAway):
            sweep(self._objects, now)

    def together(self, word: str) -> "Store":
        """See `Store`."""
        return RemoteStore(self.url, word)

    def exists(self, key: str) -> bool:
        """See `Store`."""
        return bool(self._objects.size(layout.manifest_of(key)))

    def complete(self) -> list[str]:
        """See `Store`; at the price of a listing."""
        return sorted(layout.complete(self._objects))

    def find(self, key: str) -> Path | None:
        """See `Store`. The folder is a copy of this machine, which is verified too, and fetched again where it is
        damaged."""
        while True:
            found = self._objects.get(layout.manifest_of(key))
            if found is None or not found[0]:
                return None
            content, seen = found
            try:
                about = layout.parsed(content, key)
                fetch = partial(self._copies.stage, content, about, partial(self._download, about))
                return persist(f"the copy of {key} in {self._copies.root}", fetch)
            except manifest.Damage as damage:
                if self._move_aside(key, content, seen, str(damage)):
                    return None

    def sound(self, key: str) -> bool:
        """See `Store`; at the price of a listing, by sizes alone."""
        while True:
            found = self._objects.get(layout.manifest_of(key))
            if found is None or not found[0]:
                return False
            content, seen = found
            try:
                about = layout.parsed(content, key)
                folder = layout.data_of(about)
                sizes = {entry.name: entry.size for entry in self._objects.entries(folder)}
                for name, entry in about["files"].items():
                    if sizes.get(f"{folder}/{name}") != entry["size"]:
                        raise manifest.Damage(f"{name} is missing or has another size")
                return True
            except manifest.Damage as damage:
                if self._move_aside(key, content, seen, str(damage)):
                    return False

    @contextmanager
    def publish(self, key: str, config: dict[str, Any], kind: str) -> Iterator[Path]:
        """See `Store`. The files of one who comes second are never seen: no manifest names them."""
        self.require(checked(key))
        about = {"key": key, "kind": kind, "config": config, "publication": uuid.uuid4().hex[:12]}
        folder = self._scratch.folder / layout.publication(about)
        folder.mkdir()
        try:
            yield folder
            self.require(key)
            content = manifest.text(manifest.describe(folder, about)).encode()
            try:
                self._upload(folder, about)
                self.require(key)
            except BaseException:
                self._drop(about)
                raise
            # Of an error from here on, nobody knows whether the stage is complete: its files have to stay.
            if self._announce(key, content):
                with suppress(OSError):
                    (folder / manifest.NAME).write_bytes(content)
                    self._copies.adopt(about, folder)
            else:
                self._drop(about)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def manifest(self, key: str) -> dict[str, Any]:
        """See `Store`."""
        found = self._objects.get(layout.manifest_of(key))
        try:
            return layout.parsed(found[0] if found else b"", key)
        except manifest.Damage:
            raise self._missing(key) from None

    def read(self, key: str, name: str) -> bytes:
        """See `Store`."""
        return self._file(self.manifest(key), name)

    def glance(self, keys: Collection[str] | None = None) -> Glance:
        """See `Store`: three listings, and two requests for each stage that this machine has not seen yet."""
        there = layout.complete(self._objects)
        asked = set(there if keys is None else keys)
        known = sorted(asked & there.keys())
        failed = sorted(asked & {layout.named(entry) for entry in self._objects.entries(FAILURES)})
        with ThreadPoolExecutor(AT_ONCE) as pool:
            done = pool.map(lambda key: self._summary(key, there[key]), known)
            lines = pool.map(self.failure, failed)
            return Glance(
                {key: summary for key, summary in zip(known, done, strict=True) if summary},
                {key: line for key, line in zip(failed, lines, strict=True) if line is not None},
                living(lambda: self._leases_of(asked)),
            )

    def place(self, key: str) -> Place:
        """See `Store`: a folder of this machine, and its mirror in the store."""
        mirror = self._mirror(key)
        return Place(mirror.pull(), partial(mirror.keep, self._pool))

    def settle(self) -> None:
        """See `Store`."""
        for mirror in self._mirrors.values():
            mirror.settle()

    def note_failure(self, key: str, line: str | None) -> None:
        """See `Store`."""
        name = layout.failure_of(key)
        if line is not None:
            self._objects.put(name, line.encode())
        else:
            self._objects.remove([name])

    def failure(self, key: str) -> str | None:
        """See `Store`."""
        found = self._objects.get(layout.failure_of(key))
        return found[0].decode("utf-8", errors="replace") if found else None

    def clear_work(self, key: str) -> None:
        """See `Store`."""
        self._mirror(key).clear()
        self.note_failure(key, None)

    @cached_property
    def _objects(self) -> Objects:
        return Objects(self.address)

    @cached_property
    def _hasty(self) -> Objects:
        """For what is tried again by others, and must not hang."""
        return Objects(self.address, patience=0.0, hasty=True)

    @cached_property
    def _copies(self) -> Copies:
        return Copies(node.folder() / digest(self.address))

    @cached_property
    def _scratch(self) -> Scratch:
        return Scratch(node.folder() / digest(self.address) / "scratch", self.word)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """One after the other: small files of the work are there before what was made by them."""
        return ThreadPoolExecutor(1, thread_name_prefix="keep")

    def _register(self, key: str) -> Register:
        return ObjectRegister(self._hasty, layout.lease_of(key))

    def _mirror(self, key: str) -> "Mirror":
        # Resume points are tensors, and a plan can do without torch.
        from ktrain.mirror import Mirror

        if key not in self._mirrors:
            self._mirrors[key] = Mirror(self._objects, checked(key), self._scratch.folder / key)
        return self._mirrors[key]

    def _contact(self, once: Callable[[], T], patience: float) -> T:
        try:
            return persist(f"store={self.address}", once, passing=_away, patience=patience)
        except StorageAway as error:
            if patience:
                raise
            raise WrongRequest(str(error.__cause__)) from None

    def _summary(self, key: str, entry: Entry) -> Summary | None:
        """None for a stage whose numbers are damaged, or that was moved aside since it was listed."""
        try:
            content = self._copies.small(f"{self.address} {key} {entry.tag}", partial(self._content, entry.name))
            about = layout.parsed(content, key)
            where = f"{self.address}/{layout.data_of(about)}"
            return Summary(where, about, json.loads(self._file(about, "metrics.json")))
        except (FileNotFoundError, manifest.Damage):
            return None

    def _file(self, about: Mapping[str, Any], name: str) -> bytes:
        """Raises `FileNotFoundError` for a file that is not there or damaged."""

        def fetched() -> bytes:
            content = self._content(layout.data_of(about, name))
            if hashlib.sha256(content).hexdigest() != wanted:
                raise FileNotFoundError
            return content

        try:
            wanted = about["files"][name]["sha256"]
            return self._copies.small(wanted, fetched)
        except (KeyError, FileNotFoundError):
            raise self._missing(f"{name} of {about['key']}") from None

    def _content(self, name: str) -> bytes:
        found = self._objects.get(name)
        if found is None:
            raise FileNotFoundError(name)
        return found[0]

    def _download(self, about: Mapping[str, Any], file: str, path: Path) -> None:
        self._objects.download(layout.data_of(about, file), path)

    def _upload(self, folder: Path, about: Mapping[str, Any]) -> None:
        def put(path: Path) -> None:
            self._objects.put(layout.data_of(about, path.relative_to(folder).as_posix()), path)

        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(put, (path for path in folder.rglob("*") if path.is_file())))

    def _announce(self, key: str, content: bytes) -> bool:
        """Whether `content` is the manifest of the stage now; false where another publication is."""
        name = layout.manifest_of(key)
        while self._objects.create(name, content) is None:
            found = self._objects.get(name)
            if found is None:
                continue
            if not found[0]:
                if self._objects.replace(name, content, found[1]) is not None:
                    return True
            elif self.find(key) is not None:
                return False
        return True

    def _drop(self, about: Mapping[str, Any]) -> None:
        """Removes the files of a publication that nobody knows of; what cannot be removed now is swept later."""
        with suppress(StorageAway):
            self._hasty.remove([entry.name for entry in self._hasty.entries(layout.data_of(about))])

    def _move_aside(self, key: str, content: bytes, seen: Any, finding: str) -> bool:
        """Whether the manifest `seen` could be emptied; it may have been emptied, even written anew, meanwhile."""
        try:
            name = f"{DAMAGED}/{layout.publication(layout.parsed(content, key))}.json"
        except manifest.Damage:
            name = f"{DAMAGED}/{key}~unreadable.json"
        told = {"finding": finding, "manifest": content.decode("utf-8", errors="replace")}
        self._objects.put(name, json.dumps(told).encode())
        if self._objects.replace(layout.manifest_of(key), b"", seen) is None:
            return False
        _log.warning("%s is damaged (%s): moved to %s/%s, to be rebuilt", key, finding, self.address, name)
        return True

    def _leases_of(self, keys: set[str]) -> dict[str, tuple[str, float]]:
        """The text of each lease that somebody holds, and when it changed."""
        entries = {layout.named(entry): entry for entry in self._objects.entries(LEASES) if entry.size}
        held = sorted(keys & entries.keys())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            texts = pool.map(lambda key: self._register(key).read()[0], held)
            return {
                key: (text, entries[key].modified.timestamp()) for key, text in zip(held, texts, strict=True) if text
            }


def _away(error: BaseException) -> str | None:
    return "does not answer" if isinstance(error, StorageAway) else None
