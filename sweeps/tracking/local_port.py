"""The port of this machine that `ktrain ui` serves a database at, kept beside it for the links that others print."""

import contextlib
import socket

from ktrain.errors import WrongRequest
from sweeps.tracking.address import database_file
from sweeps.tracking.views import PORT

TRIED = 100
"""How many ports are tried, one after another, until one is free."""
LARGEST = 65_535


def choose_port(uri: str, wanted: int | None) -> int:
    """Returns the port `wanted`, or else the one that served the database last or the next one that is free.

    Raises `WrongRequest` for a port that is taken, and if none is free.
    """
    first = last_port(uri) if wanted is None else wanted
    free = next((port for port in range(first, min(first + TRIED, LARGEST + 1)) if _is_free(port)), None)
    if free is None:
        raise WrongRequest(f"port={first}: it is taken, and so are the {TRIED - 1} after it")
    if wanted not in (None, free):
        raise WrongRequest(f"port={wanted}: something else listens there; {free} is free")
    return free


def last_port(uri: str) -> int:
    """Returns the port that a database was served at last, or the default."""
    with contextlib.suppress(OSError, ValueError):
        if file := database_file(uri):
            port = int(file.with_suffix(".port").read_text())
            return port if 0 < port <= LARGEST else PORT
    return PORT


def note_port(uri: str, port: int) -> None:
    """Notes the port at which a database is served from now on, where its folder can be written."""
    with contextlib.suppress(OSError):
        if (file := database_file(uri)) and last_port(uri) != port:
            file.with_suffix(".port").write_text(f"{port}\n")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the server does: connections that have just ended are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
