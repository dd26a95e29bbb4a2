"""The PostgreSQL database of an MLflow server: its address, waiting for it, and upgrading its schema."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktrain.errors import WrongRequest
from sweeps.services import credentials

if TYPE_CHECKING:
    import psycopg

VARIABLE = "KTRAIN_DATABASE_URL"
FORM = "postgresql://USER@HOST:PORT/DATABASE"
LOCK = 0x6B747261696E
"""The number of PostgreSQL's advisory lock that one starting server holds at a time, on any machine."""
HISTORIES = {"alembic_version": "store/db_migrations", "alembic_version_auth": "server/auth/db/migrations"}
"""The tables that hold the revision of a schema, and MLflow's folders of known revisions."""
PASSING = (
    "refused",
    "starting up",
    "shutting down",
    "timeout",
    "timed out",
    "No such file",
    "not translate",
    "resolve",
    "unreachable",
    "closed the connection",
    "too many clients",
)
"""Words in the errors of a database that may answer soon."""


@dataclass(frozen=True)
class Database:
    """The address of a database, without its password, and the environment that holds it."""

    url: str
    environment: Mapping[str, str] = field(repr=False)

    @classmethod
    def from_settings(cls, argument: str | None) -> "Database":
        """Returns the database of `--database`, else of the environment. Raises `WrongRequest`.

        The password comes from the environment (`KTRAIN_DATABASE_URL` or `PGPASSWORD`) or from PostgreSQL's password
        file. In an argument it is refused, because every account of the machine could read it there.
        """
        from sqlalchemy.engine import URL, make_url
        from sqlalchemy.exc import ArgumentError

        given, name = argument or os.environ.get(VARIABLE, ""), "database" if argument else VARIABLE
        if not given:
            raise WrongRequest(f"database: not named; --database or {VARIABLE} is {FORM}")
        try:
            parsed = make_url(given)
        except (ArgumentError, ValueError):
            # The text is not shown: it may hold a password anywhere.
            raise WrongRequest(f"{name}: no address of a database; it must be {FORM}") from None
        if parsed.get_backend_name() not in ("postgresql", "postgres") or not parsed.database:
            raise WrongRequest(f"{name}={parsed}: must be {FORM}")
        if argument and parsed.password:
            raise WrongRequest(
                f"database={parsed}: every account can read a password on a command line; "
                f"put it into {VARIABLE} or PGPASSWORD, or into ~/.pgpass with mode 600"
            )
        if find_spec("psycopg") is None:
            raise WrongRequest("psycopg, which PostgreSQL needs, is not installed: pip install 'ktrain[cluster]'")
        environment, file = {}, credentials.passfile()
        if password := parsed.password or os.environ.get("PGPASSWORD"):
            environment["PGPASSWORD"] = str(password)
        elif file:
            environment["PGPASSFILE"] = str(file)
        where = (parsed.username, None, parsed.host, parsed.port, parsed.database, parsed.query)
        return cls(URL.create("postgresql", *where).render_as_string(hide_password=False), environment)

    @property
    def mlflow_uri(self) -> str:
        """The address for MLflow, which names the driver."""
        return self.url.replace("postgresql://", "postgresql+psycopg://", 1)

    def connect(self) -> "psycopg.Connection[Any]":
        """Opens a connection in autocommit mode. Raises `psycopg.OperationalError`."""
        import psycopg

        names = {"PGPASSWORD": "password", "PGPASSFILE": "passfile"}
        secrets = {names[name]: value for name, value in self.environment.items()}
        target = psycopg.conninfo.make_conninfo(self.url, connect_timeout=5, application_name="ktrain serve", **secrets)
        return psycopg.connect(target, autocommit=True)

    def wait(self, seconds: float) -> None:
        """Waits until the database answers. Raises `WrongRequest` after `seconds`, or at once if it refuses."""
        import psycopg

        end = time.monotonic() + seconds
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError as e:
                message = _message(e)
            except psycopg.Error as e:
                raise WrongRequest(f"database={self.url}: {_message(e)}") from None
            if not any(word in message for word in PASSING):
                raise WrongRequest(f"database={self.url}: {message}")
            if time.monotonic() > end:
                raise WrongRequest(f"database={self.url}: does not answer within {seconds:.0f} s: {message}")
            time.sleep(0.2)

    @contextmanager
    def migrated(self, patience: float) -> Iterator[None]:
        """Upgrades the schema to this MLflow's, and lets no other server start while the block runs.

        Raises `WrongRequest` if the schema is newer than this MLflow, if this account may not change it, and if
        another server holds the lock for more than `patience` seconds.
        """
        import psycopg

        with self.connect() as connection:
            connection.execute(f"SET lock_timeout = '{patience:.0f}s'".encode())
            try:
                connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            except psycopg.errors.LockNotAvailable:
                raise WrongRequest(
                    f"database={self.url}: another server has been starting for {patience:.0f} s"
                ) from None
            self._check(connection)
            if self._outdated(connection):
                self._upgrade()
            yield

    def _check(self, connection: "psycopg.Connection[Any]") -> None:
        may = connection.execute("SELECT has_schema_privilege(current_schema(), 'CREATE'), current_user").fetchone()
        if may and not may[0]:
            raise WrongRequest(
                f"database={self.url}: {may[1]} may not make tables there: "
                f"ALTER DATABASE {connection.info.dbname} OWNER TO {may[1]}"
            )

    def _outdated(self, connection: "psycopg.Connection[Any]") -> bool:
        """Whether an existing schema needs an upgrade; the server itself creates a missing one."""
        from alembic.script import ScriptDirectory

        (package,) = find_spec("mlflow").submodule_search_locations  # type: ignore[union-attr, misc]
        outdated = False
        for table, folder in HISTORIES.items():
            if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
                continue
            revision = connection.execute(f"SELECT version_num FROM {table}".encode()).fetchone()
            history = ScriptDirectory(str(Path(package) / folder))
            known = {script.revision for script in history.walk_revisions()}
            if revision and revision[0] not in known:
                raise WrongRequest(
                    f"database={self.url}: its schema ({table} {revision[0]}) is newer than MLflow "
                    f"{version('mlflow')}; "
                    "install the MLflow that wrote it, or a newer one"
                )
            outdated |= table == "alembic_version" and revision != (history.get_current_head(),)
        return outdated

    def _upgrade(self) -> None:
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", self.mlflow_uri]
        done = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise WrongRequest(f"database={self.url}: `mlflow db upgrade` failed: {last}")


def _message(error: Exception) -> str:
    """Returns the line of PostgreSQL's error that gives the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in lines if "FATAL" in line), lines[0])[:300]
