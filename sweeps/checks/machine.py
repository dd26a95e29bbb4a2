"""What every process of a sweep takes from its machine: threads, memory, shared memory, open files, disk."""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from ktrain.mounts import mount
from sweeps.checks.finding import Finding, Setting, fail, ok, warn

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
OPEN_FILES = 8192
"""What Ray asks for."""
RAY_REFUSES = 0.95
"""The part of a disk, and of the memory, above which Ray stores no more objects and ends workers."""


def threads(setting: Setting, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """`threads`: no more of them than CPUs, as Ray counts them and as OpenMP does."""
    usable = cpus()
    many = [(name, environment.get(name, "")) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    many = [(name, value) for name, value in many if value.isdigit() and int(value) > usable]
    for name, value in many:
        yield warn("threads", f"{name}={value}, usable are {usable:g} CPUs", f"unset {name}; `--threads` sets it")
    if setting.cpus is not None and setting.cpus > usable:
        fix = f"start Ray here with --num-cpus={int(usable) or 1}"
        yield warn("threads", f"Ray hands out {setting.cpus:g} CPUs, usable are {usable:g}", fix)
    elif not many:
        yield ok("threads", f"{usable:g} CPUs, load {os.getloadavg()[0]:.1f}")


def cpus(root: Path = CGROUP) -> float:
    """CPUs that this process may use: those it is bound to, or the share that its container has."""
    bound = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota, _, period = _read(root / "cpu.max").partition(" ")
    return min(bound, int(quota) / int(period)) if quota.isdigit() else bound


def memory(_: Setting) -> Iterator[Finding]:
    """`memory`: enough for a trial, and away from where Ray ends workers."""
    total, free = memory_of(CGROUP)
    seen = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < (1 - RAY_REFUSES) * total:
        yield fail("memory", f"{seen}: Ray ends workers", "end what fills it (`ps aux --sort -rss | head`)")
    elif free < 2 * GIB:
        yield warn("memory", f"{seen}, a trial takes 2", "end what fills it (`ps aux --sort -rss | head`)")
    else:
        yield ok("memory", seen)


def memory_of(root: Path) -> tuple[int, int]:
    """Total and free bytes: the machine's, or what its container may have."""
    machine = psutil.virtual_memory()
    limit, used = _read(root / "memory.max"), _read(root / "memory.current")
    if not (limit.isdigit() and used.isdigit() and int(limit) < machine.total):
        return int(machine.total), int(machine.available)
    # Cached files count as used, and are given back when asked for.
    words = _read(root / "memory.stat").split()
    cached = int(dict(zip(words[::2], words[1::2], strict=False)).get("inactive_file", 0))
    return int(limit), min(int(machine.available), int(limit) - int(used) + cached)


def shared_memory(setting: Setting, folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """`shared-memory`: room for Ray's object store."""
    fix = "docker run --shm-size=2g, or a volume of medium Memory at /dev/shm in a pod"
    if not folder.is_dir():
        yield warn("shared-memory", f"no {folder}: Ray's objects go to the disk", fix)
        return
    size = shutil.disk_usage(folder).total
    wanted = min(setting.object_store or GIB, 8 * GIB)
    seen = f"{size / GIB:.1f} GiB in {folder}"
    if size < wanted:
        yield warn("shared-memory", f"{seen}, Ray's object store has {wanted / GIB:.1f} and goes to the disk", fix)
    else:
        yield ok("shared-memory", seen)


def open_files(_: Setting) -> Iterator[Finding]:
    """`open-files`: what one process may open; Ray raises the soft limit itself as far as the hard one goes."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        fix = "set `* hard nofile 65536` in /etc/security/limits.conf, or docker run --ulimit nofile=65536"
        yield warn("open-files", f"a process may open {hard} files, Ray asks for {OPEN_FILES}", fix)
    else:
        yield ok("open-files", "no limit" if hard == resource.RLIM_INFINITY else f"{hard} a process")


def disk(setting: Setting) -> Iterator[Finding]:
    """`disk`: room in the cache and in the temporary folder, one line each."""
    named = os.environ.get("KTRAIN_CACHE")
    if named or not setting.in_cluster:
        yield _cache(Path(named or ".cache").absolute())
    yield room("disk", "temporary files", Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()), ray=True)


def _cache(folder: Path) -> Finding:
    kind = mount(folder)
    if folder.exists() and not folder.is_dir():
        return fail("disk", f"KTRAIN_CACHE={folder} is a file", "export KTRAIN_CACHE=FOLDER, on a local disk")
    if kind.network and kind.kind != "fuse.overlayfs":
        seen = f"the cache {folder} is on {kind.kind}, which other machines may use too"
        return warn("disk", seen, "export KTRAIN_CACHE=/tmp/ktrain-cache, or another folder of a local disk")
    return room("disk", "cache", folder)


def room(name: str, what: str, folder: Path, *, ray: bool = False) -> Finding:
    """A line on the free space of a folder, or of what would hold it. `ray`: where Ray keeps its objects."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        total, _, free = shutil.disk_usage(there)
    except OSError as e:
        return fail(name, f"{what}: {folder}: {e.strerror}", "mount it again, or name another folder")
    seen = f"{what}: {free / GIB:.1f} of {total / GIB:.0f} GiB free in {folder}"
    fix = f"free some (`du -xh --max-depth=2 {there} | sort -h | tail`) or name another folder"
    if ray and free < (1 - RAY_REFUSES) * total:
        return fail(name, f"{seen}: Ray stores nothing above {RAY_REFUSES:.0%}", fix)
    if free < GIB:
        return fail(name, seen, fix)
    return warn(name, seen, fix) if free < 10 * GIB else ok(name, seen)


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
