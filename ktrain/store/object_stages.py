"""Complete stages in object storage: publishes, fetches and verifies them, and sets damaged ones aside."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ktrain.store import manifest, object_names
from ktrain.store.base import StageSummary
from ktrain.store.download_cache import DownloadCache, download_verified
from ktrain.store.json_files import Damage, parse_metrics
from ktrain.store.object_client import ObjectClient, ObjectInfo, Version
from ktrain.store.object_names import DAMAGED
from ktrain.system.retry import StorageUnavailable, retry_until

FILES_AT_ONCE = 4
"""Files that are uploaded in parallel; a large one is uploaded in several parts at once, too."""
_log = logging.getLogger("ktrain.store")
T = TypeVar("T")


@dataclass(frozen=True)
class ObjectStages:
    """The stages below one address. `hasty` gives up soon: it serves cleaning up, which a later run repeats."""

    objects: ObjectClient
    hasty: ObjectClient
    cache: DownloadCache

    def fetch(self, key: str) -> Path | None:
        """Returns a verified copy of a stage on this machine, downloaded where it is missing or damaged; None where
        the stage is not complete, or was damaged and has been set aside."""

        def download(header: dict[str, Any], content: bytes) -> Path:
            get = partial(self._download, header)
            copy = partial(self.cache.stage, content, header, get)
            folder = retry_until(f"the copy of {key} in {self.cache.root}", copy)
            manifest.parse_known(folder, header["files"])
            return folder

        return self._checked(key, download)

    def verify(self, key: str) -> str | None:
        """Downloads every file of a stage, one after another, whether or not this machine has a copy. Returns what is
        damaged, and sets the stage aside; None where it is intact, or not there."""
        damage = []

        def download_all(header: dict[str, Any], content: bytes) -> None:
            try:
                with tempfile.TemporaryDirectory(dir=self.cache.folder()) as folder:
                    self._verify_all(header, Path(folder))
            except Damage as found:
                damage.append(str(found))
                raise

        self._checked(key, download_all)
        return damage[-1] if damage else None

    def set_aside(self, key: str, damage: str) -> None:
        """Sets a stage aside for damage that its files do not show."""

        def refuse(header: dict[str, Any], content: bytes) -> None:
            raise Damage(damage)

        self._checked(key, refuse)

    def is_intact(self, key: str) -> bool:
        """Whether a stage is complete and every file has its size, at the price of a listing. Sets a damaged stage
        aside."""

        def compare_sizes(header: dict[str, Any], content: bytes) -> bool:
            _require_sizes(header, self.sizes(object_names.data_of(header)))
            return True

        return bool(self._checked(key, compare_sizes))

    def publish(self, header: dict[str, Any], folder: Path, require: Callable[[str], None]) -> None:
        """Publishes a folder as the stage `header["key"]`; `require` raises `LeaseLost` once the lease is lost."""
        key = header["key"]
        content = manifest.text(manifest.describe(folder, header)).encode()
        try:
            self._upload(folder, header)
            require(key)
        except BaseException:
            self._drop(header)
            raise
        # If an error comes from here on, the stage may be complete all the same: its files have to stay.
        if self._announce(key, content):
            with suppress(OSError):
                (folder / manifest.NAME).write_bytes(content)
                self.cache.adopt(header, folder)
        else:
            # Another driver was first. Nobody sees these files, because no manifest names them.
            self._drop(header)

    def manifest(self, key: str) -> dict[str, Any]:
        """The manifest of a complete stage. Raises `Damage` where there is none."""
        stored = self.objects.get(object_names.manifest_of(key))
        return object_names.parsed(stored[0] if stored else b"", key)

    def file(self, header: Mapping[str, Any], name: str) -> bytes:
        """The content of one file of a stage. Raises `FileNotFoundError` where it is missing or damaged."""
        entry = header["files"].get(name)
        if entry is None:
            raise FileNotFoundError(name)

        def download() -> bytes:
            content = self._content(object_names.data_of(header, name))
            if hashlib.sha256(content).hexdigest() != entry["sha256"]:
                raise FileNotFoundError(name)
            return content

        return self.cache.small(entry["sha256"], download)

    def sizes(self, folder: str) -> dict[str, int]:
        """The size of every object below a folder."""
        return {entry.name: entry.size for entry in self.objects.entries(folder)}

    def summary(self, key: str, entry: ObjectInfo, sizes: Mapping[str, int]) -> StageSummary | Damage:
        """The summary of a stage whose manifest is `entry`, or what is wrong with it. `sizes` are those of all data."""
        address = self.objects.address
        try:
            content = self.cache.small(f"{address} {key} {entry.tag}", partial(self._content, entry.name))
            header = object_names.parsed(content, key)
            _require_sizes(header, sizes)
            metrics = parse_metrics(self.file(header, manifest.METRICS))
        except FileNotFoundError:
            return Damage(f"{manifest.METRICS} is missing or damaged")
        except Damage as damage:
            return damage
        return StageSummary(f"{address}/{object_names.data_of(header)}", header, metrics)

    def _checked(self, key: str, check: Callable[[dict[str, Any], bytes], T]) -> T | None:
        """Returns what `check` returns for the manifest and its text; None where there is none, or where `check` finds
        damage: the stage is then set aside. Begins again where another driver replaces the manifest meanwhile."""
        while True:
            stored = self.objects.get(object_names.manifest_of(key))
            if stored is None or not stored[0]:
                return None
            content, version = stored
            try:
                return check(object_names.parsed(content, key), content)
            except Damage as damage:
                if self._set_aside(key, content, version, str(damage)):
                    return None

    def _verify_all(self, header: dict[str, Any], folder: Path) -> None:
        """Raises `Damage` for the first file that is not as it was published. `folder` holds one at a time."""
        for name, entry in header["files"].items():
            download_verified(folder, name, entry, partial(self._download, header))
            manifest.parse_known(folder, [name])
            (folder / name).unlink()

    def _content(self, name: str) -> bytes:
        stored = self.objects.get(name)
        if stored is None:
            raise FileNotFoundError(name)
        return stored[0]

    def _download(self, header: Mapping[str, Any], file: str, path: Path) -> None:
        self.objects.download(object_names.data_of(header, file), path)

    def _upload(self, folder: Path, header: Mapping[str, Any]) -> None:
        def put(path: Path) -> None:
            self.objects.put(object_names.data_of(header, path.relative_to(folder).as_posix()), path)

        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(put, (path for path in folder.rglob("*") if path.is_file())))

    def _announce(self, key: str, content: bytes) -> bool:
        """Makes `content` the manifest of the stage; returns False where another publication is intact."""
        name = object_names.manifest_of(key)
        while self.objects.create(name, content) is None:
            stored = self.objects.get(name)
            if stored is None:
                continue
            if not stored[0]:
                # Empty since a damaged publication was set aside.
                if self.objects.replace(name, content, stored[1]) is not None:
                    return True
            elif self.fetch(key) is not None:
                return False
        return True

    def _drop(self, header: Mapping[str, Any]) -> None:
        """Removes the files of a publication that no manifest names. Garbage collection removes what stays behind."""
        with suppress(StorageUnavailable):
            self.hasty.remove([entry.name for entry in self.hasty.entries(object_names.data_of(header))])

    def _set_aside(self, key: str, content: bytes, version: Version, damage: str) -> bool:
        """Empties the manifest if it still is `version`, and records the damage; returns whether it was."""
        try:
            name = f"{DAMAGED}/{object_names.publication(object_names.parsed(content, key))}.json"
        except Damage:
            name = f"{DAMAGED}/{key}~unreadable.json"
        record = {"finding": damage, "manifest": content.decode("utf-8", errors="replace")}
        self.objects.put(name, json.dumps(record).encode())
        if self.objects.replace(object_names.manifest_of(key), b"", version) is None:
            return False
        _log.warning("%s is damaged (%s): moved to %s/%s, to be rebuilt", key, damage, self.objects.address, name)
        return True


def _require_sizes(header: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Raises `Damage` for the first file of a stage that has another size than its manifest says."""
    for name, entry in header["files"].items():
        if sizes.get(object_names.data_of(header, name)) != entry["size"]:
            raise Damage(f"{name} is missing or has another size")
