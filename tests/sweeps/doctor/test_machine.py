import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ktrain.system.filesystems import Mount
from sweeps.doctor import machine
from sweeps.doctor.finding import FAIL, OK, WARN, CheckContext

GIB = 2**30
LIMITED = """
import resource
from sweeps.doctor import machine
from sweeps.doctor.finding import CheckContext
resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))
(found,) = machine.open_files(CheckContext("s", "t"))
print(found.result, found.detail)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no rights to mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_this_machine_has_what_its_own_system_says(setting: CheckContext) -> None:
    total, free = machine.memory_of(machine.CGROUP)
    assert 0 < free <= total <= psutil.virtual_memory().total
    assert 0 < machine.cpus() <= (os.cpu_count() or 1)
    for check in (machine.memory, machine.shared_memory, machine.disk):
        assert all(finding.detail for finding in check(setting))


def test_a_busy_machine_is_told(setting: CheckContext) -> None:
    for load, result in ((0.0, OK), (3.0, OK), (3.1, WARN), (500.0, WARN)):
        (found,) = machine.load(setting, lambda load=load: (load * machine.cpus(), 0.0, 0.0))
        assert (found.name, found.result) == ("load", result) and f"on {machine.cpus():g} CPUs" in found.detail


def test_threads_beyond_the_cpus_are_told(setting: CheckContext) -> None:
    many = {"OMP_NUM_THREADS": "512"}
    assert [f.result for f in machine.threads(setting, {})] == [OK]
    assert [f.result for f in machine.threads(setting, {"OMP_NUM_THREADS": "1"})] == [OK]
    (found,) = machine.threads(setting, many)
    assert found.result == WARN and "OMP_NUM_THREADS=512" in found.detail
    both = list(machine.threads(replace(setting, cpus=512.0), many))
    assert [f.result for f in both] == [WARN, WARN] and "--num-cpus=" in both[1].fix


@pytest.mark.parametrize(("text", "share"), [("150000 100000", 1.5), ("max 100000", None), ("", None)])
def test_a_container_may_have_a_share_of_the_cpus(
    tmp_path: Path, text: str, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(4)))
    (tmp_path / "cpu.max").write_text(text)
    assert machine.cpus(tmp_path) == (share or 4)


def test_a_container_may_have_a_part_of_the_memory(tmp_path: Path) -> None:
    for name, text in {"max": GIB, "current": GIB // 2, "stat": f"anon 5\ninactive_file {GIB // 4}\n"}.items():
        (tmp_path / f"memory.{name}").write_text(str(text))
    assert machine.memory_of(tmp_path) == (GIB, GIB * 3 // 4)
    (tmp_path / "memory.max").write_text("max")
    assert machine.memory_of(tmp_path)[0] == psutil.virtual_memory().total


@pytest.mark.parametrize(("free", "result"), [(0.5, FAIL), (1.5, WARN), (8.0, OK)])
def test_memory_that_runs_out(
    setting: CheckContext, free: float, result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_of", lambda _: (16 * GIB, int(free * GIB)))
    assert [f.result for f in machine.memory(setting)] == [result]


def test_shared_memory_for_the_object_store(setting: CheckContext, tmp_path: Path, small_disk: Path) -> None:
    (small,) = machine.shared_memory(setting, small_disk)
    assert small.result == WARN and "--shm-size" in small.fix
    (none,) = machine.shared_memory(setting, tmp_path / "nowhere")
    assert none.result == WARN
    assert [f.result for f in machine.shared_memory(replace(setting, object_store=1.0), tmp_path)] == [OK]


def test_open_files(setting: CheckContext) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "warn a process may open 500 files, Ray asks for 8192"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    enough = hard in (resource.RLIM_INFINITY,) or hard >= machine.OPEN_FILES
    assert [f.result for f in machine.open_files(setting)] == [OK if enough else WARN]


def test_a_disk_that_is_small_is_a_fault_and_one_that_is_not_there_yet_is_asked_for_its_place(small_disk: Path) -> None:
    found = machine.room("disk", "cache", small_disk / "a" / "b")
    assert found.result == FAIL and found.detail.startswith("cache: 0.0 of 0 GiB free") and str(small_disk) in found.fix


def test_a_disk_with_little_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, total, ray, result in ((5, 50, False, WARN), (20, 50, False, OK), (20, 1000, True, FAIL)):
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, f=free, t=total: (t * GIB, 0, f * GIB))
        assert machine.room("disk", "temporary files", tmp_path, ray=ray).result == result


def test_the_cache_belongs_on_a_disk_of_this_machine(
    setting: CheckContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTRAIN_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert next(f.result for f in machine.disk(setting)) == FAIL
    monkeypatch.setenv("KTRAIN_CACHE", str(tmp_path / "cache"))
    assert [f.detail.partition(":")[0] for f in machine.disk(setting)] == ["cache", "temporary files"]
    monkeypatch.setattr(machine, "mount_of", lambda path: Mount(path, "nfs4", ()))
    assert "nfs4" in next(f.detail for f in machine.disk(setting))
    monkeypatch.delenv("KTRAIN_CACHE")
    assert len(list(machine.disk(replace(setting, cpus=1.0)))) == 1
