"""What an error of a tracking server means, in one line."""

import os

from ktrain.errors import WrongRequest
from sweeps.services import credentials


def refusal(uri: str, error: Exception) -> WrongRequest:
    """The one-line error for a server that refuses requests or does not answer."""
    status = status_of(error)
    user = os.environ.get(credentials.NAME)
    if status == 401:
        who = f"{credentials.NAME}={user}" if user else "requests without a login"
        problem = f"refuses {who}; {credentials.NAME} and {credentials.PASSWORD} must be a login of that server"
    elif "Invalid Host header" in str(error):
        problem = "does not serve under this name; `ktrain serve --allowed-hosts NAME` would"
    elif isinstance(error, ValueError | TypeError | LookupError | AttributeError | RecursionError):
        problem = f"holds what cannot be read: {first_line(error)}"
    elif status == 403:
        problem = f"does not allow {user or 'this'} to do it: {first_line(error)}"
    else:
        problem = f"does not answer: {first_line(error)}"
    return WrongRequest(f"MLFLOW_TRACKING_URI={uri}: {problem}")


def reason(uri: str, error: Exception) -> str:
    """Why a delivery has failed that will be tried again."""
    if status_of(error) in (401, 403):
        return str(refusal(uri, error))
    return f"MLflow at {uri} does not answer now ({first_line(error)})"


def status_of(error: Exception) -> int | None:
    """The HTTP status with which a server has answered; None for any other error."""
    from mlflow.exceptions import MlflowException

    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else None


def first_line(error: Exception) -> str:
    """The first line of an error's message, shortened."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
