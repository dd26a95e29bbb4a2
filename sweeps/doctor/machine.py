"""The checks `threads`, `load`, `memory`, `shared-memory`, `open-files`, `disk`: what a sweep takes of its machine."""

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from ktrain.errors import WrongRequest
from ktrain.system.filesystems import mount_of
from ktrain.system.home_folder import expanded
from sweeps.doctor.finding import CheckContext, Finding, fail, ok, warn

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
OPEN_FILES = 8192
"""The limit that Ray asks for."""
BUSY = 3
"""Processes that wait for each CPU above which a machine is too busy."""
RAY_REFUSES = 0.95
"""The share of a disk above which Ray stores no more objects, and of memory above which it ends workers."""


def threads(context: CheckContext, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """`threads`: neither Ray nor OpenMP counts more CPUs than this process may use."""
    usable = cpus()
    many = [(name, environment.get(name, "")) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    many = [(name, value) for name, value in many if value.isdigit() and int(value) > usable]
    for name, value in many:
        yield warn("threads", f"{name}={value}, usable are {usable:g} CPUs", f"unset {name}; `--threads` sets it")
    if context.cpus is not None and context.cpus > usable:
        fix = f"start Ray here with --num-cpus={int(usable) or 1}"
        yield warn("threads", f"Ray hands out {context.cpus:g} CPUs, usable are {usable:g}", fix)
    elif not many:
        yield ok("threads", f"{usable:g} CPUs")


def load(_: CheckContext, measured: Callable[[], tuple[float, ...]] = os.getloadavg) -> Iterator[Finding]:
    """`load`: the machine is free enough for Ray to start in the 30 seconds that it gives itself."""
    minute, usable = measured()[0], cpus()
    detail = f"load {minute:.1f} on {usable:g} CPUs"
    if minute > BUSY * usable:
        fix = "end or await what runs (`ps aux --sort -pcpu | head`)"
        yield warn("load", f"{detail}: Ray may not start in time, and training takes longer", fix)
    else:
        yield ok("load", detail)


def cpus(root: Path = CGROUP) -> float:
    """Returns the CPUs that this process may use: its affinity, or its container's share if that is smaller."""
    bound = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota, _, period = _read(root / "cpu.max").partition(" ")
    return min(bound, int(quota) / int(period)) if quota.isdigit() else bound


def memory(_: CheckContext) -> Iterator[Finding]:
    """`memory`: enough for a trial, and below the share at which Ray ends workers."""
    total, free = memory_of(CGROUP)
    detail = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < (1 - RAY_REFUSES) * total:
        yield fail("memory", f"{detail}: Ray ends workers", "end what fills it (`ps aux --sort -rss | head`)")
    elif free < 2 * GIB:
        yield warn("memory", f"{detail}, a trial takes 2", "end what fills it (`ps aux --sort -rss | head`)")
    else:
        yield ok("memory", detail)


def memory_of(root: Path) -> tuple[int, int]:
    """Returns total and free bytes of the machine, or of the container if it has a smaller limit."""
    machine = psutil.virtual_memory()
    limit, used = _read(root / "memory.max"), _read(root / "memory.current")
    if not (limit.isdigit() and used.isdigit() and int(limit) < machine.total):
        return int(machine.total), int(machine.available)
    # Cached files count as used, and the kernel drops them on demand.
    words = _read(root / "memory.stat").split()
    cached = int(dict(zip(words[::2], words[1::2], strict=False)).get("inactive_file", 0))
    return int(limit), min(int(machine.available), int(limit) - int(used) + cached)


def shared_memory(context: CheckContext, folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """`shared-memory`: room for Ray's object store."""
    fix = "docker run --shm-size=2g, or a volume of medium Memory at /dev/shm in a pod"
    if not folder.is_dir():
        yield warn("shared-memory", f"no {folder}: Ray's objects go to the disk", fix)
        return
    size = shutil.disk_usage(folder).total
    wanted = min(context.object_store or GIB, 8 * GIB)
    detail = f"{size / GIB:.1f} GiB in {folder}"
    if size < wanted:
        yield warn("shared-memory", f"{detail}, Ray's object store has {wanted / GIB:.1f} and goes to the disk", fix)
    else:
        yield ok("shared-memory", detail)


def open_files(_: CheckContext) -> Iterator[Finding]:
    """`open-files`: the hard limit of a process. Ray raises the soft limit up to it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        fix = "set `* hard nofile 65536` in /etc/security/limits.conf, or docker run --ulimit nofile=65536"
        yield warn("open-files", f"a process may open {hard} files, Ray asks for {OPEN_FILES}", fix)
    else:
        yield ok("open-files", "no limit" if hard == resource.RLIM_INFINITY else f"{hard} a process")


def disk(context: CheckContext) -> Iterator[Finding]:
    """`disk`: room in the cache and in the temporary folder, one line each."""
    named = os.environ.get("KTRAIN_CACHE")
    if named or not context.in_cluster:
        yield _cache(expanded(named or ".cache").absolute())
    if folder := _ray_folder(context):
        yield room("disk", "temporary files", folder, ray=True)


def _ray_folder(context: CheckContext) -> Path | None:
    """Returns the folder in which Ray keeps its files here; None if it finds none, which the check `ray` says."""
    from sweeps.execution.local_ray import make_private_folder

    if context.in_cluster:
        return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    try:
        folder, _ = make_private_folder()
    except WrongRequest:
        return None
    folder.rmdir()
    return folder.parent


def _cache(folder: Path) -> Finding:
    kind = mount_of(folder)
    if os.path.exists(folder) and not folder.is_dir():
        return fail("disk", f"KTRAIN_CACHE={folder} is a file", "export KTRAIN_CACHE=FOLDER, on a local disk")
    if kind.network and kind.kind != "fuse.overlayfs":
        detail = f"the cache {folder} is on {kind.kind}, which other machines may use too"
        return warn("disk", detail, "export KTRAIN_CACHE=/tmp/ktrain-cache, or another folder of a local disk")
    return room("disk", "cache", folder)


def room(name: str, what: str, folder: Path, *, ray: bool = False) -> Finding:
    """Returns a finding on the free space of a folder, which may not exist yet. `ray`: Ray keeps its objects there."""
    there = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    try:
        total, _, free = shutil.disk_usage(there)
    except OSError as e:
        return fail(name, f"{what}: {folder}: {e.strerror}", "mount it again, or name another folder")
    detail = f"{what}: {free / GIB:.1f} of {total / GIB:.0f} GiB free in {folder}"
    fix = f"free some (`du -xh --max-depth=2 {there} | sort -h | tail`) or name another folder"
    if ray and free < (1 - RAY_REFUSES) * total:
        return fail(name, f"{detail}: Ray stores nothing above {RAY_REFUSES:.0%}", fix)
    if free < GIB:
        return fail(name, detail, fix)
    return warn(name, detail, fix) if free < 10 * GIB else ok(name, detail)


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
