"""The settings of an MLflow server, and the command, environment and login file that they give."""

import os
from dataclasses import dataclass
from pathlib import Path

from sweeps.services import application, authorization, credentials, mlflow_server
from sweeps.services.database import VARIABLE, Database

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Wildcard addresses, and the address at which this machine reaches a server that listens there."""
LOOPBACK = ("localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "[::1]", "[[]::1]:*")
"""`Host` headers of requests from this machine and through SSH tunnels. MLflow matches the port too, as a pattern."""


@dataclass(frozen=True)
class ServerSettings:
    """The settings of a server. Servers with equal settings are interchangeable."""

    database: str
    artifacts: str
    host: str
    port: int
    names: tuple[str, ...]
    """Allowed `Host` headers besides loopback."""
    workers: int

    @property
    def address(self) -> str:
        """The URL at which this machine reaches it."""
        host = ANYWHERE.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Patterns of allowed hosts: each name with and without a port, which MLflow matches too."""
        own = () if self.host in ANYWHERE else (self.host,)
        named = (pattern for name in (*own, *self.names) for pattern in (name, f"{name}:*"))
        return tuple(dict.fromkeys((*LOOPBACK, *named)))

    @property
    def origins(self) -> tuple[str, ...]:
        """Origins from which browsers may send changes: the pages of the server itself."""
        return tuple(
            f"{scheme}://{name}{port}" for name in self.names for scheme in ("http", "https") for port in ("", ":*")
        )


def command(settings: ServerSettings) -> list[str]:
    """Returns the command line. It holds no secret: every account can read the arguments of every process."""
    command = mlflow_server.command("--app-name", "basic-auth", "--workers", str(settings.workers))
    command += ["--host", settings.host, "--port", str(settings.port), "--artifacts-destination", settings.artifacts]
    command += ["--allowed-hosts", ",".join(settings.hosts), "--uvicorn-opts", "--no-access-log"]
    return command + (["--cors-allowed-origins", ",".join(settings.origins)] if settings.origins else [])


def environment(database: Database, ini: Path) -> dict[str, str]:
    """Returns the server's environment, which only this account and root can read."""
    login = credentials.login()
    # The server imports `authorization` from wherever this module was imported.
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    # A client's settings are not for the server.
    clients = (VARIABLE, "MLFLOW_TRACKING_URI", credentials.NAME, credentials.PASSWORD)
    return {
        # MLflow's default of 30 connections for each of four workers exceeds PostgreSQL's limit.
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "5",
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "5",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **{name: value for name, value in os.environ.items() if name not in clients},
        "PYTHONPATH": path,
        **database.environment,
        "MLFLOW_BACKEND_STORE_URI": database.mlflow_uri,
        **application.ENVIRONMENT,
        "MLFLOW_AUTH_CONFIG_PATH": str(ini),
        "MLFLOW_AUTH_ADMIN_USERNAME": login.name,
        "MLFLOW_AUTH_ADMIN_PASSWORD": login.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": credentials.session_key(),
    }


def logins(database: Database) -> str:
    """Returns MLflow's settings for logins, whose tables are in the same database.

    A verified password is cached for a minute, because hashing is most of a request's time. An old password therefore
    works for a minute after a change.
    """
    uri = database.mlflow_uri.replace("%", "%%")
    lines = {
        "default_permission": "READ",
        "database_uri": uri,
        "auth_cache_ttl_seconds": "60",
        "authorization_function": f"{authorization.__name__}:{authorization.authorize.__name__}",
    }
    return "\n".join(["[mlflow]", *(f"{name} = {value}" for name, value in lines.items()), ""])
