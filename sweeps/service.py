"""The MLflow server as processes of this account: starting one at a port, looking after it, ending it."""

import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from ktrain.errors import WrongRequest
from sweeps import credentials
from sweeps.credentials import Login
from sweeps.database import Database
from sweeps.server_settings import Settings, command, environment, logins

STARTING = 300.0
"""Seconds that a server may take to come up; on a machine that does nothing else it takes some ten."""
STOPPING = 20.0


@dataclass(frozen=True)
class Service:
    """The MLflow server of this account at one port, running or not."""

    port: int

    def file(self, kind: str) -> Path:
        """Its `log`, its `ini` (MLflow's settings for logins) or its `json` (process and settings)."""
        return credentials.folder() / f"mlflow-{self.port}.{kind}"

    @property
    def address(self) -> str:
        """Where this machine reaches it."""
        settings = self._record().get("settings")
        return Settings(**settings).address if settings else f"http://127.0.0.1:{self.port}"

    def processes(self) -> list[psutil.Process]:
        """Its living processes, the first one first; what runs under the same numbers since then is not meant."""
        record, found = self._record(), []
        if not record or _began(record["process"]) not in (None, record["began"]):
            return []
        for process in psutil.process_iter(["status"]):
            with suppress(ProcessLookupError):
                if os.getpgid(process.pid) == record["process"] and process.info["status"] != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return sorted(found, key=lambda process: process.pid != record["process"])

    def start(self, settings: Settings, database: Database, wait: float, *, again: bool = False) -> None:
        """Returns when the server answers; where `again`, one with these settings that runs well is left alone.

        Raises `WrongRequest` for anything in the way, and leaves nothing running then.
        """
        with self._alone():
            if self.processes():
                if self._record()["settings"] != json.loads(json.dumps(asdict(settings))):
                    raise WrongRequest(f"port={self.port}: a server with other settings runs there; first --stop it")
                if not again:
                    raise WrongRequest(f"port={self.port}: the server runs already; --detach leaves it alone")
                if _status(f"{settings.address}/health") == 200:
                    return
                self.stop()
            _listen(settings.host, settings.port)
            database.wait(wait)
            with database.migrated(STARTING):
                self._begin(settings, database)

    def stop(self) -> bool:
        """Ends it; whether there was something to end."""
        found = self.processes()
        for process in found[:1]:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, left = psutil.wait_procs(found, STOPPING)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, STOPPING)
        self.file("json").unlink(missing_ok=True)
        return bool(found)

    def attend(self) -> str:
        """Stays until the server has ended by itself; returns its last words."""
        psutil.wait_procs(self.processes()[:1])
        return self._last_words(0)

    def trouble(self) -> str | None:
        """What is wrong with it, in a line, or None: whether it answers, reaches its database, and lets us in."""
        if not self.processes():
            return f"MLflow at port {self.port} does not run: `ktrain serve --detach` starts it"
        login, address = credentials.login(), self.address
        status = _status(f"{address}/api/2.0/mlflow/experiments/search?max_results=1", login)
        if status == 401:
            return f"MLflow at {address} refuses {login.name} with the password from {login.source}"
        if status != 200:
            return f"MLflow at {address} does not answer well ({status or 'no answer'}); its log is {self.file('log')}"
        return None

    def _record(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.file("json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One start of this account at a time."""
        file = self.file("lock")
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _begin(self, settings: Settings, database: Database) -> None:
        credentials.write(self.file("ini"), logins(database))
        log = self.file("log")
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        begin, end = log.stat().st_size, time.monotonic() + STARTING
        try:
            # A session of its own: neither Ctrl-C nor the end of a shell reaches it but through us.
            process = subprocess.Popen(
                command(settings),
                env=environment(database, self.file("ini")),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=credentials.folder(),
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        told = {"process": process.pid, "began": _began(process.pid), "settings": asdict(settings)}
        credentials.write(self.file("json"), json.dumps(told))
        try:
            while _status(f"{settings.address}/health") != 200:
                if process.poll() is not None:
                    raise WrongRequest(f"MLflow ended before it answered: {self._last_words(begin)} ({log})")
                if time.monotonic() > end:
                    raise WrongRequest(f"MLflow does not answer within {STARTING:.0f} s; its log is {log}")
                time.sleep(0.2)
        except BaseException:
            self.stop()
            raise

    def _last_words(self, begin: int) -> str:
        text = self.file("log").read_bytes()[begin:].decode(errors="replace")
        return ([line.strip() for line in text.splitlines() if line.strip()] or ["no message"])[-1][:300]


def log_in() -> None:
    """Logs in at this account's own server where `MLFLOW_TRACKING_URI` is one that runs and no other login is given.

    So a driver on the head needs no secret in its environment; to any other server, nothing is shown of ours.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/").replace("//localhost:", "//127.0.0.1:")
    port = uri.rpartition(":")[2]
    if not port.isdecimal() or os.environ.get(credentials.NAME):
        return
    service = Service(int(port))
    if service.address == uri and service.processes():
        login = credentials.login()
        os.environ |= {credentials.NAME: login.name, credentials.PASSWORD: login.password}


def _listen(host: str, port: int) -> None:
    """Raises `WrongRequest` where nobody could listen."""
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except socket.gaierror:
        raise WrongRequest(f"host={host}: no address") from None
    except OSError as e:
        raise WrongRequest(f"host={host}, port={port}: cannot be listened on: {e.strerror}") from None


def _began(process: int) -> int | None:
    """When a process began, in clock ticks since boot, which no change of the clock moves; None where it is gone."""
    try:
        # The command's name comes before and may hold spaces and parentheses.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _status(address: str, login: Login | None = None) -> int | None:
    """The status of an answer, or None where there is none."""
    import requests

    with requests.Session() as session:
        # Neither a proxy nor another password from the user's files is to come between.
        session.trust_env = False
        session.auth = (login.name, login.password) if login else None
        try:
            return session.get(address, timeout=20).status_code
        except requests.RequestException:
            return None
