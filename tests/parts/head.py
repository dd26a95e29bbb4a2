"""The MLflow server of a head for tests: a real one, by `ktrain serve`, on a database of a real PostgreSQL."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from postgres import Postgres, free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 580.0
OURS = ("KTRAIN_", "MLFLOW_", "PG", "XDG_")
"""What the shell says about servers is not for tests."""


@dataclass
class Head:
    """One server at one port, with settings and secrets in a folder of its own."""

    postgres: Postgres
    database: str
    folder: Path
    port: int

    @classmethod
    def prepared(cls, postgres: Postgres, database: str, folder: Path) -> "Head":
        """A head whose server does not run yet, and whose database is made, empty."""
        postgres.create(database)
        return cls(postgres, database, folder, free_port())

    @property
    def uri(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        """Where the server keeps its files."""
        return self.folder / "config" / "ktrain"

    @property
    def login(self) -> dict[str, str]:
        """The environment of a client that is let in."""
        lines = (line.partition("=") for line in (self.config / "mlflow.env").read_text().splitlines())
        return {"MLFLOW_TRACKING_URI": self.uri} | {name: value for name, _, value in lines if name[0] != "#"}

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of `ktrain serve`: the password of the database is there alone."""
        url = self.postgres.url(self.database, password=True)
        own = {"XDG_CONFIG_HOME": str(self.folder / "config"), "XDG_DATA_HOME": str(self.folder / "data")}
        shell = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        path = {"PYTHONPATH": str(ROOT), "KTRAIN_CACHE": str(ROOT / ".cache")}
        return {**shell, **path, **own, "KTRAIN_DATABASE_URL": url, **more}

    def serve(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`ktrain serve` at this head's port, to its end."""
        command = [sys.executable, "-m", "sweeps.cli", "serve", "--port", str(self.port), *words]
        return subprocess.run(
            command, env=self.environment(**environment), capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def start(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        """Starts the server unless it runs well, and returns what the command says."""
        done = self.serve("--detach", "--workers", "1", *words, **(environment or {}))
        assert done.returncode == 0, done.stderr + self.log()
        return done.stdout

    def stop(self) -> None:
        """Ends the server as its user does."""
        done = self.serve("--stop")
        assert done.returncode == 0, done.stderr

    def kill(self) -> None:
        """Ends the server and all its processes at once, as a machine that goes away does."""
        if self.process:
            os.killpg(self.process, signal.SIGKILL)

    @property
    def process(self) -> int:
        """The id of the server's first process; 0 where none was started."""
        file = self.config / f"mlflow-{self.port}.json"
        return int(json.loads(file.read_text())["process"]) if file.is_file() else 0

    def log(self) -> str:
        """What the server has said."""
        file = self.config / f"mlflow-{self.port}.log"
        return file.read_text() if file.is_file() else ""
