import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.exceptions import AuthenticationError, OutOfMemoryError

from ktrain.errors import WrongRequest
from sweeps.execution.ray_session import RayEnded, connected, prepare

LATE = "The current node timed out during startup. This could happen because the GCS has become overloaded."


class Node:
    """In place of Ray's node: leaves a process behind, and does not start in time, so many times."""

    def __init__(self, failures: int) -> None:
        self.failures, self.starts, self.processes = failures, 0, list[subprocess.Popen[bytes]]()

    def init(self, *, logging_level: int, **_: Any) -> None:
        self.starts += 1
        # Of a dashboard that is late, Ray logs three lines as errors.
        assert logging_level > logging.ERROR
        if self.starts <= self.failures:
            self.processes.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
            raise Exception(LATE)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A child of this process that has nothing to do with Ray."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "shutdown", lambda: None)


def test_a_ray_that_is_late_once_gets_another_try_and_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, bystander: subprocess.Popen[bytes]
) -> None:
    node = Node(failures=1)
    monkeypatch.setattr(ray, "init", node.init)
    with caplog.at_level(logging.WARNING), connected("local"):
        assert node.starts == 2
    (line,) = caplog.messages
    assert "The current node timed out" in line and "the load is" in line and line.endswith("trying once more")
    assert node.processes[0].wait(10) != 0 and bystander.poll() is None


def test_a_ray_that_never_starts_is_one_line(
    monkeypatch: pytest.MonkeyPatch, bystander: subprocess.Popen[bytes]
) -> None:
    node = Node(failures=9)
    monkeypatch.setattr(ray, "init", node.init)
    with (
        pytest.raises(
            WrongRequest, match=r"^Ray does not start here \(The current node.*load.*ktrain doctor"
        ) as caught,
        connected("local"),
    ):
        pytest.fail("there is no Ray")
    assert len(str(caught.value).splitlines()) == 1 and node.starts == 2
    assert all(process.wait(10) != 0 for process in node.processes)
    assert bystander.pid in {child.pid for child in psutil.Process().children()}


REFUSALS = [
    (ConnectionError("nobody there"), "nobody there"),
    (RuntimeError("Version mismatch:\nthere 2.59.0"), "Version mismatch: there 2.59.0"),
    (AuthenticationError("InvalidAuthToken"), "InvalidAuthToken. "),
]


@pytest.mark.parametrize(("error", "words"), REFUSALS)
def test_a_cluster_that_lets_nobody_in_is_tried_once_and_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    starts = []

    def init(**_: Any) -> None:
        starts.append(1)
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(WrongRequest) as caught, connected("host:6379"):
        pytest.fail("there is no Ray")
    line = str(caught.value)
    assert line.startswith(f"RAY_ADDRESS=host:6379: does not let this run in: {words}") and "\n" not in line
    assert line.endswith("; `ktrain doctor --address host:6379` says more") and len(line) < 350
    assert starts == [1]


FULL = """2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1) was 22.40GB
OOM kill reason: Memory usage 24056406016B exceeded threshold of 24012677120B (95.0% of 25276502016B limit)
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
21724\t18.32\tpython notebook.py
14140\t0.83\tray::RayTrainWorker
Refer to the documentation on how to address the out of memory issue"""


def test_a_ray_that_ends_its_processes_for_lack_of_memory_is_one_line_that_names_who_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: None)
    with pytest.raises(RayEnded) as caught, connected("host:6379"):
        raise OutOfMemoryError(FULL)
    assert str(caught.value) == (
        "the memory of this machine is full, and Ray ended the trials; most of it has `python notebook.py` (18.3 GB)"
    )
    # Ray Tune wraps it.
    assert str(RayEnded(RuntimeError(f"Caught unexpected exception: {FULL}"))) == str(caught.value)


def test_any_other_end_of_ray_is_the_first_line_of_its_error() -> None:
    assert str(RayEnded(RuntimeError("The GCS is gone\nand\nmore"))) == "Ray ended: The GCS is gone"
    assert str(RayEnded(RuntimeError())) == "Ray ended: RuntimeError"


def test_processes_of_a_run_keep_what_they_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in containers that set the variable: a dozen processes for a trial would each compile a thousand modules."""
    monkeypatch.setattr(os, "environ", os.environ.copy() | {"PYTHONDONTWRITEBYTECODE": "1"})
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    prepare()
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ and not sys.dont_write_bytecode
