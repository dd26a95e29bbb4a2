"""Starts MLflow's server with an application of `application`: `python -m sweeps.services.mlflow_server OPTIONS`.

`mlflow server` knows its own applications alone, and its command line does all else.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.services import application

APPLICATIONS = {
    "mlflow.server.fastapi_app:app": application.create_app,
    "mlflow.server.auth:create_app": application.create_app_with_logins,
}
"""Ours in place of MLflow's."""
ROOT = Path(__file__).parents[2]


def command(*options: str) -> list[str]:
    """Returns the command line that starts a server with options of `mlflow server`."""
    return [sys.executable, "-P", "-m", __name__, *options]


def main(options: Sequence[str]) -> None:
    """Runs the server until it is ended. Raises `KeyError` for an application of MLflow's that is not known here."""
    from mlflow import server
    from mlflow.cli import cli

    build = server._build_uvicorn_command

    def build_ours(opts: str | None, host: str, port: int, workers: int, app: str, *rest: Any, **more: Any) -> Any:
        ours = APPLICATIONS[app]
        # All of ours are factories; and uvicorn would look for them in the working directory first.
        more["is_factory"] = True
        opts = f"{opts or ''} --app-dir '{ROOT}'"
        return build(opts, host, port, workers, f"{ours.__module__}:{ours.__name__}", *rest[:1], **more)

    server._build_uvicorn_command = build_ours
    cli(["server", *options])


if __name__ == "__main__":
    main(sys.argv[1:])
