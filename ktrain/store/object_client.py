"""Object storage: one bucket with a prefix at Amazon, Google, Azure or any service that speaks S3, through `obstore`.

Credentials and endpoint come from the environment, under the names that `obstore` documents. Requests that fail are
repeated for a while (`retry_until`); every name here is relative to the prefix.
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
from ktrain.system.retry import StorageUnavailable, retry_until

SCHEMES = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}
"""Address schemes, and the prefix of the environment variables of each."""
CHUNK = 16 << 20
"""Bytes of a part of an object; several parts are transferred at once."""
AT_ONCE = 8
_CLIENT = ("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_excludes")
"""Connection options that the environment may set, too."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_SHORT = timedelta(seconds=4)
_LONG = timedelta(seconds=60)
_STATUS = re.compile(r"status code: (\d{3}[^:<\n]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_REFUSED = re.compile(r"status code: 40[013]|MissingSecret|MissingAccessKey|MissingKey")
Version = dict[str, str]
"""Identifies one version of an object: its ETag and version id, as far as the storage has them."""
T = TypeVar("T")


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing. `modified` is by the clock of the storage."""

    name: str
    size: int
    modified: datetime
    tag: str
    """Changes whenever the content does."""


class ObjectClient:
    """The objects below an address such as `s3://bucket/prefix`.

    Methods repeat failing requests for `patience` seconds (None: `PATIENCE`), then raise `StorageUnavailable`. `hasty`
    connections give up a request after a few seconds: for small requests that must not hang.
    """

    def __init__(self, address: str, *, patience: float | None = None, hasty: bool = False) -> None:
        """Sends no request. Raises `WrongRequest` for a malformed address or endpoint."""
        self.address = address
        self._patience, self._store = patience, _connected(address, hasty)

    def check(self) -> None:
        """Sends one request, of at most about ten seconds with `hasty`. Raises `WrongRequest` that says what to do
        where repeating would not help, else `StorageUnavailable`."""
        try:
            obstore.list_with_delimiter(self._store, "probe")
        except Exception as error:
            if advice := _advice(self.address, error):
                raise WrongRequest(f"store={self.address}: {advice}") from error
            first = SCHEMES[urlsplit(self.address).scheme]
            raise StorageUnavailable(
                f"store={self.address}: does not answer ({_reason(error)}); is the endpoint in {first}_* right, "
                "and can it be reached from here?"
            ) from error

    def get(self, name: str) -> tuple[bytes, Version] | None:
        """Returns the content of an object and its version; None where there is no such object."""

        def once() -> tuple[bytes, Version] | None:
            try:
                response = obstore.get(self._store, name)
                return bytes(response.bytes()), _version(response.meta)
            except FileNotFoundError:
                return None

        return self._retry(f"reading {name}", once)

    def size(self, name: str) -> int | None:
        """Returns the bytes of an object; None where there is no such object."""

        def once() -> int | None:
            try:
                return int(obstore.head(self._store, name)["size"])
            except FileNotFoundError:
                return None

        return self._retry(f"reading {name}", once)

    def download(self, name: str, path: Path) -> None:
        """Writes an object into a new file, part by part.

        Raises `FileNotFoundError` where there is no such object, `OSError` for the disk.
        """
        size = self.size(name)
        begins = range(0, size or 0, CHUNK)

        def part(begin: int) -> bytes | None:
            def once() -> bytes | None:
                try:
                    return bytes(obstore.get_range(self._store, name, start=begin, end=min(begin + CHUNK, size or 0)))
                except FileNotFoundError:
                    return None

            return self._retry(f"reading {name}", once)

        with path.open("xb") as file, ThreadPoolExecutor(AT_ONCE) as pool:
            for k in range(0, len(begins), AT_ONCE):
                for content in pool.map(part, begins[k : k + AT_ONCE]):
                    if content is None:
                        raise FileNotFoundError(name)
                    file.write(content)
        if size is None:
            raise FileNotFoundError(name)

    def put(self, name: str, content: bytes | Path) -> None:
        """Writes or overwrites an object, whole or not at all. Raises `OSError` for the file."""
        if isinstance(content, Path):
            content.stat()
        self._retry(f"writing {name}", lambda: obstore.put(self._store, name, content, chunk_size=CHUNK))

    def create(self, name: str, content: bytes) -> Version | None:
        """Writes an object that does not exist yet; returns None where another writer's does.

        No other writer may write the same `content`: by it, a repeated request recognises its own first attempt whose
        answer got lost.
        """
        return self._conditional_put(name, content, "create")

    def replace(self, name: str, content: bytes, version: Version) -> Version | None:
        """Overwrites an object if it still is `version`; returns None where it has changed. `content` as in `create`:
        of two writers of the same content both succeed."""
        return self._conditional_put(name, content, version)

    def entries(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yields all objects below a folder, in no particular order."""

        def once() -> list[Any]:
            return [meta for chunk in obstore.list(self._store, prefix) for meta in chunk]

        for meta in self._retry(f"listing {prefix}", once):
            tag = meta["e_tag"] or meta["version"] or f"{meta['last_modified']}"
            yield ObjectInfo(meta["path"], meta["size"], meta["last_modified"], tag)

    def folders(self, prefix: str) -> list[str]:
        """The names of the folders in a folder, without what comes before the last slash."""
        listing = self._retry(f"listing {prefix}", lambda: obstore.list_with_delimiter(self._store, prefix))
        return [name.rpartition("/")[2] for name in listing["common_prefixes"]]

    def remove(self, names: Iterable[str]) -> None:
        """Removes objects. An object that does not exist is no error."""

        def once(name: str) -> None:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda name: self._retry(f"removing {name}", lambda: once(name)), names):
                pass

    def _conditional_put(self, name: str, content: bytes, mode: Any) -> Version | None:
        def once() -> Version | None:
            try:
                return _version(obstore.put(self._store, name, content, mode=mode, use_multipart=False))
            except (AlreadyExistsError, PreconditionError):
                return None
            except FileNotFoundError:
                if mode == "create":
                    raise
                return None

        written = self._retry(f"writing {name}", once)
        if written is None and (stored := self.get(name)) is not None and stored[0] == content:
            # The answer to the first attempt got lost, and the second one met the object that the first had written.
            return stored[1]
        return written

    def _retry(self, doing: str, once: Callable[[], T]) -> T:
        return retry_until(f"store={self.address}: {doing}", once, passing=_transient_reason, patience=self._patience)


