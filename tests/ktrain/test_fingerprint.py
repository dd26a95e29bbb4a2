import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrain import fingerprint
from ktrain.config import CellConfig, TrainConfig
from ktrain.fingerprint import canonical, content_digest, difference, digest, stage_key

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3))
trees = st.dictionaries(st.text(min_size=1), values, min_size=1, max_size=4)
light = settings(max_examples=60, deadline=None)


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {key: shuffled(item, rng) for key, item in items}
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def paths_to_leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, item in pairs for found in paths_to_leaves(item, (*path, key))]
    return [path]


def replaced(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    if not path:
        return leaf
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], leaf)
    return copy


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def test_hash_of_a_fixed_identity_never_changes() -> None:
    identity = {"corpus": {"people": 500, "permute": 5, "fullname": False}, "rate": 1e-3, "name": "Zoë", "none": [None]}
    text = '{"corpus":{"fullname":false,"people":500,"permute":5},"name":"Zo\\u00eb","none":[null],"rate":0.001}'
    assert canonical(identity) == text
    assert stage_key("pretrain-gpt2", identity) == "pretrain-gpt2-c86bbe99"


@light
@given(trees, st.randoms(use_true_random=False))
def test_order_of_keys_is_irrelevant(tree: dict[str, Any], rng: random.Random) -> None:
    other = shuffled(tree, rng)
    assert digest(other) == digest(tree)
    assert difference(tree, other) == []


@light
@given(trees, leaves, st.data())
def test_any_changed_leaf_changes_the_digest(tree: dict[str, Any], leaf: Any, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(paths_to_leaves(tree)))
    other = replaced(tree, path, leaf)
    same = canonical(leaf) == canonical(at(tree, path))
    assert (digest(other) == digest(tree)) is same
    assert (difference(tree, other) == []) is same


@light
@given(trees, trees)
def test_no_difference_means_the_same_key(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (difference(a, b) == []) is (digest(a) == digest(b))


def test_types_of_leaves_matter_but_a_field_coerces_its_number() -> None:
    assert len({canonical(x) for x in (1, 1.0, "1", True, [1], None)}) == 6
    assert digest(TrainConfig(clip=1)) == digest(TrainConfig(clip=1.0))
    assert digest(CellConfig()) == digest(CellConfig().model_dump(mode="json"))
    assert digest({"cell": [CellConfig()]}) == digest({"cell": (CellConfig(),)})
    assert digest(CellConfig(seed=1)) != digest(CellConfig())


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_numbers_that_json_lacks_are_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical(value)


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {None: 1}}, {1, 2}, b"x", Path("x"), object()])
def test_types_that_json_lacks_are_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical(value)


@pytest.mark.parametrize("readable", ["", "Upper", "a b", "a/b", "..", ".hidden", "-x", "ü", "a\n", "x" * 120])
def test_readable_part_must_suit_a_file_name(readable: str) -> None:
    with pytest.raises(ValueError):
        stage_key(readable, {})


def test_readable_part_is_kept() -> None:
    assert stage_key("corpus-bios_5.multi+permute5", {}).startswith("corpus-bios_5.multi+permute5-")
    assert stage_key("x" * 119, {})


def test_content_is_names_and_bytes_in_any_order(tmp_path: Path) -> None:
    def written(folder: str, files: dict[str, bytes]) -> list[Path]:
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
        return [tmp_path / folder / name for name in files]

    first = written("1", {"a": b"xy", "b": b"z"})
    same = content_digest(first)
    assert same == content_digest(iter(reversed(first))) == content_digest(written("2", {"b": b"z", "a": b"xy"}))
    others = [{"a": b"x", "b": b"yz"}, {"a": b"z", "b": b"xy"}, {"a": b"xy", "c": b"z"}, {"a": b"xy"}]
    digests = {content_digest(written(f"other{i}", files)) for i, files in enumerate(others)}
    assert len(digests | {same}) == len(others) + 1
    with pytest.raises(FileNotFoundError):
        content_digest([tmp_path / "absent"])


def test_only_regular_files_are_hashed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("fifo", "device", "."):
        with pytest.raises(OSError, match="is no regular file"):
            fingerprint.sha256(tmp_path / name)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    whole = fingerprint.sha256

    def spy(path: Path) -> str:
        hashed.append(path)
        return whole(path)

    monkeypatch.setattr(fingerprint, "sha256", spy)
    fresh, old = tmp_path / "fresh", tmp_path / "old"
    fresh.write_bytes(b"0")
    old.write_bytes(b"0")
    os.utime(old, ns=(0, 1))
    first = [content_digest([fresh, old]) for _ in range(3)]
    # A file that was written a moment ago may be written again without its time telling.
    assert len(set(first)) == 1 and hashed.count(old) == 1 and hashed.count(fresh) == 3
    old.write_bytes(b"1")
    os.utime(old, ns=(0, 2))
    assert content_digest([fresh, old]) not in first and hashed.count(old) == 2


def test_difference_names_the_fields() -> None:
    a = {"seed": 0, "corpus": {"multi": 1, "kind": "bioS", "gone": True}, "list": [1, 2]}
    b = {"list": [1, 3], "corpus": {"kind": "bioR", "multi": 5, "new": {"x": 1}}, "seed": 0}
    assert difference(a, b) == [
        ("corpus.gone", "true", None),
        ("corpus.kind", '"bioS"', '"bioR"'),
        ("corpus.multi", "1", "5"),
        ("corpus.new.x", None, "1"),
        ("list", "[1,2]", "[1,3]"),
    ]
