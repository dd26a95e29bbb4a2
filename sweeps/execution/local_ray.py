"""A Ray of this machine alone, which nobody but the run that starts it can use.

Ray runs any code that it is sent. By default it listens on all addresses of a machine, and keeps its files where
everybody may write.
"""

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ktrain.errors import WrongRequest, shorten
from ktrain.system.ownership import writable_by_others

VARIABLES = ("RAY_TMPDIR", "TMPDIR")
BASES = ("/tmp", "/var/tmp")
"""Where a run's folder lies if the variables name no folder that will do."""
PREFIX = "ktrain-ray-"
LONGEST_SOCKET = 107
"""Bytes of the longest path that Linux takes for a socket."""
SOCKET = "/ray/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"
"""The longest path of a socket that Ray makes in its folder; 4194304 is the largest process id."""
SETTLED = 60.0
"""Seconds after which a folder that no run holds counts as left over."""
log = logging.getLogger("ktrain.ray")


_CONSTANTS = {
    # Without clusters, Ray takes 127.0.0.1 for the address of its node, where all its processes then listen.
    "ENABLE_RAY_CLUSTER": "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    # Below `uv run`, Ray would send the working folder to its workers, whatever lies there, and have uv start them.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "RAY_ENABLE_UV_RUN_RUNTIME_ENV",
}
"""What Ray does elsewhere, and not here: its constants, each with the variable that it reads once, when imported."""


@contextlib.contextmanager
def confined() -> Iterator[None]:
    """Lets a Ray that is started inside listen on loopback only, ask for a fresh token, run its workers as this process
    runs, and keep its files in a folder of mode 0700, which is removed at the end.

    Settings reach Ray's processes through the environment, which only this account can read. Whatever the user has set
    for a cluster is there again afterwards. Raises `WrongRequest` if no folder will do.
    """
    from ray._private import ray_constants

    folder, passed_over = make_private_folder()
    for line in passed_over:
        log.warning("%s; the files of Ray lie in %s", line, folder.parent)
    with _held(folder):
        settings = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": str(folder),
            **dict.fromkeys(_CONSTANTS.values(), "0"),
        }
        before = {name: os.environ.get(name) for name in settings}
        constants = {name: getattr(ray_constants, name) for name in _CONSTANTS}
        try:
            os.environ.update(settings)
            for name in constants:
                setattr(ray_constants, name, False)
            _reread_environment()
            yield
        finally:
            for name, constant in constants.items():
                setattr(ray_constants, name, constant)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            _reread_environment()


def make_private_folder() -> tuple[Path, list[str]]:
    """Makes a folder of mode 0700 that nobody else can write to or rename; returns it, and why each folder that
    comes before was passed over.

    It lies in the first of `RAY_TMPDIR`, `TMPDIR`, `/tmp` and `/var/tmp` that allows it and whose path leaves room for
    the names of Ray's sockets. Raises `WrongRequest` if none does.
    """
    named = [(f"{name}=", os.environ[name]) for name in VARIABLES if os.environ.get(name)]
    passed_over: list[str] = []
    for prefix, base in [*named, *(("", base) for base in BASES)]:
        try:
            return _private_folder_in(Path(base).expanduser().absolute()), passed_over
        except (OSError, RuntimeError) as e:
            passed_over.append(f"{prefix}{shorten(base)}: {getattr(e, 'strerror', None) or e}")
    raise WrongRequest(f"Ray needs a private folder, and there is none: {'; '.join(passed_over)}")


def _private_folder_in(base: Path) -> Path:
    """Makes a run's folder in another one. Raises `OSError` if that does not allow it or does not keep it private."""
    longest = LONGEST_SOCKET - len(SOCKET) - len(f"/{PREFIX}12345678")
    if len(os.fsencode(base)) > longest:
        raise OSError(f"too long for the sockets of Ray, whose folder may have {longest} bytes")
    _remove_leftovers(base)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    if reason := writable_by_others(folder):
        folder.rmdir()
        raise OSError(reason)
    return folder


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Holds a lock on a run's folder, and removes the folder at the end."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(base: Path) -> None:
    """Removes the folders of runs that were killed: each holds a lock on its folder while it lives."""
    for old in base.glob(f"{PREFIX}*"):
        try:
            held = os.open(old, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            status = os.fstat(held)
            # A run takes the lock right after it has made its folder.
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > SETTLED:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(held)


def _reread_environment() -> None:
    """Ray reads its token and whether to ask for one only once in a process."""
    from ray import _raylet

    core: Any = _raylet
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()
