import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.doctor import exposure, machine, ports
from sweeps.doctor.finding import FAIL, OK, SKIPPED, WARN, CheckContext, Finding
from sweeps.execution import local_ray

DAEMON = """
import socket, sys
open("/proc/self/comm", "w").write(sys.argv[1])
listening = socket.create_server((sys.argv[2], 0), family=socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET)
print("ready", flush=True)
input()
"""


@contextmanager
def daemon(name: str, address: str, **environment: str) -> Iterator[int]:
    """A process of this name that listens at an address; its id."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    command = [sys.executable, "-c", DAEMON, name, address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=plain | environment, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate(b"\n")


def open_of(pid: int) -> list[str]:
    return [name for process, name, _ in exposure.open_daemons() if process == pid]


@pytest.mark.parametrize("name", ["gcs_server", "raylet", "ray::IDLE"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_ray_without_a_token_that_others_reach_is_a_fault(setting: CheckContext, name: str, address: str) -> None:
    if not ports.Listener(address, 1).reached_at(ports.addresses()):
        pytest.skip("this machine has no address but loopback")
    with daemon(name, address, RAY_AUTH_MODE="disabled") as pid:
        findings = [f for f in exposure.ray(setting) if f"process {pid}" in f.detail]
    (finding,) = findings
    assert (finding.name, finding.result) == ("ray", FAIL) and f"listens on {address} port" in finding.detail
    assert f"kill {pid}" in finding.fix


def test_loopback_a_token_and_other_programs_are_no_fault() -> None:
    with daemon("gcs_server", "127.0.0.1") as pid:
        assert open_of(pid) == []
    with daemon("gcs_server", "0.0.0.0", RAY_AUTH_MODE="token") as pid:
        assert open_of(pid) == []
    with daemon("python", "0.0.0.0") as pid:
        assert open_of(pid) == []


def test_a_machine_without_a_folder_for_ray_is_a_fault(setting: CheckContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "open_daemons", lambda: iter(()))
    assert [f.result for f in exposure.ray(setting)] == [OK]
    assert [f.result for f in exposure.ray(replace(setting, cpus=2.0))] == [SKIPPED]
    monkeypatch.setattr(local_ray, "LONGEST_SOCKET", 1)
    (finding,) = exposure.ray(setting)
    assert isinstance(finding, Finding) and finding.result == FAIL and "export RAY_TMPDIR=" in finding.fix


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_that_a_run_passes_over_is_named(
    setting: CheckContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """Its path is too long: a folder of pytest's is."""
    monkeypatch.setattr(exposure, "open_daemons", lambda: iter(()))
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    (finding,) = exposure.ray(setting)
    assert finding.result == WARN and finding.detail.startswith(f"{variable}={tmp_path}: too long")
    assert finding.detail.endswith("; the files of Ray lie in /tmp") and "export RAY_TMPDIR=" in finding.fix
    (disk,) = (each for each in machine.disk(setting) if "temporary files" in each.detail)
    assert disk.detail.endswith(" in /tmp")


def test_a_path_that_is_too_long_for_any_disk_ends_no_check(
    setting: CheckContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_TMPDIR", "KTRAIN_CACHE"):
        monkeypatch.setenv(name, "/" + "x" * 5_000)
    assert {f.name for cpus in (None, 2.0) for f in machine.disk(replace(setting, cpus=cpus))} == {"disk"}
