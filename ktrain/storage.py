"""Object storage: one bucket with a prefix, at Amazon, Google, Azure or whatever speaks S3, through `obstore`.

Credentials and endpoint come from the environment, under the names that `obstore` documents. What fails for a while is
tried again (`patience.persist`); every name here is relative to the prefix.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from ktrain.errors import WrongRequest
from ktrain.patience import StorageAway, persist

SCHEMES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""How addresses begin, and the first word of the environment variables of each."""
CHUNK = 16 << 20
"""Bytes of a piece of an object; several travel at once."""
AT_ONCE = 8
_CLIENT = ("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_excludes")
"""Options of connections that may be set in the environment too."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_SHORT = timedelta(seconds=4)
_LONG = timedelta(seconds=60)
_STATUS = re.compile(r"status code: (\d{3}[^:<\n]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_REFUSED = re.compile(r"status code: 40[013]|MissingSecret|MissingAccessKey|MissingKey")
_Seen = dict[str, str]
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One object of a listing. `modified` is by the clock of the store."""

    name: str
    size: int
    modified: datetime
    tag: str
    """Another one as soon as the content is."""


class Objects:
    """The objects below an address such as `s3://bucket/prefix`.

    Methods raise `StorageAway` when `patience` seconds (None: `PATIENCE`) were not enough. `hasty` connections give up
    a request after a few seconds: for what is small and must not hang.
    """

    def __init__(self, address: str, *, patience: float | None = None, hasty: bool = False) -> None:
        """Looks at nothing. Raises `WrongRequest` for an address or an endpoint that cannot be one."""
        self.address = address
        self._patience, self._store = patience, _connected(address, hasty)

    def check(self) -> None:
        """One look, with `hasty` some ten seconds long at most. Raises `WrongRequest` that says what to do where that
        would be no use to repeat, else `StorageAway`."""
        try:
            obstore.list_with_delimiter(self._store, "probe")
        except Exception as error:
            if advice := _advice(self.address, error):
                raise WrongRequest(f"store={self.address}: {advice}") from error
            first = SCHEMES[urlsplit(self.address).scheme]
            told = f"store={self.address}: does not answer ({_reason(error)})"
            raise StorageAway(
                f"{told}; is the endpoint in {first}_* right, and can it be reached from here?"
            ) from error

    def get(self, name: str) -> tuple[bytes, _Seen] | None:
        """The content of an object, and which version of it that is; None where there is none."""

        def once() -> tuple[bytes, _Seen] | None:
            try:
                found = obstore.get(self._store, name)
                return bytes(found.bytes()), _seen(found.meta)
            except FileNotFoundError:
                return None

        return self._persist(f"reading {name}", once)

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""

        def once() -> int | None:
            try:
                return int(obstore.head(self._store, name)["size"])
            except FileNotFoundError:
                return None

        return self._persist(f"reading {name}", once)

    def download(self, name: str, path: Path) -> None:
        """Writes an object into a new file, piece by piece.

        Raises `FileNotFoundError` where there is no such object, `OSError` for the disk.
        """
        size = self.size(name)
        begins = range(0, size or 0, CHUNK)

        def piece(begin: int) -> bytes | None:
            def once() -> bytes | None:
                try:
                    return bytes(obstore.get_range(self._store, name, start=begin, end=min(begin + CHUNK, size or 0)))
                except FileNotFoundError:
                    return None

            return self._persist(f"reading {name}", once)

        with path.open("xb") as file, ThreadPoolExecutor(AT_ONCE) as pool:
            for k in range(0, len(begins), AT_ONCE):
                for content in pool.map(piece, begins[k : k + AT_ONCE]):
                    if content is None:
                        raise FileNotFoundError(name)
                    file.write(content)
        if size is None:
            raise FileNotFoundError(name)

    def put(self, name: str, content: bytes | Path) -> None:
        """Writes an object, whole or not at all, over whatever is there. Raises `OSError` for the file."""
        if isinstance(content, Path):
            content.stat()
        self._persist(f"writing {name}", lambda: obstore.put(self._store, name, content, chunk_size=CHUNK))

    def create(self, name: str, content: bytes) -> _Seen | None:
        """Writes an object that is not there yet; None where another writer's is.

        `content` must be one that nobody else writes: then an answer that got lost does no harm.
        """
        return self._decide(name, content, "create")

    def replace(self, name: str, content: bytes, seen: _Seen) -> _Seen | None:
        """Writes over the version `seen` and nothing else; None where there is another now. `content` as in `create`.

        Two writers of the same content are one, and both succeed.
        """
        return self._decide(name, content, seen)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects below a folder, in no order."""

        def once() -> list[Any]:
            return [found for chunk in obstore.list(self._store, prefix) for found in chunk]

        for found in self._persist(f"listing {prefix}", once):
            tag = found["e_tag"] or found["version"] or f"{found['last_modified']}"
            yield Entry(found["path"], found["size"], found["last_modified"], tag)

    def folders(self, prefix: str) -> list[str]:
        """The last part of the names of the folders in a folder."""
        found = self._persist(f"listing {prefix}", lambda: obstore.list_with_delimiter(self._store, prefix))
        return [name.rpartition("/")[2] for name in found["common_prefixes"]]

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects; those that are not there are no error."""

        def once(name: str) -> None:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda name: self._persist(f"removing {name}", lambda: once(name)), names):
                pass

    def _decide(self, name: str, content: bytes, mode: Any) -> _Seen | None:
        def once() -> _Seen | None:
            try:
                return _seen(obstore.put(self._store, name, content, mode=mode, use_multipart=False))
            except (AlreadyExistsError, PreconditionError):
                return None
            except FileNotFoundError:
                if mode == "create":
                    raise
                return None

        written = self._persist(f"writing {name}", once)
        if written is None and (found := self.get(name)) is not None and found[0] == content:
            # The first answer got lost, and what was tried again met its own work.
            return found[1]
        return written

    def _persist(self, doing: str, once: Callable[[], T]) -> T:
        return persist(f"store={self.address}: {doing}", once, passing=_passing, patience=self._patience)


