"""An address of Ray is tried before Ray is: what listens there, and whose cluster `auto` means."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from ray._private.services import get_node_ip_address

from ktrain.errors import WrongRequest
from sweeps.execution import cluster_address
from sweeps.execution.cluster_address import address_fault, answering_address, chosen_address, unreachable

GREETING = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0x40, 0, 0])
"""The first frame of a gRPC server: one setting of HTTP/2."""
OTHERS = {
    "a web server": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "a log-in by SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a database": b"\x4a\0\0\0\x0a8.0.36\0",
    "one that hangs up": b"",
}


@contextmanager
def server(answer: bytes) -> Iterator[str]:
    """Listens on loopback, and answers the first bytes of each client in this way before it hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client = listener.accept()[0]
                except OSError:
                    return
                with closing(client):
                    if client.recv(24):
                        client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def refused(address: str) -> str:
    with pytest.raises(WrongRequest) as refusal:
        answering_address(address)
    return str(refusal.value)


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of these tests listen on loopback, where Ray's do not."""
    monkeypatch.setattr(cluster_address, "_as_ray_takes", lambda host: host)


def test_an_address_at_which_ray_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert chosen_address() == "local"
    with server(GREETING) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert chosen_address() == address


@pytest.mark.parametrize("who", OTHERS)
def test_what_listens_but_is_not_ray(monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    with server(OTHERS[who]) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(WrongRequest) as refused:
            chosen_address()
        assert str(refused.value) == f"RAY_ADDRESS={address}: what listens there does not answer as Ray does"
        # A cluster with TLS does not answer in clear text, so its port is only connected to.
        monkeypatch.setenv("RAY_USE_TLS", "1")
        assert chosen_address() == address


def test_the_host_that_ray_connects_to_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    # Ray takes the outer address of a machine for its loopback.
    outer = get_node_ip_address()
    line = refused("127.0.0.1:1")
    assert line.startswith("127.0.0.1:1: ") and (
        outer == "127.0.0.1" or f": to Ray this is {outer}:1: nothing listens there " in line
    )


def test_who_says_nothing_is_not_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_address, "SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert refused(f"127.0.0.1:{silent.getsockname()[1]}").endswith("does not answer as Ray does")


WRONG = {
    "127.0.0.1:1": "127.0.0.1:1: nothing listens there (Connection refused)",
    "[::1]:1": "[::1]:1: nothing listens there",
    "no-host.invalid:6379": "no-host.invalid:6379: there is no host no-host.invalid",
    "ray://127.0.0.1:10001": "ray://127.0.0.1:10001 is Ray Client's, which is not supported: ",
    "http://127.0.0.1:8265": "http://127.0.0.1:8265 is a dashboard's, which takes jobs; ",
    "head": "head is no HOST:PORT; use auto on the head, or HEAD:6379",
}


@pytest.mark.parametrize("address", WRONG)
def test_an_address_without_ray_is_one_line(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(WrongRequest) as refused:
        chosen_address()
    assert str(refused.value).startswith(f"RAY_ADDRESS={WRONG[address]}") and "\n" not in str(refused.value)


@pytest.mark.parametrize("address", ["auto", "local", "head:6379", "10.0.0.1:6379", "[::1]:6379", "a-b.c_d:1"])
def test_addresses_of_clusters(address: str) -> None:
    assert address_fault(address) is None


@pytest.mark.parametrize("address", ["", " auto", "head", "head:", ":6379", "head:0", "head:6379/", "a b:1", "ray://h"])
def test_addresses_that_are_none(address: str) -> None:
    assert address_fault(address) is not None


def test_a_network_that_drops_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_address, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port, clients = full.getsockname()[1], []
        try:
            while not (line := unreachable("127.0.0.1", port)) and len(clients) < 20:
                # Whoever waits in the queue of a server that takes nobody keeps the others out.
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
                clients.append(client)
        finally:
            for client in clients:
                client.close()
    assert line.startswith("no answer in 0 s")


Raylet = Callable[..., None]
ROOT, ME, OTHER = 0, os.getuid() or 1, 4_000


@pytest.fixture
def raylet(monkeypatch: pytest.MonkeyPatch) -> Raylet:
    """Adds a node of Ray to the processes of this machine, which has no others."""
    mine = SimpleNamespace(real=ME)
    others = (("cat", ["cat", "--gcs-address=a:1"], mine), ("raylet", None, None), ("raylet", [], mine))
    processes = [SimpleNamespace(info=dict(zip(("name", "cmdline", "uids"), each, strict=True))) for each in others]
    monkeypatch.setattr(os, "getuid", lambda: ME)
    monkeypatch.setattr(psutil, "process_iter", lambda fields: iter(processes))

    def add(user: int, address: str, folder: str = "/tmp/ray") -> None:
        words = ["/x/raylet", "--head", "--python_worker_command=python --gcs-address=b:2", f"--gcs-address={address}"]
        info = {"name": "raylet", "cmdline": [*words, f"--temp_dir={folder}"], "uids": SimpleNamespace(real=user)}
        processes.append(SimpleNamespace(info=info))

    return add


@pytest.mark.parametrize("user", [ME, ROOT])
def test_auto_is_the_cluster_of_this_account(raylet: Raylet, user: int) -> None:
    with server(GREETING) as address:
        raylet(OTHER, "10.0.0.9:6379")
        raylet(user, address)
        raylet(user, address)
        assert answering_address("auto") == address


def test_auto_joins_no_stranger_and_no_run(raylet: Raylet) -> None:
    assert refused("auto") == "auto: no cluster of yours runs here; start it, or unset RAY_ADDRESS"
    raylet(ME, "127.0.0.1:7777", folder="/tmp/ktrain-ray-abc/ray")
    assert refused("auto") == "auto: no cluster of yours runs here; start it, or unset RAY_ADDRESS"
    with server(GREETING) as stranger:
        raylet(OTHER, stranger)
        line = f"auto: no cluster of yours runs here, and that of another account, {stranger}, is not joined; start it"
        assert refused("auto").startswith(line)


def test_auto_of_several_clusters_names_them(raylet: Raylet) -> None:
    raylet(ME, "127.0.0.1:6380")
    raylet(ME, "127.0.0.1:6379")
    assert refused("auto") == (
        "auto: several clusters of yours run here: 127.0.0.1:6379, 127.0.0.1:6380; name one of them"
    )


def test_auto_of_a_cluster_that_hangs(raylet: Raylet) -> None:
    raylet(ME, "127.0.0.1:1")
    assert refused("auto") == "auto: to Ray this is 127.0.0.1:1: nothing listens there (Connection refused)"


def test_a_process_of_this_machine_is_recognised(tmp_path: Path) -> None:
    program = tmp_path / "raylet"
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o700)
    with server(GREETING) as address:
        words = [program, f"--gcs-address={address}", "--temp_dir=/tmp/ray"]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
            try:
                # The process has its name only once the script runs.
                while psutil.Process(process.pid).name() != "raylet":
                    pass
                assert (os.getuid(), address) in cluster_address._nodes()
            finally:
                process.kill()
