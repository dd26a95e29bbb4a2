"""Who can reach a Ray that a run starts for itself: the sockets of a real run, its token, and the folder it lies in."""

import contextlib
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import toy_kind
from ray._private import ray_constants
from ray._private.runtime_env import uv_runtime_env_hook
from ray._private.worker import _maybe_modify_runtime_env

from ktrain.errors import WrongRequest
from sweeps.execution import local_ray
from sweeps.execution.local_ray import LONGEST_SOCKET, PREFIX, SOCKET, make_private_folder

ROOT = Path(__file__).parents[3]
CLIENT = """
import sys
from ray._raylet import GcsClient
print(GcsClient(address=sys.argv[1]).internal_kv_keys(b"", b"fun"))
"""
PATIENCE = 900.0


def plain_environment() -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "MLFLOW_TRACKING_URI"}
    return plain | {"KTRAIN_CACHE": str(ROOT / ".cache"), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`ktrain run` of a tiny sweep with a kind of its own by two workers; what is left of it at the end is killed, by
    its id."""
    toy_kind.write(tmp_path)
    command = [sys.executable, "-m", "sweeps.cli", "run", "recall.py", "--no-compile", "--workers", "2"]
    env = plain_environment()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=env, start_new_session=True)
    yield process
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for each in (process, *family):
        each.kill()
    process.wait()


@pytest.mark.ray
def test_nobody_reaches_the_ray_of_a_run_whose_workers_find_its_own_kind(
    run: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    heard: dict[tuple[str, str], int] = {}
    refused, folder, begin = False, None, time.monotonic()
    while is_running(run):
        assert time.monotonic() - begin < PATIENCE, (tmp_path / "log").read_text()
        for process in family(run.pid):
            try:
                listening = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
                name, environment = process.name(), process.environ()
            except psutil.Error:
                continue
            for address in listening:
                heard[name, address.ip] = address.port
            if name == "gcs_server" and listening:
                folder = Path(environment["RAY_TMPDIR"])
                refused = refused or are_refused(f"127.0.0.1:{listening[0].port}")
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert run.returncode == 0, (tmp_path / "log").read_text()
    names = {name for name, _ in heard}
    # Ray's own, and the workers with the process group that they make.
    assert {"gcs_server", "raylet"} <= names and any("RayTrainWorker" in name for name in names), heard
    assert [place for place in heard if not is_loopback(place[1])] == []
    assert refused and folder is not None and not folder.exists()

    words = [sys.executable, "-m", "sweeps.cli", "results", "recall.py", "--format", "json"]
    shown = subprocess.run(words, cwd=tmp_path, env=plain_environment(), capture_output=True, text=True)
    (cell,) = json.loads(shown.stdout)["cells"]
    assert cell["state"] == "done" and f"{toy_kind.NAME}/birth_city" in cell["metrics"]


def is_running(run: subprocess.Popen[bytes]) -> bool:
    """Whether it runs on after a moment, in which it has the processor for itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(0.1)
    return run.returncode is None


def family(process: int) -> list[psutil.Process]:
    try:
        driver = psutil.Process(process)
        return [driver, *driver.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_loopback(address: str) -> bool:
    parsed = ip_address(address)
    return bool((getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback)


def are_refused(address: str) -> bool:
    """Whether clients without the token, and with another, are refused."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    for own in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        command = [sys.executable, "-c", CLIENT, address]
        done = subprocess.run(command, env=plain | own, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode == 0 or not any(word in done.stderr for word in ("Unauthenticated", "InvalidAuthToken")):
            return False
    return True


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A temporary folder of the test's own, short enough for Ray."""
    import tempfile

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    folder = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_its_folder_is_private_short_and_goes_with_it(temporary: Path) -> None:
    before = dict(os.environ)
    with local_ray.confined():
        folder = Path(os.environ["RAY_TMPDIR"])
        assert folder.parent == temporary and stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(f"{folder}{SOCKET}") <= LONGEST_SOCKET
        token = os.environ["RAY_AUTH_TOKEN"]
    assert not folder.exists() and dict(os.environ) == before
    with local_ray.confined():
        assert os.environ["RAY_AUTH_TOKEN"] != token
    temporary.rmdir()


def test_a_run_below_uv_sends_no_folder_to_its_workers(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv_runtime_env_hook, "_get_uv_run_cmdline", lambda: ["uv", "run", "ktrain", "run", "demo"])
    monkeypatch.chdir(temporary)
    assert _maybe_modify_runtime_env({}, False)["working_dir"] == str(temporary)
    with local_ray.confined():
        assert _maybe_modify_runtime_env({}, False) == {} and _maybe_modify_runtime_env(None, False) is None
        assert os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"
    # A job of a cluster may need what uv has installed.
    assert _maybe_modify_runtime_env({}, False)["py_executable"].startswith("uv run ")


def test_each_constant_is_still_read_from_its_variable() -> None:
    source = Path(ray_constants.__file__).read_text()
    for constant, variable in local_ray._CONSTANTS.items():
        assert isinstance(getattr(ray_constants, constant), bool) and f'"{variable}"' in source


UNUSABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "too long": (lambda folder: folder / ("long" * 10), "too long for the sockets of Ray, whose folder may have "),
    "longer than any path": (lambda folder: folder / ("x" * 5_000), "too long for the sockets of Ray"),
    "a file": (lambda folder: folder / "file", "Not a directory"),
    "not there": (lambda folder: folder / "none", "No such file or directory"),
    "not writable": (lambda folder: Path("/proc/self"), "No such file or directory"),
    "open to all": (lambda folder: folder / "open", "others can write to "),
    "home of nobody": (lambda folder: Path("~nobody-at-all"), "Could not determine home directory"),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_that_will_not_do_is_passed_over_in_one_line(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, variable: str
) -> None:
    make, reason = UNUSABLE[name]
    unusable = make(temporary)
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setenv(variable, str(unusable))
    for folder in (temporary / ("long" * 10), temporary / "open"):
        folder.mkdir()
        folder.chmod(0o777)
    (temporary / "file").touch()
    with caplog.at_level(logging.WARNING), local_ray.confined():
        assert Path(os.environ["RAY_TMPDIR"]).parent == Path("/tmp")
    (line,) = caplog.messages
    assert line.startswith(f"{variable}={str(unusable)[:90]}") and line.endswith("; the files of Ray lie in /tmp")
    assert reason in line and "\n" not in line and len(line) < 300
    assert not list((temporary / "open").iterdir())
    shutil.rmtree(temporary)


def test_rays_variable_comes_first_and_a_home_is_expanded(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(temporary))
    monkeypatch.setenv("RAY_TMPDIR", "~/r")
    (temporary / "r").mkdir()
    made, passed_over = make_private_folder()
    assert made.parent == temporary / "r" and passed_over == []
    shutil.rmtree(temporary)


def test_no_folder_at_all_is_one_line(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray, "LONGEST_SOCKET", len(SOCKET))
    with pytest.raises(
        WrongRequest, match=r"^Ray needs a private folder, and there is none: TMPDIR=.*; /tmp: too l"
    ) as e:
        make_private_folder()
    assert "\n" not in str(e.value)


def test_folders_of_killed_runs_are_removed_and_those_of_others_stay(temporary: Path) -> None:
    with local_ray.confined():
        living = Path(os.environ["RAY_TMPDIR"])
        dead, fresh, other = (temporary / name for name in (f"{PREFIX}dead", f"{PREFIX}fresh", "other"))
        for folder in (dead, fresh, other):
            folder.mkdir()
            (folder / "file").touch()
        for folder in (living, dead, other):
            os.utime(folder, (0, 0))
        make_private_folder()[0].rmdir()
        assert living.exists() and fresh.exists() and other.exists() and not dead.exists()
