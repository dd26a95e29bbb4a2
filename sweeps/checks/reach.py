"""Whether something listens at an address."""

import socket

SECONDS = 10.0
"""How long to wait for a connection, and for an answer."""


def unreachable(host: str, port: int) -> str:
    """Why no connection can be made, or an empty text."""
    try:
        socket.create_connection((host, port), SECONDS).close()
    except socket.gaierror:
        return f"there is no host {host}"
    except TimeoutError:
        return f"no answer in {SECONDS:.0f} s: a firewall, or a machine that is off"
    except OSError as e:
        return f"nothing listens there ({e.strerror or e})"
    return ""
