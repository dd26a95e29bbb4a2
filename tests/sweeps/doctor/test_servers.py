import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sweeps.doctor import servers
from sweeps.doctor.finding import FAIL, OK, WARN, CheckContext, Finding

Answer = tuple[int, str]
Answering = Callable[[Callable[[str], Answer]], AbstractContextManager[str]]
Lines = Callable[[Iterable[Finding]], list[tuple[str, str]]]
HERE = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class Served:
    """A tracking server with authentication; it goes by the name localhost alone."""

    port: int
    password: str


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Served]:
    pytest.importorskip("flask_wtf", reason="authentication of MLflow needs Flask-WTF")
    folder, password = tmp_path_factory.mktemp("served"), secrets.token_hex(16)
    shutil.copyfile(database.removeprefix("sqlite:///"), folder / "mlflow.db")
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--app-name", "basic-auth", "--allowed-hosts", "localhost:*"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder)]
    environment = {
        **{name: value for name, value in os.environ.items() if name not in HERE},
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        end = time.monotonic() + 180
        while True:
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        yield Served(port, password)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def ask(setting: CheckContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Finding]]:
    """What is found of a tracking server, asked as a user."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def asked(uri: str, user: str = "", password: str = "", nodes: int = 1) -> list[Finding]:
        for name, value in zip(HERE, (user, password, ""), strict=True):
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
        return list(servers.tracking(replace(setting, tracking=uri, nodes=nodes)))

    return asked


def test_a_server_that_lets_us_in_and_nobody_else(
    served: Served, ask: Callable[..., list[Finding]], lines: Lines
) -> None:
    found = ask(f"http://localhost:{served.port}", "admin", served.password, nodes=3)
    assert lines(found) == [("tracking", OK), ("tracking-access", OK), ("tracking-version", OK)]
    assert found[1].detail == "lets user admin in, and nobody without password"


@pytest.mark.parametrize(
    ("user", "password", "words"),
    [("", "", "401: it asks for a user, and none is set"), ("admin", "wrong", "401: it refuses user admin")],
)
def test_a_server_that_does_not_know_us(
    served: Served, ask: Callable[..., list[Finding]], lines: Lines, user: str, password: str, words: str
) -> None:
    found = ask(f"http://localhost:{served.port}", user, password)
    assert lines(found) == [("tracking", OK), ("tracking-access", FAIL)]
    assert found[1].detail == words and "MLFLOW_TRACKING_PASSWORD" in found[1].fix


def test_a_server_under_a_name_that_it_does_not_go_by(
    served: Served, ask: Callable[..., list[Finding]], lines: Lines
) -> None:
    found = ask(f"http://127.0.0.1:{served.port}", "admin", served.password)
    assert lines(found) == [("tracking", OK), ("tracking-access", FAIL)]
    assert found[1].detail == f"403: the server does not go by the name 127.0.0.1:{served.port}"
    assert "`ktrain serve --allowed-hosts 127.0.0.1`" in found[1].fix and f"'127.0.0.1:{served.port}," in found[1].fix


def test_a_closed_port(port: int, ask: Callable[..., list[Finding]], lines: Lines) -> None:
    found = ask(f"http://127.0.0.1:{port}")
    assert lines(found) == [("tracking", FAIL)] and "Connection refused" in found[0].detail
    assert "ktrain serve" in found[0].fix and f"ssh -N -L {port}:127.0.0.1:{port} HEAD" in found[0].fix


def test_a_host_that_is_not_there(ask: Callable[..., list[Finding]], lines: Lines) -> None:
    found = ask("http://no-such-host.invalid:5000")
    assert lines(found) == [("tracking", FAIL)] and "there is no host no-such-host.invalid" in found[0].detail


def test_a_server_that_takes_connections_and_says_nothing(
    ask: Callable[..., list[Finding]], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = ask(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert lines(found) == [("tracking", FAIL)] and "timed out" in found[0].detail.lower()


@pytest.mark.parametrize(
    ("answers", "result", "words"),
    [
        ({"/health": (404, "")}, [("tracking", FAIL)], "is not MLflow: it answers 404"),
        ({"/health": (200, "OK"), servers.SEARCH: (200, "<html>please log in</html>")}, [("tracking", FAIL)], "200"),
        (
            {"/health": (200, "OK"), servers.SEARCH: (403, "Permission denied")},
            [("tracking", OK), ("tracking-access", FAIL)],
            "403: user me may not read: Permission denied",
        ),
        (
            {"/health": (200, "OK"), servers.SEARCH: (500, "Detected out-of-date database schema")},
            [("tracking", OK), ("tracking-access", FAIL)],
            "500: Detected out-of-date database schema",
        ),
        (
            {"/health": (200, "OK"), servers.SEARCH: (200, "{}"), "/version": (200, "2.9.0")},
            [("tracking", OK), ("tracking-access", OK), ("tracking-version", FAIL)],
            "the server runs 2.9.0, needed is mlflow",
        ),
        (
            {"/health": (200, "OK"), servers.SEARCH: (200, "{}"), "/version": (200, "3.17.0")},
            [("tracking", OK), ("tracking-access", OK), ("tracking-version", WARN)],
            "the server runs 3.17.0, here is 3.",
        ),
        (
            {"/health": (200, "OK"), servers.SEARCH: (200, "{}"), "/version": (200, "a proxy")},
            [("tracking", OK), ("tracking-access", OK), ("tracking-version", FAIL)],
            "the server says 'a proxy'",
        ),
    ],
)
def test_servers_that_answer_something_else(
    answers: dict[str, Answer],
    result: list[tuple[str, str]],
    words: str,
    answering: Answering,
    ask: Callable[..., list[Finding]],
    lines: Lines,
) -> None:
    with answering(lambda path: answers.get(path, (404, ""))) as uri:
        found = ask(uri, "me", "secret")
    assert lines(found) == result and words in found[-1].detail
    assert not any("secret" in finding.detail + finding.fix for finding in found)


def test_a_server_of_a_cluster_that_asks_for_no_password(
    answering: Answering, ask: Callable[..., list[Finding]]
) -> None:
    answers = {"/health": (200, "OK"), servers.SEARCH: (200, "{}"), "/version": (200, "3.17.2")}
    with answering(lambda path: answers[path]) as uri:
        alone, shared = ask(uri)[1], ask(uri, nodes=3)[1]
    assert (alone.result, shared.result) == (OK, FAIL) and "no password" in shared.detail


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "MLFLOW_TRACKING_URI is not set"),
        ("ftp://host/x", "no address of a server or database"),
        ("http://host:port", "no valid port"),
        ("http://[::1", "no host, or no valid port"),
        ("./mlruns", "no address"),
    ],
)
def test_addresses_that_cannot_be_one(uri: str, words: str, ask: Callable[..., list[Finding]], lines: Lines) -> None:
    found = ask(uri)
    assert lines(found) == [("tracking", FAIL)] and words in found[0].detail


def test_what_a_proxy_cannot_reach_the_proxy_says(
    port: int, ask: Callable[..., list[Finding]], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    found = ask("http://mlflow.example:5000")
    assert lines(found) == [("tracking", FAIL)] and "refused" in found[0].detail.lower()
