"""A manifest vouches for itself, and a glance at a stage notices what has changed since it was published."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ktrain.fingerprint import sha256, stage_key
from ktrain.stages import Stage
from ktrain.store import manifest
from ktrain.store.base import Store
from ktrain.store.json_files import Damage, parse_json, parse_metrics
from ktrain.store.open import open_store

IDENTITY = {"kind": "pretrain", "train": {"learning_rate": 0.5, "steps": 90}, "seed": 1}
KEY = stage_key("pretrain", IDENTITY)
LATER = 4_000_000_000_000_000_000
"""Nanoseconds since the epoch, in the next century."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "results")


@pytest.fixture
def folder(store: Store) -> Path:
    """A published stage."""
    store.publish_files(Stage("pretrain", KEY, IDENTITY), {"model/weights": b"weights", "metrics.json": {"loss": 1.5}})
    found = store.fetch(KEY)
    assert found is not None
    return found


def damage(content: bytes) -> str | None:
    try:
        manifest.parse(content, KEY)
    except Damage as found:
        return str(found)
    return None


# The manifest itself.


def test_every_flipped_bit_of_a_manifest_is_noticed(folder: Path) -> None:
    content = (folder / "manifest.json").read_bytes()
    assert damage(content) is None
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        assert damage(bytes(flipped)), bit


def test_every_cut_and_every_added_byte_is_noticed(folder: Path) -> None:
    content = (folder / "manifest.json").read_bytes()
    assert all(damage(content[:length]) for length in range(len(content)))
    assert damage(content + b"\n") and damage(b" " + content)


def test_an_edited_value_is_named(folder: Path) -> None:
    content = (folder / "manifest.json").read_bytes()
    edited = content.replace(b'"learning_rate": 0.5', b'"learning_rate": 99 ')
    assert edited != content and damage(edited) == "manifest.json has other content than when it was published"


def older(folder: Path) -> dict[str, Any]:
    """The manifest as versions wrote it that knew no checksum."""
    whole: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    del whole["checksum"]
    return whole


def test_a_stage_from_before_checksums_is_done(store: Store, folder: Path) -> None:
    (folder / "manifest.json").write_text(manifest.text(older(folder)))
    assert store.fetch(KEY) == folder and store.verify(KEY) is None and store.snapshot().done.keys() == {KEY}


def test_the_config_of_an_older_manifest_has_to_be_that_of_its_key(store: Store, folder: Path) -> None:
    whole = older(folder)
    whole["config"]["train"]["learning_rate"] = 99
    (folder / "manifest.json").write_text(manifest.text(whole))
    finding = "manifest.json holds another config than that of its key"
    assert store.snapshot().damaged == {KEY: finding} and store.verify(KEY) == finding


def test_an_older_manifest_has_no_other_fields(folder: Path) -> None:
    """Or a flip in the name of the checksum would make a manifest an older one."""
    assert damage(manifest.text({**older(folder), "checksun": "0"}).encode())


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


MALFORMED = {
    "kind": [None, 3, ["pretrain"]],
    "created": [None, 3],
    "started": [None, 3],
    "versions": [None, [], {"torch": 2}, {"to\0rch": "2"}],
    "config": [None, [], "x"],
    "files": [
        None,
        [],
        {"a": None},
        {"a": {}},
        {"a": {"size": "1", "sha256": "0" * 64}},
        {"a": {"size": True, "sha256": "0" * 64}},
        {"a": {"size": -1, "sha256": "0" * 64}},
        {"a": {"size": 1, "sha256": 0}},
        {"a": {"size": 1, "sha256": "0" * 63}},
        *(
            {name: {"size": 1, "sha256": "0" * 64}}
            for name in ("", ".", "/a", "a//b", "../a", "a/../b", "a\0", "\ud800")
        ),
    ],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in MALFORMED.items() for value in values]
)
def test_fields_of_wrong_types_are_damage(folder: Path, field: str, value: Any) -> None:
    for whole in (older(folder) | {field: value}, manifest.with_checksum(older(folder) | {field: value})):
        assert damage(manifest.text(whole).encode()) == "manifest.json is not readable as the manifest of this stage"


@pytest.mark.parametrize("whole", [[], 1, None, {}, {"key": KEY}, nested(900)])
def test_other_values_are_no_manifest(whole: Any) -> None:
    assert damage(json.dumps(whole).encode()) == "manifest.json is not readable as the manifest of this stage"


def test_a_config_nested_deep_is_damage(folder: Path) -> None:
    text = manifest.text(older(folder) | {"config": {"a": "HERE"}}).replace('"HERE"', "[" * 900 + "]" * 900)
    assert damage(text.encode())


# JSON files.

NOT_JSON = [
    b"",
    b"{",
    b"\xff",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 5_000,
    b"NaN",
    b"-Infinity",
]


@pytest.mark.parametrize("content", NOT_JSON)
def test_what_is_not_json_is_damage(content: bytes) -> None:
    with pytest.raises(Damage, match=r"^curve\.json is not readable as JSON$"):
        parse_json(content, "curve.json")


