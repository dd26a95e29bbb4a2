"""Variables of the environment that name a file or a folder below the home, as `~/...`."""

import os
from pathlib import Path

from ktrain.errors import WrongRequest, shorten

VARIABLES = (
    *("KTRAIN_STORE", "KTRAIN_CACHE", "KTRAIN_ARTIFACTS", "TMPDIR", "RAY_TMPDIR", "RAY_AUTH_TOKEN_PATH"),
    *("PGPASSFILE", "PGSERVICEFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"),
    *("MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "AZURE_FEDERATED_TOKEN_FILE"),
    *("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HF_HOME"),
)
"""Those of ours, and those that libraries read themselves, which would look for a folder of the name `~`."""


def expand_home() -> None:
    """Replaces `~` at the start of these variables, for this process and its children.

    A shell does it where it sees the value without quotes; files of variables and other programs leave it. Raises
    `WrongRequest` for a home that begins with `~` itself.
    """
    if (home := os.environ.get("HOME", "")).startswith("~"):
        raise WrongRequest(f"HOME={shorten(home)}: must be the path of a folder, not one below a home")
    for name in VARIABLES:
        if (value := os.environ.get(name, "")).startswith("~"):
            os.environ[name] = os.path.expanduser(value)


def expanded(path: str | Path) -> Path:
    """Returns a path with the home in place of `~`; that of an account that does not exist stays as it is, and is then
    refused as a file or folder that is not there."""
    return Path(os.path.expanduser(path))
