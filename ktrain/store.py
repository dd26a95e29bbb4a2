"""The store: finished stages, which are complete or not there at all, in a folder or in object storage.

`local` and `remote` say how each keeps them; who uses a store need not know which it is.
"""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ktrain.errors import WrongRequest, nearest
from ktrain.keys import NAME
from ktrain.lease import Lease, LeaseLost, hold
from ktrain.patience import persist
from ktrain.register import Register
from ktrain.storage import SCHEMES


@dataclass(frozen=True)
class Summary:
    """A complete stage without its large files. `where` it lies is for people to read."""

    where: str
    manifest: Mapping[str, Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Glance:
    """What a store said of stages at one moment, by key: summaries of those that are complete and whose numbers
    verify, how others failed, and who does which now."""

    done: Mapping[str, Summary]
    failures: Mapping[str, str]
    held: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where the work on a stage lies: a folder of this machine. `keep` brings what is in it to where a successor on
    another machine finds it; it does not wait for that, and what fails then is tried again by the next call."""

    folder: Path
    keep: Callable[[], None]


class Store(ABC):
    """Results by key. Methods raise `OSError` where disk or store does not answer, which says nothing about a stage."""

    _leases: dict[str, Lease]

    @classmethod
    def at(cls, address: str | Path, *, patience: float = 0.0) -> "Store":
        """The store at a path or at a file://, s3://, gs:// or az:// address; a folder is not touched and need not be
        there: enough for plan and status.

        Raises `WrongRequest` for other addresses, and in object storage for a bucket that is not there, for credentials
        that are refused and for an endpoint that does not answer within some ten seconds. With `patience`, that is
        waited for such a time and then raises `StorageAway`.
        """
        text = str(address)
        found = re.match(r"([A-Za-z][\w+.-]+):/", text)
        scheme = found[1].lower() if found else "file"
        parts = urlsplit(text) if "://" in text else None
        if not text or scheme not in ("file", *SCHEMES):
            ways = ", ".join(f"{name}://" for name in SCHEMES)
            raise WrongRequest(f"store={text}: must be a folder or an address, {ways}{nearest(scheme, SCHEMES)}")
        if scheme in SCHEMES:
            from ktrain.remote import RemoteStore

            if parts is None or not parts.netloc or parts.query or parts.fragment:
                raise WrongRequest(f"store={text}: must be {scheme}://BUCKET/PREFIX")
            path = "/".join(part for part in parts.path.split("/") if part)
            return RemoteStore(f"{scheme}://{parts.netloc}/{path}".rstrip("/")).reached(patience)
        if found and (parts is None or parts.netloc not in ("", "localhost")):
            raise WrongRequest(f"store={text}: must be file:///FOLDER, on this machine")
        from ktrain.local import LocalStore

        return LocalStore(Path(os.path.abspath(unquote(parts.path) if parts else os.path.expanduser(text))))

    @classmethod
    def open(cls, address: str | Path, *, patience: float = 0.0) -> "Store":
        """The store at an address, ready for writing: tried out, freed of what the dead left, a folder created.

        Raises `WrongRequest` as `at` does, for a folder that cannot hold a store, and for object storage in which two
        drivers could both do one stage.
        """
        store = cls.at(address, patience=patience)
        store.ready(patience, str(address))
        return store

    @property
    @abstractmethod
    def address(self) -> str:
        """By which `at` finds this store from everywhere."""

    @property
    @abstractmethod
    def reports(self) -> Path:
        """The folder of this machine for reports about results."""

    @property
    @abstractmethod
    def scratch(self) -> Path:
        """A folder for what is of a run and not of its results; every machine can make one of this name."""

    @abstractmethod
    def ready(self, patience: float = 0.0, told: str = "") -> None:
        """See `open`; `told` is the address in the user's words."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether the stage is complete, at the price of one look; its files are not read."""

    @abstractmethod
    def complete(self) -> list[str]:
        """The keys of all complete stages, sorted; their files are not read."""

    @abstractmethod
    def find(self, key: str) -> Path | None:
        """A folder of this machine with a complete stage whose files all verify, else None.

        A damaged one is moved aside with a warning, so that None always means: to be built.
        """

    @abstractmethod
    def sound(self, key: str) -> bool:
        """Whether the stage is complete and no damage to it is to be seen, without fetching it from anywhere.

        A damaged one is moved aside with a warning.
        """

    @abstractmethod
    def publish(self, key: str, config: dict[str, Any], kind: str) -> AbstractContextManager[Path]:
        """An empty folder that becomes the stage `key` in one step when the block ends, or nothing if it raises.

        Where another driver was faster, its result stays and this one is dropped. Raises `ValueError` for anything
        but regular files and folders, for a `manifest.json` among them, and for a config that JSON cannot hold;
        `LeaseLost` where this process held the stage's lease and has lost it.
        """

    @abstractmethod
    def manifest(self, key: str) -> dict[str, Any]:
        """The manifest of a complete stage: key, kind, config, files, versions, created.

        Raises `FileNotFoundError` where there is none that can be read.
        """

    @abstractmethod
    def read(self, key: str, name: str) -> bytes:
        """The verified content of one small file of a complete stage; raises `FileNotFoundError`."""

    @abstractmethod
    def glance(self, keys: Collection[str] | None = None) -> Glance:
        """A look at many stages for the price of few: those of `keys`, or all that are complete."""

    @abstractmethod
    def place(self, key: str) -> Place:
        """Where the work on a stage lies, with all that was kept of it. Only a holder of the lease writes there."""

    @abstractmethod
    def settle(self) -> None:
        """Waits until all that `Place.keep` was called for has been kept, or has failed."""

    @abstractmethod
    def note_failure(self, key: str, line: str | None) -> None:
        """Leaves word of how the stage failed, for status and for the next run; None takes it back."""

    @abstractmethod
    def failure(self, key: str) -> str | None:
        """How the stage failed when it was last tried; None where it did not."""

    @abstractmethod
    def clear_work(self, key: str) -> None:
        """Removes the unfinished work on a stage, and the word of its failure, if any."""

    @abstractmethod
    def _register(self, key: str) -> Register:
        """The register of the stage's lease."""

    def together(self, word: str) -> "Store":
        """This store for processes that work on the same stages and say the same `word`: those on one machine share
        what they fetch."""
        return self

    def finish(self, key: str, config: dict[str, Any], kind: str, fill: Callable[[Path], None]) -> None:
        """`publish` of what `fill` writes into the folder, again and again for as long as disk or store refuse.

        Raises what `publish` and `fill` raise, and `StorageAway` when patience runs out.
        """

        def once() -> None:
            with self.publish(key, config, kind) as folder:
                fill(folder)

        persist(f"store={self.address}: publishing {key}", once)

    def metrics(self, key: str) -> dict[str, Any]:
        """The verified `metrics.json` of a complete stage. Raises `FileNotFoundError` where there is none."""
        metrics: dict[str, Any] = json.loads(self.read(key, "metrics.json"))
        return metrics

    def work(self, key: str) -> Path:
        """The folder of `place`."""
        return self.place(key).folder

    @contextmanager
    def lease(self, key: str, **options: Any) -> Iterator[Lease]:
        """Holds the lease of a stage, see `lease.hold`; while it does, `publish` refuses what is no longer ours."""
        with hold(self._register(checked(key)), **options) as held:
            self._leases[key] = held
            try:
                yield held
            finally:
                del self._leases[key]

    def require(self, key: str) -> None:
        """Raises `LeaseLost` where this process held the stage's lease and has lost it."""
        if (held := self._leases.get(key)) and held.lost:
            raise LeaseLost(f"{key}: another driver took over, because this one was not heard of for too long")

    def _missing(self, what: str) -> FileNotFoundError:
        return FileNotFoundError(f"{what}: not in the store {self.address}, or damaged there")


def checked(key: str) -> str:
    """A key that cannot leave its folder; raises `ValueError` for any other."""
    if not NAME.fullmatch(key):
        raise ValueError(f"{key!r} is no key of a stage")
    return key


def nothing() -> None:
    """What keeping takes where everything lies in the store already."""
