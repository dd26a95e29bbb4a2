"""What an MLflow server is started with: its settings, its command, its environment, and who may ask it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from sweeps import credentials
from sweeps.database import VARIABLE, Database

ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that listen on all others, and the one by which this machine reaches them."""
LOOPBACK = ("localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*", "[::1]", "[[]::1]:*")
"""Hosts under which the machine itself and an SSH tunnel ask. MLflow matches the port too, as a pattern."""


@dataclass(frozen=True)
class Settings:
    """What a server is started with; two servers with equal settings are the same one."""

    database: str
    artifacts: str
    host: str
    port: int
    names: tuple[str, ...]
    """Hosts besides loopback under which requests may come."""
    workers: int

    @property
    def address(self) -> str:
        """Where this machine reaches it."""
        host = ANYWHERE.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The patterns of allowed hosts: each name also with any port, or MLflow would refuse it with one."""
        own = () if self.host in ANYWHERE else (self.host,)
        named = (pattern for name in (*own, *self.names) for pattern in (name, f"{name}:*"))
        return tuple(dict.fromkeys((*LOOPBACK, *named)))

    @property
    def origins(self) -> tuple[str, ...]:
        """The pages from which browsers may send changes: those of the server itself."""
        return tuple(
            f"{scheme}://{name}{port}" for name in self.names for scheme in ("http", "https") for port in ("", ":*")
        )


def command(settings: Settings) -> list[str]:
    """What is started. No secret stands here: every account of the machine reads the arguments of every process."""
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", str(settings.workers)]
    command += ["--host", settings.host, "--port", str(settings.port), "--artifacts-destination", settings.artifacts]
    command += ["--allowed-hosts", ",".join(settings.hosts), "--uvicorn-opts", "--no-access-log"]
    return command + (["--cors-allowed-origins", ",".join(settings.origins)] if settings.origins else [])


def environment(database: Database, ini: Path) -> dict[str, str]:
    """The server's environment, which this account and root alone can read."""
    login = credentials.login()
    # What tells a client where to go is not for the server.
    clients = (VARIABLE, "MLFLOW_TRACKING_URI", credentials.NAME, credentials.PASSWORD)
    return {
        # Four workers with MLflow's own 30 connections each would be more than PostgreSQL takes.
        "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "5",
        "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "5",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **{name: value for name, value in os.environ.items() if name not in clients},
        **database.environment,
        "MLFLOW_BACKEND_STORE_URI": database.of_mlflow,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_AUTH_CONFIG_PATH": str(ini),
        "MLFLOW_AUTH_ADMIN_USERNAME": login.name,
        "MLFLOW_AUTH_ADMIN_PASSWORD": login.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": credentials.session_key(),
    }


def logins(database: Database) -> str:
    """MLflow's settings for logins: its tables are in the same database.

    A password that was right is not hashed again for a minute, which is most of the time that a request takes; a
    password that is changed counts for as long.
    """
    uri = database.of_mlflow.replace("%", "%%")
    return f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {uri}\nauth_cache_ttl_seconds = 60\n"