def _connected(address: str, hasty: bool) -> Any:
    first = SCHEMES[urlsplit(address).scheme]
    options: Any = {}
    for option in _CLIENT:
        value = os.environ.get(f"{first}_{option.upper()}")
        if value is not None:
            options[option] = value.lower() in ("true", "1", "yes", "on") if option.startswith("allow") else value
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
    # The library crashes on an endpoint that is not a URL.
    for name in _ENDPOINTS:
        if endpoint := os.environ.get(name):
            parts = urlsplit(endpoint)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise WrongRequest(f"{name}={endpoint}: must be an address such as https://host:9000")
            if parts.scheme == "http" and not allow_http:
                raise WrongRequest(f"{name}={endpoint}: is not encrypted; to use it all the same, AWS_ALLOW_HTTP=true")


def _advice(address: str, error: Exception) -> str:
    """What is wrong with a store and what to do, after a failed first request; empty where it only does not answer."""
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


def _transient_reason(error: BaseException) -> str | None:
    """Why a request failed. Every failure counts as transient: the first request to this store has succeeded."""
    return _reason(error) if isinstance(error, BaseError | FileNotFoundError) else None


def _reason(error: BaseException) -> str:
    text = str(error).partition("\n\nDebug source")[0]
    status, code = _STATUS.search(text), _CODE.search(text)
    if status:
        return " ".join([status[1].strip(), *([code[1]] if code else [])])
    return " ".join(text.rpartition(" - ")[2].split())[:200]


def _version(meta: Any) -> Version:
    return {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}
