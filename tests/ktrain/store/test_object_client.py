"""Object storage over real HTTP: what is asked of it, faults on the way, and what a user is told."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ktrain.errors import WrongRequest
from ktrain.store import object_client
from ktrain.store.object_client import ObjectClient
from ktrain.store.open import open_store, store_at
from ktrain.system import retry
from ktrain.system.retry import StorageUnavailable


@pytest.fixture
def objects(s3: str) -> ObjectClient:
    return ObjectClient(s3)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test can wait for."""
    monkeypatch.setattr(retry, "_PAUSES", (0.01, 0.05))


def failing(times: int, status: int | None) -> Callable[..., int | None]:
    """A fault for so many requests."""
    left = [times]

    def fault(*_: object) -> int | None:
        left[0] -= 1
        return status if left[0] >= 0 else None

    return fault


# What is asked of a storage.


def test_objects_are_written_read_listed_and_removed(objects: ObjectClient, tmp_path: Path) -> None:
    assert objects.get("a/b") is None and objects.size("a/b") is None and list(objects.entries("a")) == []
    objects.put("a/b", b"one")
    objects.put("a/b~c/ü 1%", b"")
    objects.put("ab", b"other folder")
    assert objects.size("a/b") == 3
    found = objects.get("a/b")
    assert found is not None and found[0] == b"one"
    assert {(entry.name, entry.size) for entry in objects.entries("a")} == {("a/b", 3), ("a/b~c/ü 1%", 0)}
    assert objects.folders("a") == ["b~c"] and objects.folders("none") == []
    objects.remove(["a/b", "not there"])
    assert objects.get("a/b") is None


def test_an_object_is_created_once_and_replaced_by_who_has_seen_it(objects: ObjectClient) -> None:
    first = objects.create("a", b"1")
    assert first is not None and objects.create("a", b"2") is None
    second = objects.replace("a", b"2", first)
    assert second is not None and objects.replace("a", b"3", first) is None
    assert objects.replace("none", b"4", first) is None and objects.get("none") is None
    assert objects.get("a") == (b"2", second)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1700])
def test_large_objects_travel_in_pieces(objects: ObjectClient, tmp_path: Path, monkeypatch: Any, size: int) -> None:
    content = os.urandom(size)
    objects.put("large", content)
    monkeypatch.setattr(object_client, "CHUNK", 100)
    objects.download("large", tmp_path / "large")
    assert (tmp_path / "large").read_bytes() == content
    with pytest.raises(FileExistsError):
        objects.download("large", tmp_path / "large")


