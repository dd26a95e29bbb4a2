import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base
from postgres import Postgres, free_port
from sqlalchemy import create_engine

from ktrain.errors import WrongRequest
from sweeps.services import credentials
from sweeps.services.database import Database


@pytest.fixture(autouse=True)
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An account whose shell knows nothing of databases."""
    for name in ("KTRAIN_DATABASE_URL", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "ktrain"


@pytest.fixture
def empty(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an empty database."""
    name = re.sub(r"\W", "_", request.node.name)[:60]
    postgres.create(name)
    yield name
    with postgres.connect() as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture
def named(postgres: Postgres, empty: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    return Database.from_settings(postgres.url(empty))


# Addresses and passwords.

REFUSED = {
    "": "database: not named; --database or KTRAIN_DATABASE_URL is postgresql://USER@HOST:PORT/DATABASE",
    "nonsense": "database: no address of a database; it must be postgresql://USER@HOST:PORT/DATABASE",
    "postgresql://a@b:port/c": "database: no address of a database",
    "sqlite:////tmp/mlflow.db": "must be postgresql://",
    "mysql://a@b/c": "database=mysql://a@b/c: must be postgresql://",
    "postgresql://a@b": "database=postgresql://a@b: must be postgresql://",
    "postgresql://a:hunter2@b/c": "every account can read a password on a command line",
}


@pytest.mark.parametrize("url", REFUSED)
def test_a_wrong_address_costs_one_line_without_any_password(url: str) -> None:
    with pytest.raises(WrongRequest) as caught:
        Database.from_settings(url)
    said = str(caught.value)
    assert REFUSED[url] in said and len(said.splitlines()) == 1 and "hunter2" not in said


@pytest.mark.parametrize("url", ["postgresql://a:hunter2@/", "sqlite://hunter2@x", "postgresql://a:hunter2@b:x/c"])
def test_a_wrong_address_of_the_environment_is_not_shown_with_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTRAIN_DATABASE_URL", url)
    with pytest.raises(WrongRequest, match=r"^KTRAIN_DATABASE_URL") as caught:
        Database.from_settings(None)
    assert ":hunter2" not in str(caught.value)


def test_a_password_is_in_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRAIN_DATABASE_URL", "postgres://me:p%40ss%2Fword@db.example.org:5433/lab?sslmode=require")
    found = Database.from_settings(None)
    assert found.url == "postgresql://me@db.example.org:5433/lab?sslmode=require"
    assert found.mlflow_uri == "postgresql+psycopg://me@db.example.org:5433/lab?sslmode=require"
    assert dict(found.environment) == {"PGPASSWORD": "p@ss/word"} and "p@ss/word" not in repr(found)


def test_a_password_is_taken_from_the_shell_or_from_a_private_file(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "postgresql://me@localhost/lab"
    assert dict(Database.from_settings(url).environment) == {}
    credentials.write(account / "pgpass", "*:*:*:*:secret\n")
    assert dict(Database.from_settings(url).environment) == {"PGPASSFILE": str(account / "pgpass")}
    monkeypatch.setenv("PGPASSWORD", "other")
    assert dict(Database.from_settings(url).environment) == {"PGPASSWORD": "other"}


def test_an_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRAIN_DATABASE_URL", "postgresql://me@elsewhere/lab")
    assert Database.from_settings("postgresql://me@here/lab").url == "postgresql://me@here/lab"


# Waiting.


def test_a_database_is_let_in_to_by_password_or_file(postgres: Postgres, empty: str, named: Database, account: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    named.wait(60)
    monkeypatch.delenv("PGPASSWORD")
    credentials.write(account / "pgpass", f"127.0.0.1:{postgres.port}:*:postgres:{postgres.password}\n")
    Database.from_settings(postgres.url(empty)).wait(60)


@pytest.mark.parametrize("fault", ["password", "none", "database", "role"])
def test_a_database_that_refuses_is_told_at_once(
    postgres: Postgres, empty: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, told = {
        "password": (postgres.url(empty), 'password authentication failed for user "postgres"'),
        "none": (postgres.url(empty), "no password supplied"),
        "database": (postgres.url("nowhere"), 'database "nowhere" does not exist'),
        "role": (postgres.url(empty).replace("postgres@", "nobody@"), 'authentication failed for user "nobody"'),
    }[fault]
    if fault != "none":
        monkeypatch.setenv("PGPASSWORD", postgres.password if fault == "database" else "wrong")
    begin = time.monotonic()
    with pytest.raises(WrongRequest) as caught:
        Database.from_settings(url).wait(3600)
    assert time.monotonic() - begin < 60
    assert str(caught.value).startswith(f"database={url}: ") and told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_database_that_is_not_there_is_waited_for_and_then_told() -> None:
    with pytest.raises(WrongRequest, match=r"does not answer within 1 s: .*refused"):
        Database.from_settings(f"postgresql://me@127.0.0.1:{free_port()}/lab").wait(1)


def test_a_database_that_comes_up_late_is_waited_for(postgres: Postgres, named: Database) -> None:
    postgres.stop()
    try:
        waiting = threading.Thread(target=named.wait, args=(120,), daemon=True)
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
    finally:
        postgres.start()
    waiting.join(120)
    assert not waiting.is_alive()


# The schema.


def test_one_start_at_a_time_touches_the_schema(named: Database) -> None:
    with named.migrated(60):
        with pytest.raises(WrongRequest, match="another server has been starting for 1 s"), named.migrated(1):
            pass
        order: list[str] = []

        def second() -> None:
            with named.migrated(60):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


@pytest.mark.parametrize("table", ["alembic_version", "alembic_version_auth"])
def test_a_schema_of_the_future_is_told(postgres: Postgres, empty: str, named: Database, table: str) -> None:
    with postgres.connect(empty) as connection:
        connection.execute(f"CREATE TABLE {table} (version_num text)".encode())
        connection.execute(f"INSERT INTO {table} VALUES ('fffffffffff0')".encode())
    with (
        pytest.raises(WrongRequest, match=rf"its schema \({table} fffffffffff0\) is newer than MLflow \d"),
        named.migrated(60),
    ):
        pass


def test_a_role_that_may_make_no_tables_is_told(
    postgres: Postgres, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.connect() as connection:
        connection.execute(b"CREATE ROLE guest LOGIN PASSWORD 'guest'")
    monkeypatch.setenv("PGPASSWORD", "guest")
    guest = Database.from_settings(postgres.url(empty).replace("postgres@", "guest@"))
    with (
        pytest.raises(WrongRequest, match=r"guest may not make tables there: ALTER DATABASE .* OWNER TO guest"),
        guest.migrated(60),
    ):
        pass


@pytest.fixture
def outdated(postgres: Postgres, empty: str) -> Callable[[], tuple[str, str]]:
    """Makes the schema of some MLflow of the past; the revision that it has, and how to read it."""
    url = postgres.url(empty, password=True).replace("postgresql", "postgresql+psycopg")
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, utils._get_latest_schema_revision() + "-3")
    engine.dispose()

    def revision() -> tuple[str, str]:
        with postgres.connect(empty) as connection:
            (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
        return str(found), utils._get_latest_schema_revision()

    return revision


def test_a_schema_of_the_past_is_brought_up_to_date(named: Database, outdated: Callable[[], tuple[str, str]]) -> None:
    before, newest = outdated()
    assert before != newest
    with named.migrated(60):
        assert outdated() == (newest, newest)


def test_an_upgrade_that_fails_is_told_in_a_line(postgres: Postgres, empty: str, named: Database) -> None:
    with postgres.connect(empty) as connection:
        # A history without the tables that it is of.
        connection.execute(b"CREATE TABLE alembic_version (version_num varchar(32))")
        connection.execute(b"CREATE TABLE other (id integer)")
    with pytest.raises(WrongRequest, match="`mlflow db upgrade` failed: ") as caught, named.migrated(60):
        pass
    assert len(str(caught.value).splitlines()) == 1 and postgres.password not in str(caught.value)
