"""Whom and what the MLflow server of `ktrain serve` lets in: MLflow calls `authorize` for each request.

This module is imported by the server, whose settings name it (`settings.logins`).
"""

import json
import re
from typing import Any

CREATE = "/mlflow/experiments/create"
"""How the path of the request ends that makes an experiment; in front of it stand several versions of the interface."""
PASSED_ON = re.compile(r"mlflow-artifacts:/(?!/)[\w./ -]*")
"""Locations of which the server itself chooses the folder, below that of `--artifacts`."""


def authorize() -> Any:
    """Returns the login of the current request, or the response that refuses it.

    The server writes the files of a run to the location of its experiment, whatever it is, with the rights of the
    account that runs the server. So only locations below its own are let in.
    """
    from flask import Response, request
    from mlflow.server import auth

    login = auth.authenticate_request_basic_auth()
    if isinstance(login, Response) or not request.path.endswith(CREATE):
        return login
    location = _requested_location()
    if not location or is_passed_on(location):
        return login
    message = f"artifact_location={location}: must begin with mlflow-artifacts:/, or be left out"
    refusal = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": message})
    return Response(refusal, status=400, mimetype="application/json")


def is_passed_on(location: str) -> bool:
    """Whether files at a location go to the server's own folder or storage."""
    return PASSED_ON.fullmatch(location) is not None and ".." not in location


def _requested_location() -> str:
    """Returns the location that the current request asks for, as MLflow will read it; empty if there is none."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.service_pb2 import CreateExperiment
    from mlflow.server.handlers import _get_request_message

    try:
        return str(_get_request_message(CreateExperiment()).artifact_location)
    except MlflowException:
        # MLflow will refuse it, and say why.
        return ""