def test_a_large_file_is_uploaded_in_parts(objects: ObjectClient, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(object_client, "CHUNK", 5 << 20)
    content = os.urandom(11 << 20)
    (tmp_path / "file").write_bytes(content)
    objects.put("file", tmp_path / "file")
    objects.download("file", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


def test_what_is_not_there_is_told_at_once(objects: ObjectClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        objects.put("a", tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        objects.download("a", tmp_path / "a")


# Faults on the way.


@pytest.mark.parametrize("status", [503, 500, 429, 403, 0])
def test_what_fails_for_a_while_is_tried_again_and_told_once(
    proxy: Any, objects: ObjectClient, hurried: None, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    objects = ObjectClient(objects.address)
    proxy.before = failing(8, status)
    objects.put("a", b"1")
    assert objects.get("a") is not None and len(proxy.requests) > 8
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert told.startswith(f"store={objects.address}: writing a: ") and "trying again for up to 150 s" in told


def test_patience_ends_in_one_line(proxy: Any, s3: str, hurried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PATIENCE", 0.2)
    proxy.before = failing(10**6, 503)
    objects = ObjectClient(s3)
    for call in (
        lambda: objects.get("a"),
        lambda: objects.put("a", b"1"),
        lambda: objects.create("a", b"1"),
        lambda: list(objects.entries("a")),
        lambda: objects.remove(["a"]),
    ):
        begin = time.monotonic()
        with pytest.raises(
            StorageUnavailable, match=rf"^store={s3}: \w+ a: 503 Service Unavailable Fault, tried"
        ) as caught:
            call()
        assert "\n" not in str(caught.value) and time.monotonic() - begin < 20


@pytest.mark.parametrize("update", [False, True])
def test_an_answer_that_gets_lost_does_not_make_a_writer_its_own_rival(
    proxy: Any, s3: str, hurried: None, update: bool
) -> None:
    objects = ObjectClient(s3)
    seen = objects.create("a", b"0") if update else None
    lost = failing(1, True)
    proxy.after = lambda method, _: method == "PUT" and lost()
    written = objects.replace("a", b"1", seen) if seen else objects.create("a", b"1")
    assert written is not None and objects.get("a") == (b"1", written)
    assert objects.create("a", b"2") is None


# What a user is told.


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ftp://host/x", "must be a folder or an address, s3://, gs://, az://"),
        ("s4://bucket/x", "did you mean s3?"),
        ("s3:/bucket/x", "must be s3://BUCKET/PREFIX"),
        ("s3:///x", "must be s3://BUCKET/PREFIX"),
        ("s3://bucket/x?versionId=1", "must be s3://BUCKET/PREFIX"),
        ("gs://", "must be gs://BUCKET/PREFIX"),
        ("az://container/x", "no account; set AZURE_STORAGE_ACCOUNT_NAME"),
        ("s3://no-such-bucket/x", "there is no bucket no-such-bucket at this endpoint (404 Not Found NoSuchBucket)"),
    ],
)
def test_an_address_that_cannot_be_is_a_wrong_request(s3: str, address: str, told: str) -> None:
    with pytest.raises(WrongRequest, match=f"^store={address[:6]}") as caught:
        store_at(address)
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "does not answer (HTTP error: error sending request)"),
        ({"AWS_ENDPOINT_URL": "http://nowhere.invalid"}, "does not answer"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "AWS_ENDPOINT_URL=nonsense: must be an address"),
        ({"AWS_ENDPOINT_URL": "http://"}, "must be an address"),
        ({"AWS_ENDPOINT_URL": "ftp://host"}, "must be an address"),
        ({"AWS_ALLOW_HTTP": None}, "is not encrypted"),
        ({"AWS_SECRET_ACCESS_KEY": None}, "access is refused"),
        ({"AWS_ENDPOINT_URL": None, "AWS_ENDPOINT": "http://127.0.0.1:1"}, "does not answer"),
    ],
)
def test_an_environment_that_cannot_be_is_a_wrong_request(
    s3: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], told: str
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name)
    begin = time.monotonic()
    with pytest.raises(WrongRequest) as caught:
        open_store(s3)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (403, "access is refused (403 Forbidden Fault); set credentials that may list, read, write and delete"),
        (401, "access is refused"),
        (301, "the bucket is in another region"),
        (503, "does not answer (503 Service Unavailable Fault)"),
        (0, "does not answer"),
    ],
)
def test_a_storage_that_refuses_is_a_wrong_request(proxy: Any, s3: str, status: int, told: str) -> None:
    proxy.before = failing(10**6, status)
    begin = time.monotonic()
    with pytest.raises(WrongRequest, match=f"^store={s3}: ") as caught:
        store_at(s3)
    assert told in str(caught.value) and "\n" not in str(caught.value) and time.monotonic() - begin < 15


def test_credentials_that_may_only_read_are_enough_to_look_and_not_to_open(proxy: Any, s3: str) -> None:
    proxy.before = lambda method, *_: None if method == "GET" else 403
    assert store_at(s3).complete() == []
    with pytest.raises(WrongRequest, match=f"^store={s3}: writing probe/.*: 403 Forbidden"):
        open_store(s3)


def test_a_storage_without_conditions_of_writes_is_refused(proxy: Any, s3: str) -> None:
    def ignored(_: str, __: str, headers: dict[str, str]) -> None:
        for name in [name for name in headers if name.lower() in ("if-match", "if-none-match")]:
            del headers[name]

    proxy.before = ignored
    with pytest.raises(WrongRequest, match=r"does not keep to conditions of writes .*, so two drivers could"):
        open_store(s3)
    assert list(ObjectClient(s3).entries("")) == []


def test_a_worker_waits_for_a_storage_that_is_away_when_it_starts(proxy: Any, s3: str, hurried: None) -> None:
    proxy.before = failing(12, 503)
    assert open_store(s3, patience=60).complete() == []
    proxy.before = failing(10**6, 503)
    with pytest.raises(StorageUnavailable, match="does not answer"):
        open_store(s3, patience=0.05)
