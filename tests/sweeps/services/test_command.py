"""`ktrain serve`: what it refuses, what it starts, and who is let in there."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests
from head import Head
from mlflow import MlflowClient
from mlflow.entities import FileInfo
from postgres import free_port

from ktrain.errors import WrongRequest
from sweeps import cli
from sweeps.services import application, credentials, process
from sweeps.services.process import ServerProcess
from sweeps.services.settings import ServerSettings, command

SETTINGS = ServerSettings("postgresql://me@db/lab", "/artifacts", "127.0.0.1", 5000, (), 2)


@pytest.fixture
def serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """`ktrain serve` in this process, for what never comes to starting a server."""
    for name in list(os.environ):
        if name.startswith(("KTRAIN_DATABASE", "KTRAIN_ARTIFACTS", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    environment = dict(os.environ)

    def run(*words: str) -> tuple[int, str, str]:
        return cli.main(["serve", *words]), *capfd.readouterr()

    yield run
    os.environ.clear()
    os.environ.update(environment)


def listening() -> tuple[socket.socket, int]:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken, taken.getsockname()[1]


# What is refused before anything starts.

URL = "--database postgresql://me@127.0.0.1:1/lab"
WRONG = {
    "no database": ("", "database: not named; --database or KTRAIN_DATABASE_URL is postgresql://"),
    "a database of another kind": ("--database sqlite:///x.db", "database=sqlite:///x.db: must be postgresql://"),
    "no port": (f"{URL} --port 0", "port=0: must be from 1 to 65535"),
    "no such port": (f"{URL} --port 70000", "port=70000: must be from 1 to 65535"),
    "a port that is no number": (f"{URL} --port x", "port=x: must be a valid integer"),
    "no workers": (f"{URL} --workers 0", "workers=0: must be at least 1"),
    "no time": (f"{URL} --wait nan", "wait=nan: must be seconds from 0"),
    "everybody, without a name": (f"{URL} --host 0.0.0.0", "host=0.0.0.0: other machines could reach it"),
    "a name, without a name": (f"{URL} --host example.org", "host=example.org: other machines could reach it"),
    "any name": (f"{URL} --host 0.0.0.0 --allowed-hosts *", "allowed-hosts=*: must be names of hosts"),
    "an address for a name": (f"{URL} --allowed-hosts http://a", "allowed-hosts=http://a: must be names of hosts"),
    "artifacts nowhere": (f"{URL} --artifacts /proc/x", "artifacts=/proc/x: not writable"),
    "artifacts of another kind": (f"{URL} --artifacts s4://x/y", "artifacts=s4://x/y: must be a folder or s3://"),
    "a host that is not ours": (f"{URL} --host 192.0.2.1 --allowed-hosts a", "host=192.0.2.1, port=5000: cannot be"),
    "a database that is not there": (f"{URL} --wait 0", "database=postgresql://me@127.0.0.1:1/lab: does not answer"),
    "two things at once": ("--stop --check", "--stop --check: must be one of them at a time"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_costs_one_line_and_starts_nothing(
    serve: Callable[..., tuple[int, str, str]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("started")

    monkeypatch.setattr(ServerProcess, "_begin", refuse)
    words, told = WRONG[name]
    code, out, error = serve(*words.split())
    assert (code, out) == (2, "") and error.startswith("ktrain: ") and len(error.splitlines()) == 1
    assert told in error


def test_a_port_in_use_is_told_before_the_database_is_asked(serve: Callable[..., tuple[int, str, str]]) -> None:
    taken, port = listening()
    with taken:
        code, _, error = serve(*URL.split(), "--port", str(port))
    assert code == 2 and f"port={port}: cannot be listened on: Address already in use" in error


@pytest.mark.parametrize("module", ["psycopg", "flask_wtf"])
def test_a_missing_package_is_told_with_what_installs_it(
    serve: Callable[..., tuple[int, str, str]], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import util

    find = util.find_spec
    for place in ("importlib.util.find_spec", "sweeps.services.database.find_spec"):
        monkeypatch.setattr(place, lambda name, *more: None if name == module else find(name, *more))
    code, _, error = serve(*URL.split())
    assert code == 2 and "is not installed: pip install 'ktrain[cluster]'" in error


def test_nothing_runs_and_nothing_is_stopped(serve: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = serve("--check")
    assert code == 1 and "does not run: `ktrain serve --detach` starts it" in out
    assert serve("--stop")[:2] == (0, "MLflow at port 5000: nothing to stop\n")


# What is started.


def test_a_name_is_allowed_with_any_port_and_loopback_always() -> None:
    settings = ServerSettings("d", "a", "0.0.0.0", 5000, ("mlflow.example.org", "10.0.*"), 2)
    hosts = command(settings)[command(settings).index("--allowed-hosts") + 1].split(",")
    assert {"mlflow.example.org", "mlflow.example.org:*", "10.0.*", "localhost:*", "127.0.0.1", "[::1]"} <= set(hosts)
    assert not {"*", "0.0.0.0", "0.0.0.0:*"} & set(hosts)
    origins = command(settings)[command(settings).index("--cors-allowed-origins") + 1].split(",")
    assert "https://mlflow.example.org" in origins and "http://mlflow.example.org:*" in origins
    assert "--cors-allowed-origins" not in command(SETTINGS)
    assert settings.address == "http://127.0.0.1:5000"
    assert ServerSettings("d", "a", "::1", 5000, (), 2).address == "http://[::1]:5000"


def test_a_process_that_took_over_the_number_is_not_meant(serve: object, tmp_path: Path) -> None:
    mine = psutil.Process()
    record = {"process": os.getpgid(mine.pid), "mark": "of a server", "settings": {}}
    credentials.write(ServerProcess(5000).file("json"), json.dumps(record))
    assert ServerProcess(5000).processes() == [] and not ServerProcess(5000).stop() and mine.is_running()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ud800",
        "[1]",
        "[" * 100_000,
        '{"mark": "m"}',
        '{"process": "1", "mark": "m", "settings": {}}',
        '{"process": 1, "mark": 2, "settings": {}}',
        '{"process": 1, "mark": "m", "settings": {"port": 5000}}',
    ],
)
def test_a_damaged_record_is_named_by_every_command_that_needs_it(
    text: str, monkeypatch: pytest.MonkeyPatch, serve: object
) -> None:
    file = ServerProcess(5000).file("json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, errors="surrogatepass")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    with pytest.raises(WrongRequest, match=r"mlflow-5000.json: is not what `ktrain serve` has written; remove it"):
        process.log_in()
    file.unlink()
    process.log_in()


@pytest.mark.parametrize("mark", ["", "of another server", "of the server"])
def test_where_the_first_process_is_gone_only_those_of_its_start_are_stopped(
    serve: object, tmp_path: Path, mark: str
) -> None:
    """A group outlives its first process, and any process may have its number by then."""
    shell = ["sh", "-c", "sleep 300 & echo $!"]
    environment = {**os.environ, process.MARK: mark}
    with subprocess.Popen(shell, env=environment, stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout is not None
        left = psutil.Process(int(leader.stdout.readline()))
        leader.wait()
        try:
            record = {"process": leader.pid, "mark": "of the server", "settings": {}}
            credentials.write(ServerProcess(5000).file("json"), json.dumps(record))
            assert os.getpgid(left.pid) == leader.pid and ServerProcess(5000).stop() == (mark == "of the server")
            assert left.is_running() == (mark != "of the server")
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


def answer(head: Head, path: str, **named: object) -> requests.Response:
    return requests.get(head.uri + path, timeout=60, **named)  # type: ignore[arg-type]


def test_nobody_is_let_in_without_a_login(head: Head) -> None:
    login = (head.login["MLFLOW_TRACKING_USERNAME"], head.login["MLFLOW_TRACKING_PASSWORD"])
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    artifacts = "/api/2.0/mlflow-artifacts/artifacts?path="
    assert answer(head, "/health").status_code == 200
    for path in ("/", search, search.replace("/api", "/ajax-api"), artifacts, "/graphql", "/api/2.0/mlflow/users/get"):
        for wrong in (None, ("admin", "wrong"), ("admin", ""), ("nobody", login[1])):
            assert answer(head, path, auth=wrong).status_code == 401, (path, wrong)
    assert answer(head, search, auth=login).status_code == 200
    assert answer(head, artifacts, auth=login).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("PUT", "config"), ("POST", "message"), ("GET", "providers")])
def test_mlflows_assistant_which_runs_shell_commands_is_not_served(head: Head, method: str, path: str) -> None:
    """Whoever has a login and a tunnel could let it run anything as the server's account."""
    login = (head.login["MLFLOW_TRACKING_USERNAME"], head.login["MLFLOW_TRACKING_PASSWORD"])
    provider = {
        "model": "m",
        "base_url": "http://127.0.0.1:9/v1",
        "selected": True,
        "permissions": {"full_access": True},
    }
    done = requests.request(
        method,
        f"{head.uri}{application.CLOSED}/{path}",
        json={"providers": {"ollama": provider}, "message": "run id"},
        auth=login,
        timeout=60,
    )
    assert done.status_code == 404 and done.json()["message"] == "the assistant is not served"


