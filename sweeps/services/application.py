"""The applications that MLflow servers run: MLflow's own, without its assistant.

The assistant of MLflow 3.17 runs shell commands on the machine of the server, with the rights of its account, for
everyone whose request comes from this machine: any other account here, and whoever has a login and an SSH tunnel. The
AI gateway, which would call services with the server's secrets, is switched off by `ENVIRONMENT`.
"""

from typing import Any

CLOSED = "/ajax-api/3.0/mlflow/assistant"
"""Where the paths of the assistant begin."""
ENVIRONMENT = {"MLFLOW_ENABLE_AI_GATEWAY": "false", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Settings of every server."""


class WithoutAssistant:
    """An ASGI application that answers 404 below `CLOSED` and hands every other request to MLflow's."""

    def __init__(self, app: Any) -> None:
        """Raises `RuntimeError` if this version of MLflow has an assistant elsewhere."""
        from mlflow.server.assistant.api import assistant_router

        if open_paths := [path for route in assistant_router.routes if not (path := route.path).startswith(CLOSED)]:
            raise RuntimeError(f"MLflow serves its assistant at {open_paths[0]}, which is not closed")
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request."""
        from starlette.responses import JSONResponse

        if scope.get("path", "").startswith(CLOSED):
            refusal = {"error_code": "ENDPOINT_NOT_FOUND", "message": "the assistant is not served"}
            await JSONResponse(refusal, 404)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def create_app() -> WithoutAssistant:
    """Returns the application of a server that nobody logs in to."""
    from mlflow.server import fastapi_app

    return WithoutAssistant(fastapi_app.app)


def create_app_with_logins() -> WithoutAssistant:
    """Returns the application of a server with logins."""
    from mlflow.server import auth

    return WithoutAssistant(auth.create_app())