NO_METRICS = [b"[]", b"3", b"null", b'{"a": null}', b'{"a": "1"}', b'{"a": true}', b'{"a": [1]}', b'{"a": 1e999}']
NO_METRICS += [b'{"a": 1' + b"0" * 400 + b"}", b'{"a\\u0000": 1}', b'{"\\ud800": 1}', b'{"a\\n": 1}']


@pytest.mark.parametrize("content", NO_METRICS)
def test_metrics_are_finite_numbers_by_name(content: bytes) -> None:
    with pytest.raises(Damage, match=r"^metrics\.json does not hold numbers by name$"):
        parse_metrics(content)


@pytest.mark.parametrize("content", [*NOT_JSON, *NO_METRICS])
def test_malformed_metrics_are_damage_though_the_manifest_vouches_for_them(
    store: Store, folder: Path, content: bytes
) -> None:
    (folder / "metrics.json").write_bytes(content)
    whole = older(folder)
    whole["files"]["metrics.json"] = {"size": len(content), "sha256": sha256(folder / "metrics.json")}
    (folder / "manifest.json").write_text(manifest.text(manifest.with_checksum(whole)))
    assert store.snapshot().damaged.keys() == {KEY}
    with pytest.raises(FileNotFoundError, match=f"metrics.json of {KEY}"):
        store.metrics(KEY)
    assert store.fetch(KEY) is None and not store.exists(KEY)


# What a glance notices.


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from now on, in a process that has read none."""
    read: list[str] = []
    monkeypatch.setattr(manifest, "_verified", {})
    monkeypatch.setattr(manifest, "sha256", lambda path: read.append(path.name) or sha256(path))
    return read


def test_an_unchanged_stage_costs_its_metrics_alone(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(folder / "manifest.json", ns=(LATER, LATER))
    read = counted(monkeypatch)
    assert store.snapshot().done.keys() == {KEY} and read == ["metrics.json"]


def test_sizes_are_always_compared(store: Store, folder: Path) -> None:
    os.truncate(folder / "model" / "weights", 3)
    os.utime(folder / "manifest.json", ns=(LATER, LATER))
    assert store.snapshot().damaged == {KEY: "model/weights has 3 bytes instead of 7"}
    (folder / "model" / "weights").unlink()
    assert store.snapshot([KEY]).damaged == {KEY: "model/weights is missing"}


def test_a_file_that_changed_later_than_the_manifest_is_read(store: Store, folder: Path) -> None:
    (folder / "model" / "weights").write_bytes(b"WEIGHTS")
    os.utime(folder / "model" / "weights", (1, 1))
    os.utime(folder / "manifest.json", (2, 2))
    seen = store.snapshot()
    assert not seen.done
    assert seen.damaged == {KEY: "model/weights has other content than when it was published"}
    assert (folder / "manifest.json").stat().st_mtime == 2, "so that the next look notices it too"


def test_a_copied_stage_is_read_once(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(folder / "manifest.json", (2, 2))
    read = counted(monkeypatch)
    assert store.snapshot().done.keys() == {KEY} and sorted(read) == ["metrics.json", "weights"]
    read = counted(monkeypatch)
    assert store.snapshot().done.keys() == {KEY} and read == ["metrics.json"]


def test_verifying_reads_what_was_read_before(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = counted(monkeypatch)
    assert store.fetch(KEY) == folder and store.verify(KEY) is None
    assert sorted(read) == ["metrics.json", "metrics.json", "weights", "weights"]


def test_verifying_moves_a_damaged_stage_aside(store: Store, folder: Path) -> None:
    weights = folder / "model" / "weights"
    weights.write_bytes(b"WEIGHTS")
    finding = "model/weights has other content than when it was published"
    assert store.verify(KEY) == finding and store.verify(KEY) is None
    aside = store.snapshot([KEY])
    assert aside.damaged == {KEY: f"moved to {folder.parents[1] / 'damaged' / KEY}-1"} and not aside.done
    store.publish_files(Stage("pretrain", KEY, IDENTITY), {"metrics.json": {"loss": 1.5}})
    assert not store.snapshot([KEY]).damaged


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_a_stage_without_a_manifest_is_present_and_damaged(store: Store, make: Any) -> None:
    make(store.root / "stages" / KEY)
    assert store.complete() == [] and store.present() == [KEY]
    assert store.snapshot([KEY]).damaged == {KEY: "manifest.json is missing"}
    assert store.verify(KEY) == "manifest.json is missing" and store.present() == []


def test_a_stage_is_set_aside_for_what_its_files_do_not_show(store: Store, folder: Path) -> None:
    store.set_aside(KEY, "its metrics are made up")
    store.set_aside(KEY, "its metrics are made up")
    assert not store.exists(KEY) and [path.name for path in (store.root / "damaged").iterdir()] == [f"{KEY}-1"]


def test_a_failure_that_is_not_text_is_shown_all_the_same(store: Store) -> None:
    store.note_failure(KEY, "x")
    (store.root / "work" / KEY / "failure.txt").write_bytes(b"\xff\0")
    assert store.snapshot([KEY]).failures[KEY]
