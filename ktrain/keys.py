"""Identity: what can change a result, as canonical JSON, and the short hashes that name stages and cells.

Two values have one key if and only if their canonical JSON is the same text. `1` and `1.0` are different texts;
settings are safe from that because pydantic coerces a number to the type of its field before it gets here.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

NAME = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,127}")
"""What a key may look like: a file name everywhere, never hidden, never an option of a command, short enough for
the suffixes that the store adds."""
_DIGITS = 8


def plain(value: Any) -> Any:
    """`value` as what JSON can hold: models dumped, tuples as lists.

    Raises `TypeError` for any other type and for mapping keys that are not strings, which JSON would quietly convert.
    """
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, dict):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"the key {odd[0]!r} is not a string")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no canonical form")


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII.

    Raises `TypeError` for what JSON cannot hold, `ValueError` for NaN and infinities.
    """
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """The first 8 hexadecimal digits of the SHA-256 of the canonical JSON; raises what `canonical` raises."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()[:_DIGITS]


def stage_key(readable: str, identity: dict[str, Any]) -> str:
    """`<readable>-<8 hex>`. Raises `ValueError` where `readable` cannot be part of a file name (see `NAME`)."""
    key = f"{readable}-{digest(identity)}"
    if not readable or not NAME.fullmatch(key):
        raise ValueError(f"{readable!r} does not match {NAME.pattern} as the readable part of a key")
    return key


def content_digest(paths: Iterable[Path]) -> str:
    """16 hexadecimal digits over the names (without folders) and bytes of files, in whatever order they come.

    Raises `OSError` for a file that cannot be read.
    """
    named = sorted([path.name, _unchanged(path, path.stat().st_mtime_ns, path.stat().st_size)] for path in paths)
    return hashlib.sha256(canonical(named).encode("ascii")).hexdigest()[:16]


@cache
def _unchanged(path: Path, changed: int, size: int) -> str:
    """The SHA-256 of a file, read once as long as it has this time of change and size."""
    return sha256(path)


def sha256(path: Path) -> str:
    """All 64 hexadecimal digits of a file's SHA-256, read in pieces. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def difference(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """One line `corpus.multi: 1 -> 5` for each leaf that differs, sorted by field; none if and only if the keys agree.

    Values are in canonical JSON; a field that only one side has is `absent` on the other. Raises what `canonical`
    raises.
    """
    return [f"{'.'.join(path)}: {old} -> {new}" for path, old, new in _differences(plain(a), plain(b), ())]


def _differences(a: Any, b: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    for key in sorted(a.keys() | b.keys()):
        here = (*path, key)
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            yield from _differences(a[key], b[key], here)
            continue
        old, new = (canonical(side[key]) if key in side else "absent" for side in (a, b))
        if old != new:
            yield here, old, new
