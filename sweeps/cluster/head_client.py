"""Connects to the dashboard of a cluster's head, which takes jobs: through an SSH tunnel, with the cluster's token."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ktrain.errors import WrongRequest
from ktrain.fingerprint import regular_file
from ktrain.system.home_folder import expanded

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
PORT = 8265
"""The dashboard's port on the loopback of the head."""
TIMEOUT = 60.0
"""Seconds for a tunnel to open, and again for the head to answer."""


@contextlib.contextmanager
def client(address: str | None, cluster: str | None) -> Iterator[Any]:
    """A `JobSubmissionClient` for a head that has answered, accepted the token and runs the same Ray.

    `address` defaults to `RAY_API_SERVER_ADDRESS` and then to `DEFAULT_ADDRESS`. Given a cluster file instead, opens a
    tunnel to its head for the time of the block. Raises `WrongRequest` if the head cannot be reached or does not fit.
    """
    if address and cluster:
        raise WrongRequest(f"address={address}, cluster={cluster}: give one of them")
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    with tunnel(cluster) if cluster else contextlib.nullcontext(address) as head:
        headers = {"Authorization": f"Bearer {token}"} if (token := _token()) else {}
        _check(head, cluster, headers)
        # Ray prefers these variables to the address that it is given.
        for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            os.environ.pop(name, None)
        from ray.job_submission import JobSubmissionClient

        for module in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
        logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
        yield JobSubmissionClient(head, headers=headers)


@contextlib.contextmanager
def tunnel(cluster: str, remote: int = PORT) -> Iterator[str]:
    """A local address for a port on the loopback of a cluster's head, over SSH. Raises `WrongRequest`."""
    cluster = os.path.expanduser(cluster)
    if not Path(cluster).is_file():
        raise WrongRequest(f"cluster={cluster}: no such file")
    port = _free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "dashboard", cluster]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, f"--port={port}", f"--remote-port={remote}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            end = time.monotonic() + TIMEOUT
            while not _is_open(port):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    last_line = log.read().decode(errors="replace").strip().splitlines()[-1:]
                    raise WrongRequest(f"cluster={cluster}: no tunnel to its head; is it up? {' '.join(last_line)}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            # The whole process group: the SSH that it started would survive it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _token() -> str:
    """The cluster's token, from where Ray looks for it; empty if there is none. Raises `WrongRequest`."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    configured = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(configured) if configured else expanded("~/.ray/auth_token")
    try:
        return regular_file(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        if configured:
            reason = getattr(e, "strerror", None) or e
            raise WrongRequest(f"RAY_AUTH_TOKEN_PATH={configured}: not readable: {reason}") from e
        return ""


def _check(address: str, cluster: str | None, headers: dict[str, str]) -> None:
    """Raises `WrongRequest` unless a head answers at the address, accepts the token and runs this version of Ray."""
    import ray
    import requests

    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongRequest(f"address={address}: must be http://127.0.0.1:PORT, the head's dashboard behind a tunnel")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise WrongRequest(
            f"address={address}: not on this machine, so the token would cross the network unprotected; open a tunnel "
            "with `ray dashboard FILE`, or name the file with --cluster"
        )
    request = f"cluster={cluster}" if cluster else f"address={address}"
    try:
        answer = requests.get(f"{address.rstrip('/')}/api/version", headers=headers, timeout=TIMEOUT)
    except requests.RequestException as e:
        hint = "is its head up?" if cluster else "open a tunnel with `ray dashboard FILE`, or name it with --cluster"
        raise WrongRequest(f"{request}: no head of a cluster answers there; {hint}") from e
    if answer.status_code == 401:
        raise WrongRequest(
            f"{request}: the cluster requires its token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        )
    if answer.status_code == 403:
        raise WrongRequest(f"{request}: the cluster has another token than this machine")
    try:
        version = str(answer.json()["ray_version"])
    except (ValueError, KeyError, TypeError) as e:
        raise WrongRequest(f"{request}: the server there is not a dashboard of Ray") from e
    if version != ray.__version__:
        raise WrongRequest(
            f"{request}: the cluster runs Ray {version}, here is {ray.__version__}; they must be the same"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
