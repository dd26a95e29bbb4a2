"""MLflow's client for results, which never reaches a server on this machine through a proxy."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def tracking_client(tracking_uri: str) -> "MlflowClient":
    """Returns a client. A password for a server behind a tunnel would go to a proxy of the environment in clear."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" not in hosts:
            os.environ[name] = ",".join(dict.fromkeys([*hosts, *LOOPBACK]))
    from mlflow import MlflowClient  # Takes a second to import, and drawing does not need it.

    return MlflowClient(tracking_uri=tracking_uri)
