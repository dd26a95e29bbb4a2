import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ktrain.errors import WrongRequest
from ktrain.store.base import Store
from ktrain.store.open import open_store, store_at
from sweeps.tracking.address import default_uri


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a folder, a text, an empty file and a pipe."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("no database, but longer than the first bytes of one")
    (tmp_path / "empty.db").touch()
    os.mkfifo(tmp_path / "pipe.db")
    (tmp_path / "loop.db").symlink_to("loop.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRONG = {
    "http://[::1": "is no address: Invalid IPv6",
    "http://[::1:5000": "is no address: ",
    "http://[zz]:5000": "is no address: ",
    "http://host:port": "is no address: ",
    "http://host:99999": "is no address: ",
    "http://": "names no host",
    "http://:5000": "names no host",
    "https:///path": "names no host",
    "http://one:1,http://two:2": "is no address: ",
    "http://a host:5000": "is no address: it has blanks",
    " ": "is no address: it has blanks",
    "http://host:5000\n": "is no address: it has blanks",
    "sqlite://": "names no file",
    "sqlite:///": "names no file",
    "sqlite:////": "names no file",
    "sqlite:///:memory:": "names no file",
    "sqlite:///file:x?mode=memory&uri=true": "names no file",
    "sqlite://host/x.db": "names no file",
    "sqlite:///folder": "folder is a folder, where a database must be",
    "sqlite:///pipe.db": "pipe.db is a device or pipe",
    "sqlite:////dev/null": "is a device or pipe",
    "sqlite:///text.db": "text.db is no database of SQLite",
    "sqlite:///text.db/mlflow.db": "there is no folder ",
    "sqlite:////nowhere/at/all.db": "there is no folder /nowhere/at",
    "sqlite:///loop.db": "loop.db: Too many levels",
    "sqllite:////x.db": "did you mean sqlite?",
    "postgresql:///runs": "names no host",
    "results": "must be http://HOST:PORT",
    "file:///results": "must be http://HOST:PORT",
    "databricks": "must be http://HOST:PORT",
}


@pytest.mark.parametrize("uri", WRONG)
def test_an_address_where_nothing_can_be_is_told(
    uri: str, folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(WrongRequest, match=re.escape(WRONG[uri])) as caught:
        default_uri(store)
    assert str(caught.value).startswith(f"MLFLOW_TRACKING_URI={uri}: ")


def test_a_password_in_a_malformed_address_is_not_shown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri in ("http://me:hunter2@[::1", "http://me:hunter2@host:port", "htp://me:hunter2@host"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(WrongRequest) as caught:
            default_uri(store)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "http://host",
        "https://host:5000/path",
        "http://[::1]:5000",
        "http://127.0.0.1:5000/",
        "sqlite:///new.db",
        "sqlite:///empty.db",
        "sqlite:///folder/new.db",
        "postgresql+psycopg://me@host:5432/runs",
    ],
)
def test_other_addresses_are_taken(uri: str, folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert default_uri(store) == uri


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.write_text("some other text")])
def test_what_stands_in_the_place_of_the_stores_database_is_told(make: Callable[[Path], Any], store: Store) -> None:
    make(Path(store.address) / "mlflow.db")
    with pytest.raises(WrongRequest, match=r"^store=.*/results: .*/mlflow.db is "):
        default_uri(store)


def test_a_store_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "stages").touch()
    told = {
        "file": "is a file, where a folder must be",
        "loop": "is not readable: Too many levels",
        "half": "its `stages`: is a file, where a folder must be",
    }
    for name, line in told.items():
        for use in (store_at, open_store):
            with pytest.raises(WrongRequest, match=line):
                use(tmp_path / name)
    with pytest.raises(WrongRequest, match="is no address"):
        store_at("nothing://[::1")
    assert store_at(tmp_path / "file" / "below").complete() == []
