"""No client reaches this machine through a proxy, whatever the environment says."""

import http.server
import os
import threading
import urllib.request
from collections.abc import Callable, Iterator

import httpx2
import pytest
import requests
from mlflow import MlflowClient
from ray.job_submission import JobSubmissionClient

from analysis.measurements.tracking_client import tracking_client
from ktrain import ray_job
from ktrain.system.loopback import is_loopback, never_proxied
from sweeps.execution import ray_session

PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class Server(http.server.ThreadingHTTPServer):
    """Says `status` to everything, and keeps what it was asked."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.lines = status, list[str]()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.lines.append(self.requestline)
        self.send_response(self.server.status)
        body = b'{"ray_version": "2.60.0", "version": "4", "experiments": []}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Server]]:
    """A server of this machine, and a proxy that the environment names for everything."""
    own, proxy = Server(200), Server(403)
    for name in (*PROXIES, "no_proxy"):
        for spelling in (name, name.upper()):
            monkeypatch.setenv(spelling, "" if name == "no_proxy" else f"http://127.0.0.1:{proxy.server_port}")
    yield own, proxy
    for server in (own, proxy):
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("prepare", [never_proxied, ray_job.ready, ray_session.prepare])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_never_proxied(
    prepare: Callable[[], None], host: str, machine: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, proxy = machine
    prepare()
    address = f"http://{host}:{own.server_port}"
    assert requests.get(address, timeout=20).status_code == 200
    assert httpx2.get(address).status_code == 200
    # Not `urlopen`, which keeps the proxies of this test for all that follow in the process.
    assert urllib.request.build_opener().open(address, timeout=20).status == 200
    MlflowClient(address).search_experiments()
    JobSubmissionClient(address, headers={"Authorization": "Bearer token"}).get_version()
    assert len(own.lines) >= 5 and not proxy.lines


def test_results_of_a_notebook_are_never_read_through_a_proxy(machine: tuple[Server, Server]) -> None:
    own, proxy = machine
    tracking_client(f"http://127.0.0.1:{own.server_port}").search_experiments()
    assert own.lines and not proxy.lines


def test_other_machines_are_still_reached_through_the_proxy(machine: tuple[Server, Server]) -> None:
    _, proxy = machine
    never_proxied()
    assert requests.get("http://cluster.example/", timeout=20).status_code == 403 and len(proxy.lines) == 1


@pytest.mark.parametrize(
    ("lower", "upper", "hosts"),
    [
        ("", "", []),
        ("a.example", "", ["a.example"]),
        ("a.example, localhost", "b.example", ["a.example", "localhost", "b.example"]),
    ],
)
def test_what_the_user_has_set_stays(lower: str, upper: str, hosts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", lower)
    monkeypatch.setenv("NO_PROXY", upper)
    for _ in range(2):
        never_proxied()
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"]
        listed = os.environ["no_proxy"].split(",")
        assert listed[: len(hosts)] == hosts and {"localhost", "127.0.0.1", "::1"} <= {*listed}
        assert len(listed) == len(set(listed))
    monkeypatch.setenv("NO_PROXY", "*")
    never_proxied()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "*"


def test_which_hosts_are_this_machine() -> None:
    assert all(map(is_loopback, ("localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "a.localhost")))
    assert not any(map(is_loopback, ("10.0.0.1", "localhost.example", "0.0.0.0", "", "example.org")))