def _connected(address: str, hasty: bool) -> Any:
    first = SCHEMES[urlsplit(address).scheme]
    named = {option: os.environ.get(f"{first}_{option.upper()}") for option in _CLIENT}
    options: Any = {
        option: value.lower() in ("true", "1", "yes", "on") if option.startswith("allow") else value
        for option, value in named.items()
        if value is not None
    }
    if first == "AWS":
        _check_endpoint(bool(options.get("allow_http")))
    options |= {"connect_timeout": timedelta(seconds=3), "timeout": _SHORT if hasty else _LONG}
    pauses = {"init_backoff": _SHORT / 40, "max_backoff": _SHORT / 4, "base": 2}
    tries: Any = {"max_retries": 1 if hasty else 2, "retry_timeout": _SHORT, "backoff": pauses}
    try:
        return from_url(address, client_options=options, retry_config=tries)
    except (BaseError, ValueError) as error:
        raise WrongRequest(f"store={address}: {_advice(address, error) or _reason(error)}") from error


def _check_endpoint(allow_http: bool) -> None:
    # The library does not survive an endpoint that is no address.
    for name in _ENDPOINTS:
        if endpoint := os.environ.get(name):
            found = urlsplit(endpoint)
            if found.scheme not in ("http", "https") or not found.hostname:
                raise WrongRequest(f"{name}={endpoint}: must be an address such as https://host:9000")
            if found.scheme == "http" and not allow_http:
                raise WrongRequest(f"{name}={endpoint}: is not encrypted; to use it all the same, AWS_ALLOW_HTTP=true")


def _advice(address: str, error: Exception) -> str:
    """What is wrong at the first look at a store, and what to do; empty where it only does not answer."""
    parts, text, why = urlsplit(address), str(error), _reason(error)
    first = SCHEMES[parts.scheme]
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _REFUSED.search(text):
        return f"access is refused ({why}); set credentials that may list, read, write and delete, in {first}_*"
    if "169.254.169.254" in text or "metadata" in text:
        return f"no credentials: none are set in {first}_*, and this machine has no role"
    if "Account must be" in text:
        return "no account; set AZURE_STORAGE_ACCOUNT_NAME"
    if "status code: 404" in text:
        kind = "container" if first == "AZURE" else "bucket"
        return f"there is no {kind} {parts.netloc} at this endpoint ({why}); create it, or set {first}_*"
    if "configured region" in text:
        return f"the bucket is in another region ({why}); set {first}_REGION"
    return ""


def _passing(error: BaseException) -> str | None:
    """Why a request failed. Nothing is taken for final: after the first look, all that fails has worked before."""
    return _reason(error) if isinstance(error, BaseError | FileNotFoundError) else None


def _reason(error: BaseException) -> str:
    text = str(error).partition("\n\nDebug source")[0]
    status, code = _STATUS.search(text), _CODE.search(text)
    if status:
        return " ".join([status[1].strip(), *([code[1]] if code else [])])
    return " ".join(text.rpartition(" - ")[2].split())[:200]


def _seen(found: Any) -> _Seen:
    return {name: found[name] for name in ("e_tag", "version") if found.get(name)}
