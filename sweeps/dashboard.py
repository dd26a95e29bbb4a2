"""The way to a cluster's head: its dashboard, which takes jobs, through a tunnel and with the cluster's token."""

import argparse
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

DEFAULT = "http://127.0.0.1:8265"
PORT = 8265
"""Where the head's dashboard listens, on its own loopback."""
PATIENCE = 60.0
"""Seconds for a tunnel to open, and for the head to answer."""


def options(parser: argparse.ArgumentParser) -> None:
    """Adds `--address` and `--cluster`: which cluster is meant."""
    parser.add_argument("--address", help=f"the dashboard of the cluster's head, behind a tunnel (default: {DEFAULT})")
    parser.add_argument("--cluster", metavar="FILE", help="the cluster's file; the tunnel is made for the command")


@contextlib.contextmanager
def client(address: str | None, cluster: str | None) -> Iterator[Any]:
    """A `JobSubmissionClient` of a head that has answered, taken the token and runs the same Ray.

    `address` defaults to `RAY_API_SERVER_ADDRESS` and then to `DEFAULT`; of a cluster's file, its head behind a tunnel
    that lasts as long as the block. Raises `WrongRequest` for what cannot be reached or is not this cluster.
    """
    if address and cluster:
        raise WrongRequest(f"address={address}, cluster={cluster}: one of them says which cluster is meant")
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT
    with tunnel(cluster) if cluster else contextlib.nullcontext(address) as reached:
        headers = {"Authorization": f"Bearer {token}"} if (token := _token()) else {}
        _check(reached, cluster, headers)
        # Ray would rather take the address from here than the one that it is given.
        for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            os.environ.pop(name, None)
        from ray.job_submission import JobSubmissionClient

        for module in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
        logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)
        yield JobSubmissionClient(reached, headers=headers)


@contextlib.contextmanager
def tunnel(cluster: str, remote: int = PORT) -> Iterator[str]:
    """The address here of a port on the loopback of a cluster's head, over SSH. Raises `WrongRequest`."""
    if not Path(cluster).is_file():
        raise WrongRequest(f"cluster={cluster}: no such file")
    port = _free()
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
            end = time.monotonic() + PATIENCE
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip().splitlines()[-1:]
                    raise WrongRequest(f"cluster={cluster}: no tunnel to its head; is it up? {' '.join(said)}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            # With it the SSH that it started, which would live on.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def _token() -> str:
    """The cluster's token, where Ray looks for it; empty where there is none. Raises `WrongRequest`."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip()
    except OSError as e:
        if named:
            raise WrongRequest(f"RAY_AUTH_TOKEN_PATH={named}: not readable: {e.strerror}") from e
        return ""


def _check(address: str, cluster: str | None, headers: dict[str, str]) -> None:
    """Raises `WrongRequest` unless a head answers at the address, takes the token and runs the Ray that is here."""
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
    asked = f"cluster={cluster}" if cluster else f"address={address}"
    try:
        answer = requests.get(f"{address.rstrip('/')}/api/version", headers=headers, timeout=PATIENCE)
    except requests.RequestException as e:
        hint = "is its head up?" if cluster else "open a tunnel with `ray dashboard FILE`, or name it with --cluster"
        raise WrongRequest(f"{asked}: no head of a cluster answers there; {hint}") from e
    if answer.status_code == 401:
        raise WrongRequest(
            f"{asked}: the cluster wants its token: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        )
    if answer.status_code == 403:
        raise WrongRequest(f"{asked}: the cluster has another token than the one found here")
    try:
        version = str(answer.json()["ray_version"])
    except (ValueError, KeyError, TypeError) as e:
        raise WrongRequest(f"{asked}: what answers there is not the dashboard of Ray") from e
    if version != ray.__version__:
        raise WrongRequest(f"{asked}: the cluster runs Ray {version}, here is {ray.__version__}; they must be the same")


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
