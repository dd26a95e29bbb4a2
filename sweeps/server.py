"""`ktrain serve`: the MLflow server of a cluster's head, on PostgreSQL, with logins, on loopback."""

import argparse
import importlib.util
import ipaddress
import os
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ktrain.errors import WrongRequest, nearest
from sweeps import credentials
from sweeps.database import FORM, VARIABLE, Database
from sweeps.server_settings import Settings
from sweeps.service import Service

PORT = 5000
OBJECT_STORES = {"s3": "boto3", "gs": "google.cloud.storage", "wasbs": "azure.storage.blob", "abfss": "azure.storage"}
"""Kinds of object storage that MLflow keeps artifacts in, and the module that each needs."""


def add(commands: Any) -> None:
    """Adds `ktrain serve`."""
    about = "the MLflow server of a cluster's head, on PostgreSQL, with logins"
    serve = commands.add_parser("serve", help=about, description=about)
    serve.add_argument("--database", help=f"{FORM}, without a password (default: {VARIABLE})")
    serve.add_argument("--artifacts", help="folder, or s3://... for files of runs (default: KTRAIN_ARTIFACTS, or home)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback)")
    serve.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    serve.add_argument("--allowed-hosts", default="", metavar="NAME,...", help="names under which others reach it")
    serve.add_argument("--workers", type=int, default=2, help="processes that answer (default: 2)")
    serve.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="for PostgreSQL (default: 60)")
    what = serve.add_mutually_exclusive_group()
    what.add_argument("--detach", action="store_true", help="leave it running; one that runs well is left alone")
    what.add_argument("--stop", action="store_true", help="end the one at this port")
    what.add_argument("--check", action="store_true", help="whether the one at this port answers and lets us in")
    serve.set_defaults(handler=run)


def run(arguments: argparse.Namespace) -> int:
    """The command: 0, or with --check 1 where the server is not well. Raises `WrongRequest`."""
    if not 1 <= arguments.port <= 65_535:
        raise WrongRequest(f"port={arguments.port}: must be from 1 to 65535")
    server = Service(arguments.port)
    if arguments.stop:
        print(f"MLflow at port {server.port}: {'stopped' if server.stop() else 'nothing to stop'}")
        return 0
    if arguments.check:
        trouble = server.trouble()
        print(trouble or f"MLflow at {server.address} answers, and lets {credentials.login().name} in")
        return 1 if trouble else 0
    if arguments.detach:
        _start(server, arguments)
        _tell(server)
        return 0
    # From the first moment, whoever ends us ends the server too, by SIGTERM as by Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _start(server, arguments)
        try:
            _tell(server)
            print(f"ktrain: MLflow at {server.address} ended: {server.attend()}", file=sys.stderr)
            return 1
        finally:
            server.stop()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(server: Service, arguments: argparse.Namespace) -> None:
    server.start(*_settings(arguments), arguments.wait, again=arguments.detach)


def _tell(server: Service) -> None:
    """Says where the server is and how to log in, and what is wrong with it."""
    login = credentials.login()
    print(f"MLflow at {server.address} (process {server.processes()[0].pid}, log {server.file('log')})")
    print(f"log in as {login.name}; the password is in {login.source}", flush=True)
    if trouble := server.trouble():
        print(f"ktrain: {trouble}", file=sys.stderr, flush=True)


def _settings(arguments: argparse.Namespace) -> tuple[Settings, Database]:
    """What was asked for, checked. Raises `WrongRequest`."""
    if arguments.workers < 1:
        raise WrongRequest(f"workers={arguments.workers}: must be at least 1")
    if not 0 <= arguments.wait < float("inf"):
        raise WrongRequest(f"wait={arguments.wait:g}: must be seconds from 0")
    names = tuple(filter(None, (name.strip() for name in arguments.allowed_hosts.split(","))))
    for name in names:
        if name == "*" or "/" in name:
            raise WrongRequest(f"allowed-hosts={name}: must be names of hosts, such as mlflow.example.org or 10.0.0.*")
    if not _loopback(arguments.host) and not names:
        raise WrongRequest(
            f"host={arguments.host}: others than this machine could ask, so --allowed-hosts must name it as they do"
        )
    if importlib.util.find_spec("flask_wtf") is None:
        raise WrongRequest("Flask-WTF, which MLflow's logins need, is not installed: pip install 'ktrain[cluster]'")
    database = Database.named(arguments.database)
    artifacts = _artifacts(arguments.artifacts or os.environ.get("KTRAIN_ARTIFACTS", ""))
    return Settings(database.url, artifacts, arguments.host, arguments.port, names, arguments.workers), database


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _artifacts(given: str) -> str:
    """Where the server keeps files of runs: object storage, or a folder, which is made. Raises `WrongRequest`."""
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
                f"artifacts={given}: {OBJECT_STORES[scheme]} is not installed, which MLflow needs for it"
            )
        return given
    data = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "ktrain" / "mlflow-artifacts"
    folder = Path(given.removeprefix("file://")).expanduser().absolute() if given else data
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as e:
        raise WrongRequest(f"artifacts={folder}: not writable: {e.strerror}") from None
    return str(folder)
