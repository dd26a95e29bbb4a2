"""Credentials of this account's servers, in files that only this account can read, and never on a command line.

Files and environment use MLflow's own variable names, so a shell or a job can source a file as it is.
"""

import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ktrain.errors import WrongRequest
from ktrain.system.atomic_write import atomic_write
from ktrain.system.home_folder import expanded

NAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
LOGIN, SESSIONS, PASSFILE = "mlflow.env", "mlflow.secret", "pgpass"


def folder() -> Path:
    """Returns the folder of this account's servers: `ktrain` in `XDG_CONFIG_HOME`, or in `~/.config`."""
    return expanded(os.environ.get("XDG_CONFIG_HOME") or "~/.config") / "ktrain"


def write(path: Path, text: str, *, keep: bool = False) -> None:
    """Writes a file atomically, never readable by other accounts; with `keep`, an existing file stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic_write(path, text, mode=0o600, keep_existing=keep)


def _secret(path: Path) -> str:
    """Returns the text of a secret. Raises as `private` does, and `WrongRequest` for what is no text."""
    try:
        return private(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise WrongRequest(f"{path}: is no text; remove it, and `ktrain serve` makes another") from None


def private(path: Path) -> Path:
    """Returns the path of a secret. Raises `WrongRequest` if other accounts may read it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise WrongRequest(f"{path}: others may read it (mode {mode:o}), and it holds a secret: chmod 600 {path}")
    return path


def lines(path: Path) -> dict[str, str]:
    """Returns the `NAME=value` lines of a private file, none if there is no file. Raises as `private` does."""
    if not path.is_file():
        return {}
    parts = (line.partition("=") for line in _secret(path).splitlines())
    return {name: value for name, equals, value in parts if equals and not name.startswith("#")}


@dataclass(frozen=True)
class Login:
    """The administrator of an MLflow server."""

    name: str
    password: str
    source: str
    """The file or the variable that holds the password."""


def login() -> Login:
    """Returns the administrator's login: from MLflow's variables, else from a file that the first call makes."""
    name = os.environ.get("MLFLOW_AUTH_ADMIN_USERNAME") or "admin"
    if password := os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD"):
        return Login(name, password, "MLFLOW_AUTH_ADMIN_PASSWORD")
    path = folder() / LOGIN
    if not path.is_file():
        comment = f"# The login of this account's MLflow server. In a shell: set -a; . {path}; set +a\n"
        write(path, f"{comment}{NAME}={name}\n{PASSWORD}={secrets.token_urlsafe(24)}\n", keep=True)
    kept = lines(path)
    if not kept.get(NAME) or not kept.get(PASSWORD):
        raise WrongRequest(f"{path}: has no lines {NAME}=... and {PASSWORD}=...")
    return Login(kept[NAME], kept[PASSWORD], str(path))


def session_key() -> str:
    """Returns the key that the server signs sessions with. It survives a restart, and no client knows it."""
    if key := os.environ.get("MLFLOW_FLASK_SERVER_SECRET_KEY"):
        return key
    path = folder() / SESSIONS
    if not path.is_file():
        write(path, secrets.token_urlsafe(32), keep=True)
    return _secret(path).strip()


def passfile(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Returns PostgreSQL's password file: `PGPASSFILE`, else that of `cluster/services/head.sh` if it exists.

    Raises `WrongRequest` if other accounts may read it, because PostgreSQL would silently ignore it, and if the file
    that `PGPASSFILE` names is missing.
    """
    named = environment.get("PGPASSFILE")
    path = Path(named or folder() / PASSFILE)
    if named and not path.is_file():
        raise WrongRequest(f"PGPASSFILE={named}: no such file")
    return private(path) if path.is_file() else None
