"""The MLflow server as processes of this account: starts it at a port, checks it, stops it."""

import fcntl
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from ktrain.errors import WrongRequest
from ktrain.fingerprint import regular_file
from sweeps.services import credentials
from sweeps.services.credentials import Login
from sweeps.services.database import Database
from sweeps.services.settings import ServerSettings, command, environment, logins

STARTING = 300.0
"""Seconds that a server may take to start; on an idle machine it takes about ten."""
STOPPING = 20.0
MARK = "KTRAIN_SERVER"
"""The environment variable by which the processes of one start know each other."""


@dataclass(frozen=True)
class ServerProcess:
    """The MLflow server of this account at one port, running or not."""

    port: int

    def file(self, kind: str) -> Path:
        """Returns the path of its `log`, `ini` (MLflow's settings for logins) or `json` (process and settings)."""
        return credentials.folder() / f"mlflow-{self.port}.{kind}"

    @property
    def address(self) -> str:
        """The URL at which this machine reaches it."""
        settings = self._record().get("settings")
        return ServerSettings(**settings).address if settings else f"http://127.0.0.1:{self.port}"

    def processes(self) -> list[psutil.Process]:
        """Returns its living processes, the leader first.

        Each has the mark of this start in its environment: numbers of processes and groups are used again.
        """
        record = self._record()
        if not (mark := record.get("mark")):
            return []
        members: list[psutil.Process] = []
        for process in psutil.process_iter(["status"]):
            # Processes of other accounts show no environment.
            with suppress(psutil.Error):
                alive = process.info["status"] != psutil.STATUS_ZOMBIE
                if alive and process.environ().get(MARK) == mark:
                    members.append(process)
        return sorted(members, key=lambda process: process.pid != record["process"])

    def start(self, settings: ServerSettings, database: Database, wait: float, *, again: bool = False) -> None:
        """Starts the server and returns when it answers; with `again`, a healthy one with these settings is kept.

        Raises `WrongRequest` if anything prevents the start, and then leaves nothing running.
        """
        with self._start_lock():
            if self.processes():
                if self._record()["settings"] != json.loads(json.dumps(asdict(settings))):
                    raise WrongRequest(f"port={self.port}: a server with other settings runs there; first --stop it")
                if not again:
                    raise WrongRequest(f"port={self.port}: the server runs already; --detach leaves it alone")
                if _status(f"{settings.address}/health") == 200:
                    return
                self.stop()
            _check_address(settings.host, settings.port)
            database.wait(wait)
            with database.migrated(STARTING):
                self._begin(settings, database)

    def stop(self) -> bool:
        """Stops the server; returns whether one was running."""
        running = self.processes()
        for process in running[:1]:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, left = psutil.wait_procs(running, STOPPING)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, STOPPING)
        self.file("json").unlink(missing_ok=True)
        return bool(running)

    def wait(self) -> str:
        """Waits until the server ends by itself; returns the last line of its log."""
        psutil.wait_procs(self.processes()[:1])
        return self._last_log_line(0)

    def health_problem(self) -> str | None:
        """Returns one line if it does not answer, reach its database or accept our login; else None."""
        if not self.processes():
            return f"MLflow at port {self.port} does not run: `ktrain serve --detach` starts it"
        login, address = credentials.login(), self.address
        status = _status(f"{address}/api/2.0/mlflow/experiments/search?max_results=1", login)
        if status == 401:
            return f"MLflow at {address} refuses {login.name} with the password from {login.source}"
        if status != 200:
            return f"MLflow at {address} is not healthy ({status or 'no answer'}); its log is {self.file('log')}"
        return None

    def _record(self) -> dict[str, Any]:
        """What the last start has written down, nothing if there is none. Raises `WrongRequest` if it is damaged."""
        path = self.file("json")
        try:
            record = json.loads(regular_file(path).read_text(encoding="utf-8"))
            known = not record["settings"] or ServerSettings(**record["settings"]).address
            # One that is older has no mark.
            if not known or not isinstance(record["process"], int) or not isinstance(record.get("mark", ""), str):
                raise ValueError
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise WrongRequest(f"{path}: is not what `ktrain serve` has written; remove it") from None
        return dict(record)

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        """Lets one process of this account start or replace the server at a time."""
        file = self.file("lock")
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _begin(self, settings: ServerSettings, database: Database) -> None:
        credentials.write(self.file("ini"), logins(database))
        log, mark = self.file("log"), uuid.uuid4().hex
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        begin, end = log.stat().st_size, time.monotonic() + STARTING
        try:
            # In a session of its own, so that Ctrl-C and the end of a shell reach it only through us.
            process = subprocess.Popen(
                command(settings),
                env={**environment(database, self.file("ini")), MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=credentials.folder(),
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        record = {"process": process.pid, "mark": mark, "settings": asdict(settings)}
        credentials.write(self.file("json"), json.dumps(record))
        try:
            while _status(f"{settings.address}/health") != 200:
                if process.poll() is not None:
                    raise WrongRequest(f"MLflow ended before it answered: {self._last_log_line(begin)} ({log})")
                if time.monotonic() > end:
                    raise WrongRequest(f"MLflow does not answer within {STARTING:.0f} s; its log is {log}")
                time.sleep(0.2)
        except BaseException:
            self.stop()
            raise

    def _last_log_line(self, begin: int) -> str:
        text = self.file("log").read_bytes()[begin:].decode(errors="replace")
        return ([line.strip() for line in text.splitlines() if line.strip()] or ["no message"])[-1][:300]


def log_in() -> None:
    """Sets the login of this account's own server if `MLFLOW_TRACKING_URI` names it and no login is set.

    So a driver on the head needs no secret in its environment. No other server ever gets our login.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/").replace("//localhost:", "//127.0.0.1:")
    port = uri.rpartition(":")[2]
    if not port.isdecimal() or os.environ.get(credentials.NAME):
        return
    service = ServerProcess(int(port))
    if service.address == uri and service.processes():
        login = credentials.login()
        os.environ |= {credentials.NAME: login.name, credentials.PASSWORD: login.password}


def _check_address(host: str, port: int) -> None:
    """Raises `WrongRequest` if a server cannot listen there."""
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except socket.gaierror:
        raise WrongRequest(f"host={host}: no address") from None
    except OSError as e:
        raise WrongRequest(f"host={host}, port={port}: cannot be listened on: {e.strerror}") from None


def _status(address: str, login: Login | None = None) -> int | None:
    """Returns the HTTP status of an answer, or None without one."""
    import requests

    with requests.Session() as session:
        # Neither a proxy nor a password from the user's netrc may interfere.
        session.trust_env = False
        session.auth = (login.name, login.password) if login else None
        try:
            return session.get(address, timeout=20).status_code
        except requests.RequestException:
            return None
