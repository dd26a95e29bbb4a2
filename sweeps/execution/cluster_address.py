"""Where the Ray of a command is: the address that names it, and whether Ray answers there.

Ray itself takes a quarter of an hour to give up an address where nothing listens, and for `auto` joins whatever cluster
it finds on the machine, which may be another account's and then could run code here.
"""

import os
import re
import socket
from collections.abc import Iterator

import psutil

from ktrain.errors import WrongRequest
from sweeps.execution.local_ray import PREFIX

VARIABLE = "RAY_ADDRESS"
LOCAL = "local"
"""The address of a Ray that a command starts for itself."""
AUTO = "auto"
"""The address of the cluster of this account that runs on this machine."""
SECONDS = 10.0
"""How long to wait for a connection, and for an answer."""
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})")
_EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _EMPTY_SETTINGS
"""The first bytes of a client of HTTP/2, which Ray speaks; a server answers them with settings of its own."""
_ROOT = 0


def chosen_address() -> str:
    """Returns `local`, or as HOST:PORT the cluster that `RAY_ADDRESS` names, at which Ray answers.

    Raises `WrongRequest` within seconds if none does.
    """
    address = os.environ.get(VARIABLE) or LOCAL
    try:
        return address if address == LOCAL else answering_address(address)
    except WrongRequest as e:
        raise WrongRequest(f"{VARIABLE}={e}") from None


def answering_address(address: str) -> str:
    """Returns a cluster's address as HOST:PORT, at which Ray answers. Raises `WrongRequest`, which begins with the
    address, if none does."""
    if fault := address_fault(address):
        raise WrongRequest(f"{address} {fault[0]}; {fault[1]}")
    host, _, port = (_own_cluster() if address == AUTO else address).rpartition(":")
    host = _as_ray_takes(host.strip("[]"))
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if line := unreachable(host, int(port)) or _is_no_ray(host, int(port)):
        raise WrongRequest(f"{address}: {line if place == address else f'to Ray this is {place}: {line}'}")
    return place


def _as_ray_takes(host: str) -> str:
    """Returns the host that Ray connects to: the outer address of this machine in place of loopback."""
    from ray._private.services import resolve_ip_for_localhost

    return str(resolve_ip_for_localhost(host))


def address_fault(address: str) -> tuple[str, str] | None:
    """Returns what is wrong with the form of a cluster's address and what to write instead, or None."""
    if address in (AUTO, LOCAL):
        return None
    if address.startswith("ray://"):
        return "is Ray Client's, which is not supported: sweeps do not run through it", "use auto, on the head"
    if "://" in address:
        return "is a dashboard's, which takes jobs", "use auto on the head, or ktrain submit --address here"
    match = _HOST_PORT.fullmatch(address)
    if not match or not 0 < int(match[2]) < 65536:
        return "is no HOST:PORT", "use auto on the head, or HEAD:6379"
    return None


def unreachable(host: str, port: int) -> str:
    """Returns why no connection can be made, or an empty string."""
    try:
        socket.create_connection((host, port), SECONDS).close()
    except socket.gaierror:
        return f"there is no host {host}"
    except TimeoutError:
        return f"no answer in {SECONDS:.0f} s: a firewall, or a machine that is off"
    except OSError as e:
        return f"nothing listens there ({e.strerror or e})"
    return ""


def _is_no_ray(host: str, port: int) -> str:
    """Returns why what listens at a port cannot be Ray; an empty string if it may be."""
    if os.environ.get("RAY_USE_TLS", "").lower() in ("1", "true"):
        return ""
    try:
        with socket.create_connection((host, port), SECONDS) as connection, connection.makefile("rb") as answer:
            connection.sendall(_GREETING)
            greeted = answer.read(len(_EMPTY_SETTINGS))[3:4] == _EMPTY_SETTINGS[3:4]
    except OSError:
        greeted = False
    return "" if greeted else "what listens there does not answer as Ray does"


def _own_cluster() -> str:
    """Returns the address of the one cluster of this account, or root, that has a node on this machine.

    Raises `WrongRequest` if there is none or several. The Ray of a run is no cluster: it is that run's alone.
    """
    nodes = set(_nodes())
    own = sorted({address for user, address in nodes if user in (os.getuid(), _ROOT)})
    if len(own) > 1:
        raise WrongRequest(f"{AUTO}: several clusters of yours run here: {', '.join(own)}; name one of them")
    if not own:
        others = sorted({address for _, address in nodes})
        not_joined = f", and that of another account, {', '.join(others)}, is not joined" if others else ""
        raise WrongRequest(f"{AUTO}: no cluster of yours runs here{not_joined}; start it, or unset {VARIABLE}")
    return own[0]


def _nodes() -> Iterator[tuple[int, str]]:
    """Yields the user and the cluster's address of each node of a cluster that runs on this machine."""
    for process in psutil.process_iter(["name", "cmdline", "uids"]):
        # What a process of another account hides is None.
        name, words, users = (process.info[field] for field in ("name", "cmdline", "uids"))
        if name != "raylet" or not words or users is None:
            continue
        flags = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
        address = flags.get("--gcs-address", "")
        if _HOST_PORT.fullmatch(address) and f"/{PREFIX}" not in flags.get("--temp_dir", ""):
            yield users.real, address
