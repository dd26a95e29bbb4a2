"""A PostgreSQL server of the tests' own: Debian's, on loopback, in a temporary folder, with a password.

`with Postgres.installed() as postgres:` starts one; `stop` and `start` are for tests of what happens without it.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from debian_packages import lacking

ACCOUNT = "postgres"
"""Whom the server runs as where the tests run as root, whom PostgreSQL refuses; Debian's package makes it."""
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    # What is committed survives the end of the server without it, though not the end of the machine.
    "fsync": "off",
    "max_connections": "100",
}
PATIENCE = 120.0


class Missing(Exception):
    """What is not installed, and how to install it."""


def programs() -> Path:
    """The folder of PostgreSQL's programs, which Debian keeps off the path. Raises `Missing`."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not installed and not on_path:
        raise Missing(lacking("PostgreSQL is not installed", "postgresql"))
    return installed[-1].parent if installed else Path(str(on_path)).resolve().parent


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Postgres:
    """One server; its superuser is `postgres`."""

    programs: Path
    folder: Path
    port: int
    password: str
    account: str | None
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def installed(cls) -> "Postgres":
        """A server with an empty data folder, not yet running. Raises `Missing`."""
        bin_folder, account = programs(), None
        # Not pytest's folder: no other account may enter that.
        folder = Path(tempfile.mkdtemp(prefix="ktrain-postgres-"))
        if os.geteuid() == 0:
            try:
                pwd.getpwnam(ACCOUNT)
            except KeyError:
                raise Missing(lacking(f"there is no account {ACCOUNT}", "postgresql")) from None
            account = ACCOUNT
            shutil.chown(folder, account, account)
        made = cls(bin_folder, folder, free_port(), secrets.token_urlsafe(16), account)
        (folder / "password").write_text(made.password)
        if account:
            shutil.chown(folder / "password", account, account)
        initdb = [bin_folder / "initdb", "-D", folder / "data", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
        initdb += ["-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync", "--no-instructions"]
        done = subprocess.run(initdb, **made._as_account(), capture_output=True, text=True, check=False)
        (folder / "password").unlink()
        assert done.returncode == 0, done.stderr
        return made

    def __enter__(self) -> "Postgres":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        assert self.process is None
        options = OPTIONS | {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        command = [self.programs / "postgres", "-D", self.folder / "data"]
        command += [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        log = (self.folder / "server.log").open("ab")
        with log:
            self.process = subprocess.Popen(command, **self._as_account(), stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None and time.monotonic() < end, (self.folder / "server.log").read_text()
            with contextlib.suppress(psycopg.OperationalError), self.connect():
                return
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops it: SIGINT cuts connections and writes all down, SIGQUIT leaves that to the next start."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the superuser, each statement its own transaction."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=self.password, dbname=database, autocommit=True
        )

    def url(self, database: str, *, password: bool = False) -> str:
        """The address of a database, for `ktrain serve`."""
        return f"postgresql://postgres{f':{self.password}' if password else ''}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, template: str = "template1") -> str:
        """Makes a database, empty or as the copy of one that nobody is connected to; returns its address."""
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"'.encode())
        return self.url(database)

    def _as_account(self) -> dict[str, object]:
        who = {"user": self.account, "group": self.account, "extra_groups": []} if self.account else {}
        return {**who, "cwd": self.folder}
