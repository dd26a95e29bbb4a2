"""Credentials: secrets of this account, in files that nobody else may read, and never on a command line.

MLflow's own names are used in environment and files, so a shell or a job can take a file over as it is.
"""

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ktrain.errors import WrongRequest

NAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
LOGIN, SESSIONS, PASSFILE = "mlflow.env", "mlflow.secret", "pgpass"


def folder() -> Path:
    """Where this account keeps what belongs to its servers: `ktrain` in `XDG_CONFIG_HOME`, or in `~/.config`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "ktrain"


def write(path: Path, text: str, *, keep: bool = False) -> None:
    """A file in one step, readable to this account alone from its first moment; `keep` leaves one that is there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    if not keep:
        os.replace(fresh, path)
        return
    with suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()


def private(path: Path) -> Path:
    """The path of a secret, checked. Raises `WrongRequest` where others may read it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise WrongRequest(f"{path}: others may read it (mode {mode:o}), and it holds a secret: chmod 600 {path}")
    return path


def lines(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a private file; none where there is no file. Raises as `private` does."""
    if not path.is_file():
        return {}
    told = (line.partition("=") for line in private(path).read_text(encoding="utf-8").splitlines())
    return {name: value for name, equals, value in told if equals and not name.startswith("#")}


@dataclass(frozen=True)
class Login:
    """The administrator of an MLflow server."""

    name: str
    password: str
    source: str
    """Where the password is from: a file, or the name of a variable."""


def login() -> Login:
    """The administrator's login: from MLflow's environment for servers, else from the file, made at the first call."""
    name = os.environ.get("MLFLOW_AUTH_ADMIN_USERNAME") or "admin"
    if password := os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD"):
        return Login(name, password, "MLFLOW_AUTH_ADMIN_PASSWORD")
    path = folder() / LOGIN
    if not path.is_file():
        about = f"# The login of this account's MLflow server. In a shell: set -a; . {path}; set +a\n"
        write(path, f"{about}{NAME}={name}\n{PASSWORD}={secrets.token_urlsafe(24)}\n", keep=True)
    kept = lines(path)
    if not kept.get(NAME) or not kept.get(PASSWORD):
        raise WrongRequest(f"{path}: has no lines {NAME}=... and {PASSWORD}=...")
    return Login(kept[NAME], kept[PASSWORD], str(path))


def session_key() -> str:
    """What the server signs its sessions with: the same after a restart, and known to no client."""
    if key := os.environ.get("MLFLOW_FLASK_SERVER_SECRET_KEY"):
        return key
    path = folder() / SESSIONS
    if not path.is_file():
        write(path, secrets.token_urlsafe(32), keep=True)
    return private(path).read_text(encoding="utf-8").strip()


def passfile(environment: Mapping[str, str] = os.environ) -> Path | None:
    """PostgreSQL's own file of passwords: `PGPASSFILE`, else the one of `cluster/services/head.sh`, if it is there.

    Raises `WrongRequest` where others may read it, which PostgreSQL itself takes for no file at all, and where the
    named one is missing.
    """
    named = environment.get("PGPASSFILE")
    path = Path(named or folder() / PASSFILE)
    if named and not path.is_file():
        raise WrongRequest(f"PGPASSFILE={named}: no such file")
    return private(path) if path.is_file() else None
