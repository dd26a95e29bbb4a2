"""Identity: what can change a result, as canonical JSON, and the short hashes that name stages and cells.

Two values have one key if and only if their canonical JSON is the same text. `1` and `1.0` are different texts;
settings are safe from that because pydantic coerces a number to the type of its field before it gets here.
"""

import errno
import hashlib
import json
import re
import stat
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

NAME = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,127}")
"""The form of a key: a file name on every system, never hidden, never an option of a command, short enough for the
suffixes that the store adds."""
_DIGITS = 8
_LEAVES = frozenset({type(None), bool, int, float, str})
_SETTLED = 2e9
"""Nanoseconds after a change before the hash of a file is cached: two changes within a tick of the file system's clock
may look like one."""
_frozen: dict[Path, str] | None = None
"""The contents that are frozen; None while files may change."""


def plain(value: Any) -> Any:
    """Returns `value` as types of JSON: models dumped, tuples as lists.

    Raises `TypeError` for any other type and for mapping keys that are not strings, which JSON would quietly convert.
    """
    # Nearly all values are leaves, and a plan of the whole paper asks a million times.
    if type(value) in _LEAVES:
        return value
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"the key {odd[0]!r} is not a string")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str | int | float):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no canonical form")


def canonical(value: Any) -> str:
    """Returns the canonical JSON of a value: sorted keys, no spaces, ASCII.

    Raises `TypeError` for what JSON cannot hold, `ValueError` for NaN and infinities.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """Returns the first 8 hexadecimal digits of the SHA-256 of the canonical JSON; raises what `canonical` raises."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()[:_DIGITS]


def stage_key(readable: str, identity: dict[str, Any]) -> str:
    """Returns `<readable>-<8 hex>`. Raises `ValueError` where `readable` cannot be part of a file name (see `NAME`)."""
    key = f"{readable}-{digest(identity)}"
    if not readable or not NAME.fullmatch(key):
        raise ValueError(f"{readable!r} does not match {NAME.pattern} as the readable part of a key")
    return key


def checked_key(key: str) -> str:
    """Returns `key`, which is safe as a file name; raises `ValueError` where it does not match `NAME`."""
    if not NAME.fullmatch(key):
        raise ValueError(f"{key!r} is no key of a stage")
    return key


def content_digest(paths: Iterable[Path]) -> str:
    """Returns 16 hexadecimal digits over the names (without folders) and bytes of files, in any order.

    Raises `OSError` for a file that cannot be read.
    """
    return _digest_of(tuple(sorted((path.name, _remembered(path)) for path in paths)))


def file_digest(path: Path) -> str:
    """Returns 16 hexadecimal digits over the bytes of a file, whatever it is called. Raises `OSError`."""
    return _remembered(path)[:16]


def regular_file(path: Path) -> Path:
    """Returns the path of a regular file. Raises `OSError` for anything else: who reads a FIFO waits for ever, and a
    device may have no end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return path


def sha256(path: Path) -> str:
    """Returns the 64 hexadecimal digits of a regular file's SHA-256. Raises `OSError`."""
    with regular_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def freeze_contents() -> None:
    """From now on in this process, a file has the content that it had when it was first asked for: the keys of a
    training that has begun must not follow a folder that is edited meanwhile."""
    global _frozen
    _frozen = {}


def _remembered(path: Path) -> str:
    """Returns `sha256(path)`, and reads the file again only if its size or its time of change differs; once contents
    are frozen, never."""
    if _frozen is not None:
        if path not in _frozen:
            _frozen[path] = sha256(path)
        return _frozen[path]
    status = path.stat()
    settled = time.time_ns() - status.st_mtime_ns > _SETTLED
    return _once(path, status.st_size, status.st_mtime_ns) if settled else sha256(path)


@cache
def _digest_of(named: tuple[tuple[str, str], ...]) -> str:
    return hashlib.sha256(canonical(named).encode("ascii")).hexdigest()[:16]


@cache
def _once(path: Path, size: int, changed: int) -> str:
    return sha256(path)


def difference(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """Returns `("corpus.multi", "1", "5")` for each leaf that differs, sorted by field; none if the keys agree.

    Values are in canonical JSON, None on a side that has no such leaf. Raises what `canonical` raises.
    """
    old, new = ({path: canonical(leaf) for path, leaf in leaves(plain(side))} for side in (a, b))
    return [
        (".".join(path), old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields the path and the value of every leaf of nested dicts. An empty dict is a leaf."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by their dotted names, such as `corpus.multi`. An empty dict is a leaf."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
