"""The store: results of stages, each complete or absent, in a folder or in object storage.

`local` and `object_store` implement it, `open` finds the one for an address; callers need not know which they have.
"""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ktrain.fingerprint import checked_key
from ktrain.store.compare_and_swap import CasCell
from ktrain.store.json_files import Damage, parse_losses, parse_metrics
from ktrain.store.lease import Lease, LeaseLost, hold
from ktrain.store.manifest import METRICS, STARTED, timestamp
from ktrain.system.atomic_write import follow_umask
from ktrain.system.retry import retry_until

FAILURE, PAUSE = "failure.txt", "paused.json"
"""Notes on the unfinished work on a stage: how it failed, and the losses up to where a search has paused it."""


@dataclass(frozen=True)
class StageSummary:
    """A complete stage without its large files. `where` is a folder or an address, to show to people."""

    where: str
    manifest: Mapping[str, Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class StoreSnapshot:
    """Many stages at one moment, by key: summaries of the complete ones, what is wrong with damaged ones, the error
    lines of failed ones, and the holders of leases.

    A stage is complete if every file has its size, and files that changed since they were verified, and the metrics,
    have their content. A damaged stage that was moved aside counts as damaged until it is rebuilt.
    """

    done: Mapping[str, StageSummary]
    damaged: Mapping[str, str]
    failures: Mapping[str, str]
    held: Mapping[str, str]


@dataclass(frozen=True)
class WorkDir:
    """The folder of this machine that holds the unfinished work on a stage.

    `upload_async` copies its content to where a successor on another machine finds it. It returns at once; the next
    call tries again what fails.
    """

    folder: Path
    upload_async: Callable[[], None]


class Publishable(Protocol):
    """A stage as the store publishes it: `identity` becomes `config` in the manifest. `ktrain.stages.Stage` is one."""

    @property
    def key(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def identity(self) -> dict[str, Any]: ...


FileContent = bytes | Path | Callable[[Path], object] | Mapping[str, Any] | Sequence[Any]
"""A file to publish: its bytes, another file to copy, a function that writes it, or a value to write as JSON."""


class Store(ABC):
    """Results by key. Methods raise `OSError` where the disk or the storage does not answer; that says nothing about
    the stage."""

    _leases: dict[str, Lease]

    @property
    @abstractmethod
    def address(self) -> str:
        """The address for `store_at`, valid on every machine."""

    @property
    @abstractmethod
    def reports(self) -> Path:
        """The folder of this machine for reports."""

    @property
    @abstractmethod
    def scratch(self) -> Path:
        """A folder for files of a run that are no results. Every machine can create one under this path."""

    @abstractmethod
    def ready(self, patience: float = 0.0, given: str = "") -> None:
        """See `open_store`; `given` is the address as the user wrote it, for the error."""

    @abstractmethod
    def require_writable(self, given: str = "") -> None:
        """Raises `WrongRequest` where `ready` would, and leaves nothing behind."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether the stage is complete. Costs one request; reads none of its files."""

    @abstractmethod
    def complete(self) -> list[str]:
        """The keys of all complete stages, sorted. Reads none of their files."""

    def present(self) -> list[str]:
        """The keys of all stages, sorted: the complete ones, and those whose manifest is missing."""
        return self.complete()

    @abstractmethod
    def fetch(self, key: str) -> Path | None:
        """Returns a folder of this machine with the complete stage, every file verified; None where there is none.

        Moves a damaged stage aside with a warning, so that None always means that the stage has to be built.
        """

    @abstractmethod
    def verify(self, key: str) -> str | None:
        """Reads every file of a stage where the store keeps it. Returns what is damaged, and moves the stage aside with
        a warning; None where it is intact, or not there."""

    @abstractmethod
    def set_aside(self, key: str, damage: str) -> None:
        """Moves a stage aside with a warning, for `damage` that its files do not show. Does nothing where there is no
        such stage."""

    @abstractmethod
    def is_intact(self, key: str) -> bool:
        """Whether the stage is complete and shows no damage, without downloading it.

        Moves a damaged stage aside with a warning.
        """

    def publish_files(self, stage: Publishable, files: Mapping[str, FileContent]) -> None:
        """Publishes a stage with `files`, by their path within the stage, in one step: all of them or nothing.

        A callable is called with the path where it writes a file or a folder; `"."` is the stage's folder itself. While
        the disk or the storage refuses, everything is written again into an empty folder. If another driver has
        published the stage meanwhile, its result stays and this one is dropped.

        Raises what a callable raises; `ValueError` for anything but regular files and folders, for a file named
        `manifest.json`, and for what JSON cannot hold; `LeaseLost` where this process held the stage's lease and has
        lost it; `StorageUnavailable` when patience runs out.
        """

        def write(folder: Path) -> None:
            for name, content in files.items():
                write_file(folder / name, content)
            follow_umask(folder)

        retry_until(f"store={self.address}: publishing {stage.key}", lambda: self._publish(stage, write))

    @abstractmethod
    def _publish(self, stage: Publishable, write: Callable[[Path], None]) -> None:
        """Makes one attempt of `publish_files`: `write` fills an empty folder, which becomes the stage."""

    @abstractmethod
    def manifest(self, key: str) -> dict[str, Any]:
        """Returns the manifest of a complete stage: key, kind, config, files, versions, started, created, checksum.

        Raises `FileNotFoundError` where there is none that is readable.
        """

    @abstractmethod
    def read(self, key: str, name: str) -> bytes:
        """Returns the verified content of one small file of a complete stage; raises `FileNotFoundError`."""

    @abstractmethod
    def snapshot(self, keys: Collection[str] | None = None) -> StoreSnapshot:
        """Returns the states of `keys`, or of all complete stages, in far fewer requests than asking for each."""

    @abstractmethod
    def work_dir(self, key: str) -> WorkDir:
        """Returns the folder of the unfinished work on a stage, with what earlier workers saved. Only the holder of the
        lease may write there."""

    @abstractmethod
    def flush_uploads(self) -> None:
        """Waits until every upload that `WorkDir.upload_async` started has succeeded or failed."""

    def note_failure(self, key: str, line: str | None) -> None:
        """Records how the stage failed, for status and for the next run; None removes the record."""
        self._note(key, FAILURE, line)

    def failure(self, key: str) -> str | None:
        """Returns how the stage failed at its last attempt; None if it did not."""
        return self._noted(key, FAILURE)

    def note_pause(self, key: str, losses: Mapping[int, float]) -> None:
        """Records that the stage's training has paused on purpose, with its losses by step. Only the holder of the
        lease may call it."""
        self._note(key, PAUSE, json.dumps(losses, allow_nan=False))

    def paused(self, key: str) -> dict[int, float]:
        """Returns the losses by step of an unfinished training up to where it paused last; empty if it never did."""
        text = self._noted(key, PAUSE)
        try:
            return parse_losses(text.encode()) if text is not None else {}
        except Damage:
            return {}

    @abstractmethod
    def _note(self, key: str, name: str, text: str | None) -> None:
        """Records a text about the unfinished work on a stage; None removes the record."""

    @abstractmethod
    def _noted(self, key: str, name: str) -> str | None:
        """Returns what `_note` has recorded; None where there is nothing."""

    @abstractmethod
    def clear_work(self, key: str) -> None:
        """Removes the unfinished work on a stage, and all notes on it."""

    @abstractmethod
    def _lease_cell(self, key: str) -> CasCell:
        """The cell that holds the stage's lease."""

    def with_shared_scratch(self, word: str) -> "Store":
        """Returns this store for processes that work on the same stages: those on one machine that pass the same `word`
        share their work folders."""
        return self

    def metrics(self, key: str) -> dict[str, float]:
        """Returns the verified `metrics.json` of a complete stage. Raises `FileNotFoundError` where there is none."""
        try:
            return parse_metrics(self.read(key, METRICS))
        except Damage:
            raise self._missing(f"{METRICS} of {key}") from None

    @contextmanager
    def lease(self, key: str, **options: Any) -> Iterator[Lease]:
        """Holds the lease of a stage, see `lease.hold`. Once it is lost, `publish_files` raises `LeaseLost`."""
        with hold(self._lease_cell(checked_key(key)), **options) as lease:
            self._leases[key] = lease
            try:
                yield lease
            finally:
                del self._leases[key]

    def require(self, key: str) -> None:
        """Raises `LeaseLost` where this process held the stage's lease and has lost it."""
        if (lease := self._leases.get(key)) and lease.lost:
            raise LeaseLost(f"{key}: another driver took over, because this one was not heard of for too long")

    def _header(self, stage: Publishable) -> dict[str, Any]:
        """The fields of a stage's manifest that do not depend on its files; `started` is when its lease was taken."""
        header = {"key": stage.key, "kind": stage.kind, "config": stage.identity}
        lease = self._leases.get(stage.key)
        return header | ({STARTED: timestamp(lease.since)} if lease else {})

    def _missing(self, name: str) -> FileNotFoundError:
        return FileNotFoundError(f"{name}: not in the store {self.address}, or damaged there")


def no_upload() -> None:
    """Does nothing: the work folder lies in the store and needs no upload."""


def write_file(path: Path, content: FileContent) -> None:
    """Writes a file of a stage, and its folder. Raises `ValueError` for what JSON cannot hold, NaN included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
