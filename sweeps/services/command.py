"""`ktrain serve`: the MLflow server of a cluster's head, on PostgreSQL, with logins, on loopback."""

import importlib.util
import ipaddress
import os
import signal
import sys
from typing import Annotated
from urllib.parse import urlsplit

from typer import Option

from ktrain.errors import WrongRequest, nearest
from ktrain.system.home_folder import expanded
from sweeps.options import EXIT_DONE, EXIT_FAILED
from sweeps.services import credentials
from sweeps.services.database import FORM, VARIABLE, Database
from sweeps.services.process import ServerProcess
from sweeps.services.settings import ServerSettings

PORT = 5000
OBJECT_STORES = {"s3": "boto3", "gs": "google.cloud.storage", "wasbs": "azure.storage.blob", "abfss": "azure.storage"}
"""Schemes of object storage that MLflow keeps artifacts in, and the module that each needs."""


def serve(
    database: Annotated[
        str | None, Option("--database", metavar="URL", help=f"{FORM}, without a password; else {VARIABLE}.")
    ] = None,
    artifacts: Annotated[
        str | None,
        Option("--artifacts", help="Folder, or s3://... address, for files of runs; else KTRAIN_ARTIFACTS, or home."),
    ] = None,
    host: Annotated[str, Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Option("--port", help="Port to listen on.")] = PORT,
    allowed_hosts: Annotated[
        str, Option("--allowed-hosts", metavar="NAME,...", help="Names under which others reach it.")
    ] = "",
    workers: Annotated[int, Option("--workers", help="Processes that answer.")] = 2,
    wait: Annotated[float, Option("--wait", metavar="SECONDS", help="How long PostgreSQL may take to answer.")] = 60.0,
    detach: Annotated[bool, Option("--detach", help="Leave it running; one that runs well is left alone.")] = False,
    stop: Annotated[bool, Option("--stop", help="End the server at this port.")] = False,
    check: Annotated[bool, Option("--check", help="Say whether the server at this port answers.")] = False,
) -> int:
    """Serve MLflow on a cluster's head, on PostgreSQL, with logins."""
    actions = [f"--{name}" for name, chosen in {"detach": detach, "stop": stop, "check": check}.items() if chosen]
    if len(actions) > 1:
        raise WrongRequest(f"{' '.join(actions)}: must be one of them at a time")
    if not 1 <= port <= 65_535:
        raise WrongRequest(f"port={port}: must be from 1 to 65535")
    server = ServerProcess(port)
    if stop:
        print(f"MLflow at port {server.port}: {'stopped' if server.stop() else 'nothing to stop'}")
        return EXIT_DONE
    if check:
        problem = server.health_problem()
        print(problem or f"MLflow at {server.address} answers, and lets {credentials.login().name} in")
        return EXIT_FAILED if problem else EXIT_DONE
    settings, opened = _settings(database, artifacts, host, port, allowed_hosts, workers, wait)
    if not detach:
        return _serve_here(server, settings, opened, wait)
    server.start(settings, opened, wait, again=True)
    _print_login(server)
    return EXIT_DONE


def _serve_here(server: ServerProcess, settings: ServerSettings, database: Database, wait: float) -> int:
    """Starts the server and stays until it ends or we are stopped, which ends it too."""
    # Before the server starts, so that SIGTERM ends it with us just as Ctrl-C does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.start(settings, database, wait)
        try:
            _print_login(server)
            print(f"ktrain: MLflow at {server.address} ended: {server.wait()}", file=sys.stderr)
            return EXIT_FAILED
        finally:
            server.stop()
    except KeyboardInterrupt:
        return EXIT_DONE
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_login(server: ServerProcess) -> None:
    """Prints where the server is and how to log in, and on stderr what is wrong with it."""
    login = credentials.login()
    print(f"MLflow at {server.address} (process {server.processes()[0].pid}, log {server.file('log')})")
    print(f"log in as {login.name}; the password is in {login.source}", flush=True)
    if problem := server.health_problem():
        print(f"ktrain: {problem}", file=sys.stderr, flush=True)


def _settings(
    database: str | None,
    artifacts: str | None,
    host: str,
    port: int,
    allowed_hosts: str,
    workers: int,
    wait: float,
) -> tuple[ServerSettings, Database]:
    """Returns the checked settings of the server, and its database. Raises `WrongRequest`."""
    if workers < 1:
        raise WrongRequest(f"workers={workers}: must be at least 1")
    if not 0 <= wait < float("inf"):
        raise WrongRequest(f"wait={wait:g}: must be seconds from 0")
    names = tuple(filter(None, (name.strip() for name in allowed_hosts.split(","))))
    for name in names:
        if name == "*" or "/" in name:
            raise WrongRequest(f"allowed-hosts={name}: must be names of hosts, such as mlflow.example.org or 10.0.0.*")
    if not _loopback(host) and not names:
        raise WrongRequest(
            f"host={host}: other machines could reach it, so --allowed-hosts must list the names they use"
        )
    if importlib.util.find_spec("flask_wtf") is None:
        raise WrongRequest("Flask-WTF, which MLflow's logins need, is not installed: pip install 'ktrain[cluster]'")
    opened = Database.from_settings(database)
    files = _artifacts(artifacts or os.environ.get("KTRAIN_ARTIFACTS", ""))
    return ServerSettings(opened.url, files, host, port, names, workers), opened


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _artifacts(given: str) -> str:
    """Returns the store of runs' files: object storage, or a folder, which is created. Raises `WrongRequest`."""
    scheme = urlsplit(given).scheme if "://" in given else ""
    if scheme and scheme != "file":
        if scheme not in OBJECT_STORES:
            allowed = ", ".join(f"{known}://" for known in OBJECT_STORES)
            raise WrongRequest(f"artifacts={given}: must be a folder or {allowed}{nearest(scheme, OBJECT_STORES)}")
        try:
            missing = importlib.util.find_spec(OBJECT_STORES[scheme]) is None
        except ModuleNotFoundError:
            missing = True
        if missing:
            raise WrongRequest(
                f"artifacts={given}: MLflow needs {OBJECT_STORES[scheme]} for it, which is not installed"
            )
        return given
    data = expanded(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "ktrain" / "mlflow-artifacts"
    folder = expanded(given.removeprefix("file://")).absolute() if given else data
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as e:
        raise WrongRequest(f"artifacts={folder}: not writable: {e.strerror}") from None
    return str(folder)