def test_only_the_machine_and_tunnels_are_served(head: Head) -> None:
    login = (head.login["MLFLOW_TRACKING_USERNAME"], head.login["MLFLOW_TRACKING_PASSWORD"])
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    for host in ("localhost", "localhost:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:5000"):
        assert answer(head, path, auth=login, headers={"Host": host}).status_code == 200, host
    for host in ("example.org", "example.org:5000", "127.0.0.1.example.org", "localhost.example.org", "10.0.0.1"):
        refused = answer(head, path, auth=login, headers={"Host": host})
        assert refused.status_code == 403 and "Invalid Host header" in refused.text, host


def test_another_page_cannot_make_a_browser_write(head: Head) -> None:
    login = (head.login["MLFLOW_TRACKING_USERNAME"], head.login["MLFLOW_TRACKING_PASSWORD"])
    done = requests.post(
        f"{head.uri}/api/2.0/mlflow/experiments/create",
        json={"name": "planted"}, auth=login, headers={"Origin": "http://example.org"}, timeout=60,
    )  # fmt: skip
    assert done.status_code == 403


def test_no_secret_is_on_a_command_line_or_in_a_file_that_others_may_read(head: Head) -> None:
    said = head.start()
    secrets = [
        head.postgres.password,
        head.login["MLFLOW_TRACKING_PASSWORD"],
        (head.config / "mlflow.secret").read_text(),
    ]
    lines = []
    for running in psutil.process_iter():
        try:
            lines.append(" ".join(running.cmdline()))
        except psutil.Error:
            continue
    assert any(f"--port {head.port}" in line for line in lines)
    files = [path for path in head.folder.rglob("*") if path.is_file()]
    assert len(files) >= 5 and {path.suffix for path in files} >= {".log", ".json", ".ini", ".env", ".secret"}
    for secret in secrets:
        assert len(secret) >= 16 and secret not in said and not [line for line in lines if secret in line]
        holders = {path.name for path in files if secret in path.read_text()}
        # That of the database is given by the environment and stands in no file.
        assert holders <= {"mlflow.env", "mlflow.secret"} and (holders or secret == head.postgres.password)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files if path.suffix != ".lock")


