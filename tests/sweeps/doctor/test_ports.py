import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.doctor import ports
from sweeps.doctor.finding import FAIL, OK, WARN, CheckContext
from sweeps.doctor.ports import CLIENT, DASHBOARD, GCS, MLFLOW, POSTGRES, Listener

OWN = ["127.0.0.1", "10.1.2.3", "::1", "fe80::1"]
PUBLIC = [*OWN, "8.8.4.4"]


@contextmanager
def listening(address: str) -> Iterator[int]:
    """A port of this machine that takes connections at an address."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.bind((address, 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("address", "result"), [("127.0.0.1", OK), ("0.0.0.0", FAIL), ("::", FAIL)])
@pytest.mark.parametrize("service", [DASHBOARD, CLIENT, MLFLOW])
def test_what_runs_code_or_holds_results_listens_on_loopback_alone(
    setting: CheckContext, address: str, result: str, service: str
) -> None:
    if result == FAIL and not Listener(address, 1).reached_at(ports.addresses()):
        pytest.skip("this machine has no address but loopback")
    with listening(address) as port:
        found = [f for f in ports.ports(replace(setting, services={port: service})) if service in f.detail]
    assert [f.result for f in found] == [result]
    if result == FAIL:
        assert f"{address} port {port}: whoever reaches it" in found[0].detail
        assert f"ssh -N -L {port}:127.0.0.1:{port}" in found[0].fix


def test_the_program_that_listens_is_named(setting: CheckContext) -> None:
    code = (
        "import socket, sys; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        (found,) = [f for f in ports.listeners() if f.port == port]
        process.communicate(b"\n")
    assert found.program.startswith("python")


def test_a_port_that_nothing_of_the_cluster_uses_is_nobodys_business() -> None:
    assert [f.result for f in ports.judge([Listener("0.0.0.0", 8000)], PUBLIC, ports.SERVICES)] == [OK]


@pytest.mark.parametrize(
    ("listener", "own", "result"),
    [
        (Listener("0.0.0.0", 6379), OWN, OK),
        (Listener("::", 6379), OWN, OK),
        (Listener("0.0.0.0", 6379), PUBLIC, FAIL),
        (Listener("8.8.4.4", 6379), PUBLIC, FAIL),
        (Listener("10.1.2.3", 5432), PUBLIC, OK),
        (Listener("127.0.0.1", 5432), PUBLIC, OK),
        (Listener("0.0.0.0", 5432), PUBLIC, FAIL),
        (Listener("::ffff:127.0.0.1", 8265), PUBLIC, OK),
        (Listener("::ffff:10.1.2.3", 8265), PUBLIC, FAIL),
        (Listener("10.1.2.3", 5000), OWN, FAIL),
        (Listener("0.0.0.0", 8265), ["127.0.0.1", "::1"], OK),
        (Listener("0.0.0.0", 8265), ["127.0.0.1", "2001:4860::8844"], OK),
        (Listener("::", 8265), ["127.0.0.1", "2001:4860::8844"], FAIL),
    ],
)
def test_who_reaches_what(listener: Listener, own: list[str], result: str) -> None:
    assert [f.result for f in ports.judge([listener], own, ports.SERVICES)] == [result]


def test_what_nodes_need_of_each_other_is_told_with_an_address_to_listen_at() -> None:
    (found,) = ports.judge([Listener("0.0.0.0", 6379, "gcs_server")], PUBLIC, ports.SERVICES)
    assert "Ray GCS (gcs_server) on 0.0.0.0 port 6379, which is public (8.8.4.4)" in found.detail
    assert "10.1.2.3" in found.fix


def test_kuberay_asks_the_dashboard_of_a_pod_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    token, none = "token", "disabled"
    for mode, service, result in ((token, 8265, WARN), (none, 8265, FAIL), (token, 10001, OK), (none, 10001, FAIL)):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        assert [f.result for f in ports.judge([Listener("0.0.0.0", service)], OWN, ports.SERVICES)] == [result]


@given(
    address=st.ip_addresses().map(str),
    port=st.sampled_from(sorted(ports.SERVICES)),
    own=st.lists(st.ip_addresses().map(str), max_size=4),
)
def test_nothing_on_loopback_is_ever_a_fault_and_every_line_tells_its_port(
    address: str, port: int, own: list[str]
) -> None:
    assert [f.result for f in ports.judge([Listener("127.0.0.1", port)], own, ports.SERVICES)] == [OK]
    for found in ports.judge([Listener(address, port)], own, ports.SERVICES):
        assert str(port) in found.detail


def test_the_names_of_ports() -> None:
    assert set(ports.SERVICES.values()) == {DASHBOARD, CLIENT, MLFLOW, POSTGRES, GCS}
    assert "127.0.0.1" in ports.addresses() and os.name == "posix"
