import asyncio
from typing import Any

import pytest
from mlflow.server.assistant.api import assistant_router

from sweeps.services import application, mlflow_server


def asked(path: str, kind: str = "http") -> list[Any]:
    """What an application sends that answers every request with its path."""
    sent: list[Any] = []

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await send(scope["path"])

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    app = application.WithoutAssistant(served)
    asyncio.run(app({"type": kind, "path": path, "headers": [], "method": "GET"}, receive, send))
    return sent


def test_the_assistant_is_closed_and_all_else_is_passed_on() -> None:
    assert len(assistant_router.routes) > 5
    for route in assistant_router.routes:
        assert asked(route.path)[0]["status"] == 404
    for path in ("/", "/health", "/api/2.0/mlflow/runs/search", "/ajax-api/3.0/mlflow/traces"):
        assert asked(path) == [path]


def test_an_assistant_elsewhere_keeps_the_server_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "CLOSED", "/ajax-api/2.0/mlflow/assistant")
    with pytest.raises(RuntimeError, match=r"serves its assistant at /ajax-api/3\.0/mlflow/assistant/"):
        application.WithoutAssistant(None)


def test_mlflow_starts_no_application_but_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import cli, server

    built: list[list[str]] = []

    def start(options: list[str]) -> None:
        for app in ("mlflow.server.fastapi_app:app", "mlflow.server.auth:create_app"):
            built.append(server._build_uvicorn_command("--no-access-log", "127.0.0.1", 5000, 1, app, None, False))
        with pytest.raises(KeyError):
            server._build_uvicorn_command(None, "127.0.0.1", 5000, 1, "mlflow.server:app")

    monkeypatch.setattr(server, "_build_uvicorn_command", server._build_uvicorn_command)
    monkeypatch.setattr(cli, "cli", start)
    mlflow_server.main(["--port", "5000"])
    names = [command[-1] for command in built]
    assert names == [f"sweeps.services.application:{name}" for name in ("create_app", "create_app_with_logins")]
    assert all(command[-2] == "--factory" and "--no-access-log" in command for command in built)
    assert all(command[command.index("--app-dir") + 1] == str(mlflow_server.ROOT) for command in built)
