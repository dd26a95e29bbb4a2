"""Every kind of damage to every file of a finished store."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ktrain.fingerprint import sha256
from ktrain.store import manifest

Change = Callable[[Path], None]
"""Damages a file, which is there before."""


@dataclass(frozen=True)
class Damage:
    """One damage to one file of a stage."""

    name: str
    key: str
    file: str
    change: Change
    subtle: bool = False
    """Whether the manifest was changed with the file, so that only reading shows it and a glance need not."""

    def inflict(self, store: Path) -> None:
        """Damages the store. The file's time of change is later than that of the stage's manifest."""
        stage = store / "stages" / self.key
        published = (stage / manifest.NAME).stat().st_mtime_ns
        path = stage / self.file
        self.change(path)
        while path.is_file() and path.stat().st_ctime_ns <= published:
            os.utime(path)


def flip(place: float, bit: int) -> Change:
    """Flips a bit of the byte at a place between the file's begin, 0, and end, 1."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[min(int(place * len(content)), len(content) - 1)] ^= 1 << bit
        path.write_bytes(content)

    return change


def truncate(share: float) -> Change:
    """Cuts a file to a share of its bytes, and at least by one."""

    def change(path: Path) -> None:
        size = path.stat().st_size
        os.truncate(path, min(int(share * size), size - 1))

    return change


def write(content: bytes) -> Change:
    """Replaces the content."""

    def change(path: Path) -> None:
        path.write_bytes(content)

    return change


def append(path: Path) -> None:
    """Adds a byte."""
    path.write_bytes(path.read_bytes() + b"\n")


def zero(path: Path) -> None:
    """Keeps the size, and nothing else, as a file system does after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


def into_folder(path: Path) -> None:
    """A folder in the file's place."""
    path.unlink()
    path.mkdir()


def into_full_folder(path: Path) -> None:
    """The file in a folder of its name."""
    content = path.read_bytes()
    into_folder(path)
    (path / path.name).write_bytes(content)


def with_file(other: str) -> Change:
    """Puts another file of the store in the file's place; `other` is its path within `stages`."""

    def change(path: Path) -> None:
        stages = next(parent for parent in path.parents if parent.name == "stages")
        content = (stages / other).read_bytes()
        path.write_bytes(content if content != path.read_bytes() else content + b" ")

    return change


def vouched(change: Change) -> Change:
    """Makes the manifest vouch for the changed file."""

    def both(path: Path) -> None:
        change(path)
        stage = next(parent for parent in path.parents if parent.parent.name == "stages")
        whole = json.loads((stage / manifest.NAME).read_bytes())
        whole["files"][path.relative_to(stage).as_posix()] = {"size": path.stat().st_size, "sha256": sha256(path)}
        (stage / manifest.NAME).write_text(manifest.text(manifest.with_checksum(whole)))

    return both


def edit(update: Callable[[Any], Any]) -> Change:
    """Changes the value of a JSON file."""

    def change(path: Path) -> None:
        path.write_text(json.dumps(update(json.loads(path.read_bytes())), indent=1))

    return change


def spread(path: Path) -> None:
    """Writes a JSON file with more spaces."""
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=2))


def without(name: str) -> Change:
    """Removes a field of a JSON object."""
    return edit(lambda value: {key: inner for key, inner in value.items() if key != name})


MALFORMED = {
    "empty": b"",
    "half": b'{"a": [1, 2',
    "not text": b"\xff\xfe\x00\x80",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "NUL in a name": b'{"a\\u0000": 1}',
    "surrogate": b'{"\\ud800": 1}',
    "list": b"[1, 2]",
    "null": b"null",
    "number": b"7",
    "text in place of numbers": b'{"a": "1"}',
    "nested numbers": b'{"a": {"b": 1}}',
    "NaN": b'{"a": NaN}',
    "5,000 digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "infinite": b'{"a": 1e999}',
}
EVERYWHERE: dict[str, Change] = {
    "first byte flipped": flip(0.0, 0),
    "bit flipped at a third": flip(0.33, 3),
    "bit flipped in the middle": flip(0.5, 5),
    "last byte flipped": flip(1.0, 1),
    "emptied": truncate(0.0),
    "cut in half": truncate(0.5),
    "cut by a byte": truncate(1.0),
    "a byte longer": append,
    "zeroed": zero,
    "deleted": Path.unlink,
    "folder in its place": into_folder,
    "folder with it in its place": into_full_folder,
}