def test_a_server_that_runs_well_is_left_alone(head: Head) -> None:
    before = head.process
    said = head.start()
    assert head.process == before and said.splitlines()[0].startswith(f"MLflow at {head.uri} (process {before}, log ")
    assert said.splitlines()[1] == f"log in as admin; the password is in {head.config}/mlflow.env"
    done = head.serve("--check")
    assert (done.returncode, done.stdout) == (0, f"MLflow at {head.uri} answers, and lets admin in\n")


def test_a_server_with_other_settings_is_not_taken_for_it(head: Head) -> None:
    for words, told in ((("--detach", "--workers", "2"), "other settings"), (("--workers", "1"), "runs already")):
        done = head.serve(*words)
        assert (done.returncode, done.stdout) == (2, "") and told in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_password_that_is_not_the_databases_is_told(head: Head) -> None:
    done = head.serve("--check", MLFLOW_AUTH_ADMIN_PASSWORD="another password")
    assert done.returncode == 1
    assert done.stdout == f"MLflow at {head.uri} refuses admin with the password from MLFLOW_AUTH_ADMIN_PASSWORD\n"


def test_files_of_runs_go_through_the_server(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in head.login.items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(head.uri)
    run = client.create_run(client.create_experiment("files")).info
    assert run.artifact_uri.startswith("mlflow-artifacts:/")
    (tmp_path / "note.txt").write_text("kept")
    client.log_artifact(run.run_id, str(tmp_path / "note.txt"))
    (found,) = client.list_artifacts(run.run_id)
    assert isinstance(found, FileInfo) and (found.path, found.file_size) == ("note.txt", 4)
    assert Path(client.download_artifacts(run.run_id, "note.txt", str(tmp_path / ".."))).read_text() == "kept"
    (file,) = head.folder.glob("data/ktrain/mlflow-artifacts/**/note.txt")
    assert file.read_text() == "kept"


ELSEWHERE = (
    "file:///etc",
    "FILE:///etc",
    "/etc",
    "etc",
    "file:etc",
    "s3://bucket/etc",
    "http://example.org/etc",
    "mlflow-artifacts://example.org/etc",
    "mlflow-artifacts:/../../etc",
    "mlflow-artifacts:/%2e%2e/etc",
    "mlflow-artifacts:etc",
)


@pytest.mark.parametrize("version", ["api/2.0", "ajax-api/2.0"])
def test_an_experiment_lies_in_the_servers_own_storage(head: Head, version: str) -> None:
    login = (head.login["MLFLOW_TRACKING_USERNAME"], head.login["MLFLOW_TRACKING_PASSWORD"])

    def create(**body: str) -> requests.Response:
        named = {"name": f"place {version} {body}"} | body
        address = f"{head.uri}/{version}/mlflow/experiments/create"
        return requests.post(address, json=named, auth=login, timeout=60)

    for location in ELSEWHERE:
        for field in ("artifact_location", "artifactLocation"):
            refused = create(**{field: location})
            assert refused.status_code == 400 and f"artifact_location={location}: must begin" in refused.text, location
            assert refused.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert (
        requests.post(
            f"{head.uri}/{version}/mlflow/experiments/create", json={"artifact_location": ELSEWHERE[0]}, timeout=60
        ).status_code
        == 401
    )
    for allowed in ({}, {"artifact_location": ""}, {"artifact_location": "mlflow-artifacts:/mine/a-b_1.0"}):
        assert create(**allowed).status_code == 200, allowed


def test_a_driver_on_the_head_logs_in_by_itself_and_nowhere_else(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (credentials.NAME, credentials.PASSWORD):
        # Registered, so that what is set below is taken back.
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(head.config.parent))
    taken, port = listening()
    with taken:
        for elsewhere in ("", "sqlite:///x.db", "http://example.org:5000", f"http://127.0.0.1:{port}", "http://h:x"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
            process.log_in()
            assert credentials.PASSWORD not in os.environ, elsewhere
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://localhost:{head.port}/")
    process.log_in()
    assert {name: os.environ[name] for name in (credentials.NAME, credentials.PASSWORD)}.items() <= head.login.items()
    assert MlflowClient(head.uri).search_experiments(max_results=1)


def family(head: Head) -> list[psutil.Process]:
    return [psutil.Process(head.process), *psutil.Process(head.process).children(recursive=True)]


def test_a_server_goes_with_the_one_who_attends_it_and_is_replaced_by_the_next_start(head: Head) -> None:
    processes = family(head)
    head.kill()
    gone, left = psutil.wait_procs(processes, 60)
    assert len(gone) >= 2 and not left
    # In the foreground, as a unit of systemd has it.
    words = [sys.executable, "-m", "sweeps.cli", "serve", "--port", str(head.port), "--workers", "1"]
    with subprocess.Popen(words, env=head.environment(), stdout=subprocess.PIPE) as attended:
        assert attended.stdout is not None and attended.stdout.readline().startswith(b"MLflow at ")
        processes = family(head)
        attended.send_signal(signal.SIGTERM)
        assert attended.wait(120) == 0
    assert not [process for process in processes if process.is_running()] and head.process == 0
    # Two at once, as a boot script and its user may do it: one starts it, and the other finds it well.
    said: list[str] = []
    starts = [threading.Thread(target=lambda: said.append(head.start())) for _ in range(2)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert len(said) == 2 and said[0] == said[1] and f"process {head.process}," in said[0]


def test_a_server_that_cannot_start_is_told_in_a_line(head: Head, tmp_path: Path) -> None:
    other = Head(head.postgres, head.database, tmp_path, free_port())
    done = other.serve("--detach", MLFLOW_AUTH_ADMIN_USERNAME="boss", MLFLOW_AUTH_ADMIN_PASSWORD="short")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "MLflow ended before it answered: " in done.stderr and "password" in done.stderr
    assert str(other.config) in done.stderr and other.process == 0
