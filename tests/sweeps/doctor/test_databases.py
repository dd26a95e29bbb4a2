import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ktrain.system.filesystems import Mount
from sweeps.doctor import databases
from sweeps.doctor.databases import without_password
from sweeps.doctor.finding import FAIL, OK

Lines = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def own(database: str, tmp_path: Path) -> Path:
    """A copy of MLflow's database."""
    path = tmp_path / "mlflow.db"
    shutil.copyfile(database.removeprefix("sqlite:///"), path)
    return path


def change(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


def test_a_database_of_this_version(own: Path, lines: Lines) -> None:
    before = own.read_bytes()
    assert lines(databases.sqlite(f"sqlite:///{own}", 1)) == [("tracking", OK), ("tracking-schema", OK)]
    assert own.read_bytes() == before


def test_one_that_the_first_run_will_make(tmp_path: Path, lines: Lines) -> None:
    assert lines(databases.sqlite(f"sqlite:///{tmp_path / 'none.db'}", 1)) == [("tracking", OK)]
    assert list(tmp_path.iterdir()) == []


def test_tables_of_another_version(own: Path, lines: Lines) -> None:
    change(own, "UPDATE alembic_version SET version_num = '451aebb31d03'")
    found = list(databases.sqlite(f"sqlite:///{own}", 1))
    assert lines(found) == [("tracking", OK), ("tracking-schema", FAIL)]
    assert "451aebb31d03" in found[1].detail and f"mlflow db upgrade sqlite:///{own}" in found[1].fix


def test_a_database_without_tables(own: Path, lines: Lines) -> None:
    change(own, "DELETE FROM alembic_version")
    assert lines(databases.sqlite(f"sqlite:///{own}", 1)) == [("tracking", OK), ("tracking-schema", OK)]


def test_a_file_that_is_no_database(tmp_path: Path, lines: Lines) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"x" * 5000)
    found = list(databases.sqlite(f"sqlite:///{path}", 1))
    assert lines(found) == [("tracking", FAIL)] and "not a database" in found[0].detail and str(path) in found[0].fix


def test_sqlite_serves_one_machine(own: Path, lines: Lines) -> None:
    found = list(databases.sqlite(f"sqlite:///{own}", 3))
    assert lines(found) == [("tracking", FAIL)] and "3 nodes" in found[0].detail and "ktrain serve" in found[0].fix


def test_sqlite_on_a_disk_of_the_network(own: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "mount_of", lambda _: Mount(Path("/shared"), "nfs4", ()))
    found = list(databases.sqlite(f"sqlite:///{own}", 1))
    assert lines(found) == [("tracking", FAIL)] and "SQLite on nfs4 (/shared)" in found[0].detail


def test_sqlite_in_whatever_folder_one_is(lines: Lines) -> None:
    found = list(databases.sqlite("sqlite:///mlflow.db", 1))
    assert lines(found) == [("tracking", FAIL)] and "another file in every folder" in found[0].detail


def test_a_database_server_that_is_not_there(port: int, lines: Lines) -> None:
    pytest.importorskip("psycopg")
    uri = f"postgresql+psycopg://me:secret@127.0.0.1:{port}/mlflow"
    found = list(databases.schema(uri))
    assert lines(found) == [("tracking", FAIL)] and "refused" in found[0].detail
    assert "secret" not in found[0].detail + found[0].fix


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:secret@host:5000", "http://me:***@host:5000"),
        ("http://me:sec:ret@x@host:5000/a", "http://me:***@host:5000/a"),
        ("http://me@host:5000", "http://me@host:5000"),
        ("http://host:5000", "http://host:5000"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("postgresql://u:p@h/db", "postgresql://u:***@h/db"),
    ],
)
def test_passwords_are_not_shown(uri: str, shown: str) -> None:
    assert without_password(uri) == shown