def other_seed(value: Any) -> Any:
    """A manifest with another config."""
    return value | {"config": value["config"] | {"seed": 99}}


MANIFEST: dict[str, Change] = {
    "config edited": edit(other_seed),
    "config edited, checksum removed": edit(
        lambda value: other_seed({k: v for k, v in value.items() if k != "checksum"})
    ),
    "config edited, checksum made again": edit(lambda value: manifest.with_checksum(other_seed(value))),
    "checksum of another name": edit(
        lambda value: {"checksun" if key == "checksum" else key: inner for key, inner in value.items()}
    ),
    "versions edited": edit(lambda value: value | {"versions": {"torch": "0"}}),
    "files forgotten": edit(lambda value: value | {"files": {}}),
    **{f"no {field}": without(field) for field in ("key", "kind", "config", "files", "versions", "created")},
    "spaces": spread,
    "a file elsewhere": edit(
        lambda value: manifest.with_checksum(
            value | {"files": value["files"] | {"../../../x": {"size": 1, "sha256": "0" * 64}}}
        )
    ),
}


def every(store: Path) -> Iterator[Damage]:
    """Yields every damage to every file of every stage of a store."""
    for stage in sorted((store / "stages").iterdir()):
        for path in sorted(path for path in stage.rglob("*") if path.is_file()):
            yield from _of_file(store, stage.name, path.relative_to(stage).as_posix())


def _of_file(store: Path, key: str, file: str) -> Iterator[Damage]:
    def damage(name: str, change: Change, subtle: bool = False) -> Damage:
        return Damage(name, key, file, change, subtle)

    for name, change in EVERYWHERE.items():
        yield damage(name, change)
    for other in _others(store, key, file):
        yield damage(f"{other} in its place", with_file(other))
    if file == manifest.NAME:
        for name, change in MANIFEST.items():
            yield damage(name, change)
    if file.endswith(".json"):
        for name, content in MALFORMED.items():
            yield damage(name, write(content))
    if file in ("metrics.json", "counts.json", "curve.json", "learning.json", "tasks.json"):
        for name, content in MALFORMED.items():
            yield damage(f"{name}, vouched for", vouched(write(content)), subtle=True)
    if file == "metrics.json" and (store / "stages" / key / "predictions.parquet").is_file():
        for name, value in json.loads((store / "stages" / key / file).read_bytes()).items():
            if name.startswith(("qa/", "mixed/", "q_probe/")) and name.endswith("/mean"):
                other = edit(lambda metrics, name=name, value=value: metrics | {name: abs(value - 0.25)})
                yield damage(f"another {name}, vouched for", vouched(other), subtle=True)
        for name in ("qa/planted", "q_probe/first/planted", "baseline/planted"):
            planted = edit(lambda metrics, name=name: metrics | {name: 0.99})
            yield damage(f"{name} added, vouched for", vouched(planted), subtle=True)
    if file == "predictions.parquet":
        yield damage("not a table, vouched for", vouched(write(b"PAR1 PAR1")), subtle=True)
        yield damage("cut, vouched for", vouched(truncate(0.9)), subtle=True)


def _others(store: Path, key: str, file: str) -> Iterator[str]:
    """The file of the same name in another stage, and another file of the same stage."""
    stages = store / "stages"
    same = [stage.name for stage in sorted(stages.iterdir()) if stage.name != key and (stage / file).is_file()]
    yield from (f"{other}/{file}" for other in same[:1])
    mine = sorted(path.relative_to(stages).as_posix() for path in (stages / key).rglob("*") if path.is_file())
    yield from [other for other in mine if other != f"{key}/{file}"][:1]
