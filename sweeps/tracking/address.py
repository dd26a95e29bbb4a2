"""The address of the tracking server or database: where it comes from, and all that can be wrong with it."""

import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from ktrain.errors import WrongRequest, is_text, nearest
from ktrain.store.base import Store
from sweeps.services import credentials

VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
_MAGIC = b"SQLite format 3\0"
"""The first bytes of a database of SQLite; an empty file is one without tables."""


def default_uri(store: Store) -> str:
    """`MLFLOW_TRACKING_URI`, or else an SQLite file in the folder of the store, as an absolute address.

    Raises `WrongRequest` if a store that is not a folder has no tracking server, for an address with a password, which
    reports and messages would show, and for one at which there can be no server and no database. Contacts nobody.
    """
    uri = os.environ.get(VARIABLE)
    if uri:
        if fault := _fault(uri):
            raise WrongRequest(f"{VARIABLE}={_without_login(uri)}: {fault}")
        return uri
    if "://" in store.address:
        raise WrongRequest(
            f"store={store.address}: set {VARIABLE} to a tracking server; "
            "only a store in a folder has a database of its own"
        )
    if fault := _file_fault(Path(store.address) / "mlflow.db"):
        raise WrongRequest(f"store={store.address}: {fault}")
    return database_beside(store)


def database_beside(store: Store) -> str:
    """Returns the address of the database in the folder of a store."""
    return f"{SQLITE}{Path(store.address) / 'mlflow.db'}"


def database_file(uri: str) -> Path | None:
    """Returns the file of an SQLite address; None for a server and for any other database."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def _fault(uri: str) -> str:
    """Returns what is wrong with an address; empty if nothing can be seen from here."""
    try:
        parts = urlsplit(uri)
        host, port, password = parts.hostname, parts.port, parts.password
    except ValueError as e:
        return f"is no address: {e}"
    if password:
        return (
            f"holds a password, which links would show; it belongs into {credentials.NAME} and {credentials.PASSWORD}"
        )
    if not is_text(uri) or not uri.isprintable() or " " in parts.netloc or not uri.strip():
        return "is no address: it has blanks or control characters"
    scheme = parts.scheme.partition("+")[0]
    if scheme in SERVERS:
        return "" if host and host.isascii() and "," not in host and port != 0 else "names no host"
    if scheme == "sqlite":
        return _sqlite_fault(uri)
    if scheme in DATABASES:
        return "" if host or parts.query else "names no host"
    known = (*SERVERS, "sqlite", *DATABASES)
    return f"must be http://HOST:PORT of a server, or {SQLITE}/FOLDER/mlflow.db{nearest(scheme, known)}"


def _sqlite_fault(uri: str) -> str:
    path = database_file(uri)
    if path is None or not path.name or path.name == ":memory:" or uri.startswith(f"{SQLITE}file:"):
        return f"names no file, so its runs would be lost: must be {SQLITE}/FOLDER/mlflow.db"
    if not path.absolute().parent.is_dir():
        return f"there is no folder {path.absolute().parent}"
    return _file_fault(path)


def _file_fault(path: Path) -> str:
    """Returns why a file cannot be a database of SQLite; empty if it is one, and if there is none yet."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return f"{path} is a {'folder' if path.is_dir() else 'device or pipe'}, where a database must be"
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except FileNotFoundError:
        return ""
    except NotADirectoryError:
        return f"{path.parent} is no folder"
    except OSError as e:
        return f"{path}: {e.strerror}"
    return "" if start in (b"", _MAGIC) else f"{path} is no database of SQLite"


def _without_login(uri: str) -> str:
    """The address without what stands before `@`, which may hold a password however malformed the rest is."""
    head, _, tail = uri.rpartition("@")
    return f"...@{tail}" if head else uri
