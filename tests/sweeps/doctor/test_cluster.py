import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sweeps.doctor import cluster as doctor_cluster
from sweeps.doctor import command
from sweeps.doctor.cluster import examine_cluster, explain_refusal, reason
from sweeps.doctor.finding import FAIL, OK, SKIPPED, CheckContext, Finding
from sweeps.execution import cluster_address
from sweeps.execution.local_ray import make_private_folder

OF_THE_MACHINE = ("versions", "load", "memory", "disk", "ports", "ray", "environment")
"""Checks that may find true faults of the machine that runs the tests."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `raylets` are the processes of its nodes, by their id."""

    address: str
    raylets: dict[str, int]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that asks for a token, and this process's environment with the token."""
    file = tmp_path_factory.mktemp("token") / "auth_token"
    file.touch(0o600)
    file.write_text(secrets.token_hex(32))
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    # Three nodes on one loopback address would be taken for one, so only the token protects this cluster.
    private = {"RAY_TMPDIR": str(make_private_folder()[0])}
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "KTRAIN_CACHE"):
        patch.delenv(name, raising=False)
    program, log = [sys.executable, str(Path(__file__).with_name("cluster.py"))], file.with_name("log")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=os.environ | private
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said, log.read_text()
        yield Cluster(**json.loads(said))
    finally:
        patch.undo()
        process.communicate(timeout=120)
        shutil.rmtree(private["RAY_TMPDIR"], ignore_errors=True)


@pytest.mark.ray
def test_every_node_is_asked_and_one_that_hangs_holds_up_no_other(cluster: Cluster, tmp_path: Path) -> None:
    *_, victim = cluster.raylets
    os.kill(cluster.raylets[victim], signal.SIGSTOP)
    try:
        report = command.examine(str(tmp_path / "results"), cluster.address, seconds=40)
    finally:
        os.kill(cluster.raylets[victim], signal.SIGCONT)
    names = [node["name"] for node in report.nodes]
    assert [node["head"] for node in report.nodes] == [True, False, False] and len(set(names)) == 3
    (hanging,) = (name for name in names if name.endswith(f"/{victim[:4]}"))
    head, worker = (name for name in names if name != hanging)

    def result(check: str, node: str) -> set[str]:
        return {f.result for f in report.findings if (f.name, f.node) == (check, node)}

    for name in (head, worker):
        for check in ("nodes", "same-versions", "same-code", "clock", "store", "store-sharing"):
            assert result(check, name) == {OK}, (check, name)
        for check in OF_THE_MACHINE:
            assert result(check, name), (check, name)
    assert result("engine", head) == result("compiler", head) == {SKIPPED}, "the head has no CPUs to train on"
    assert result("engine", worker) == result("compiler", worker) == {OK}
    assert result("token", "cluster") == result("drivers", "cluster") == {OK}
    failed = [(f.name, f.node) for f in report.findings if f.result == FAIL and f.name not in OF_THE_MACHINE]
    assert failed == [("nodes", hanging), ("tracking", "driver")], "SQLite beside the store serves one machine"
    assert "ray start" in next(f.fix for f in report.findings if f.node == hanging)
    assert [f.name for f in report.findings if f.node == hanging] == ["nodes"]
    # All that was written into the store is gone.
    assert not [p for p in (tmp_path / "results").rglob("doctor-*")]


@pytest.mark.ray
def test_a_cluster_that_does_not_let_us_in(
    cluster: Cluster, setting: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert refused(cluster.address, setting).detail.endswith("asks for its token, and none or another is here")


def refused(address: str, setting: CheckContext) -> Finding:
    """Why a cluster cannot be joined."""
    nodes, (found,) = examine_cluster(address, setting, 5)
    assert nodes == [] and (found.name, found.result, found.node) == ("nodes", FAIL, "cluster")
    return found


def test_a_port_that_is_closed(port: int, setting: CheckContext) -> None:
    found = refused(f"127.0.0.1:{port}", setting)
    assert found.detail.startswith(f"127.0.0.1:{port}: ") and "ray status" in found.fix
    assert found.detail.endswith(f":{port}: nothing listens there (Connection refused)")


def test_a_port_that_is_not_rays(setting: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_address, "SECONDS", 0.2)
    monkeypatch.setattr(cluster_address, "_as_ray_takes", lambda host: host)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = refused(f"127.0.0.1:{silent.getsockname()[1]}", setting)
    assert "does not answer as Ray does" in found.detail


def test_a_ray_that_hangs(setting: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_cluster, "JOIN", 1.0)
    monkeypatch.setattr(doctor_cluster, "answering_address", lambda address: address)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = refused(f"127.0.0.1:{silent.getsockname()[1]}", setting)
    assert "does not answer as Ray does in 1 s" in found.detail


def test_no_cluster_of_this_account(setting: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_address, "_nodes", lambda: iter(()))
    assert refused("auto", setting).detail.startswith("auto: no cluster of yours runs here; ")


@pytest.mark.parametrize(
    ("said", "words", "fix"),
    [
        (
            "RuntimeError: Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.11.7\n",
            "Version mismatch: The cluster was started with: Ray: 2.59.0 Python: 3.11.7",
            "must be the same",
        ),
        (
            "Unauthenticated: RPC error: InvalidAuthToken: x\nConnectionError: Failed",
            "asks for its token",
            "auth_token",
        ),
        (
            "AuthenticationError: Token authentication is enabled but no authentication token was found",
            "asks for its token",
            "auth_token",
        ),
        ("ConnectionError: Could not find any running Ray instance.", "Could not find any running Ray", "ray status"),
        ("", "without a word", "ray status"),
    ],
)
def test_why_a_cluster_does_not_let_us_in(said: str, words: str, fix: str) -> None:
    found = explain_refusal("head:6379", said)
    assert found.result == FAIL and words in found.detail and fix in found.fix


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n", "b"),
        ("", ""),
        (
            "Traceback:\n  x\nValueError: first\n\nray.exceptions.RayError: second\n  at y",
            "ray.exceptions.RayError: second",
        ),
    ],
)
def test_the_last_error_of_a_text_is_its_reason(text: str, line: str) -> None:
    assert reason(text) == line
