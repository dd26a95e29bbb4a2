"""The machine of a benchmark: what it is, and the most that it does in the same run."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ktrain.device import device

PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product is timed."""
COPIED = {"cpu": 2**28, "cuda": 2**31}
"""Bytes that are copied."""
TRIES = 5
KINDS = {"bf16": torch.bfloat16, "fp32": torch.float32}


def wait() -> None:
    """Until the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory_of(work: Callable[[], float]) -> tuple[float, int]:
    """What `work` returns, and the bytes that it held at most beside what was held before: of the GPU, where there is
    one."""
    wait()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return work(), torch.cuda.max_memory_allocated() - before
    # Linux counts the peak anew from here.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    return work(), _status("VmHWM") - before


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak(precision: str) -> float:
    """FLOPs a second that a product of two square matrices reaches, with the threads that are set."""
    size = PRODUCT[device().type]
    a, b = (torch.randn(size, size, device=device(), dtype=KINDS[precision]) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: a @ b)


def bandwidth() -> float:
    """Bytes a second that copying reads and writes together."""
    source = torch.ones(COPIED[device().type], dtype=torch.uint8, device=device())
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest(lambda: target.copy_(source))


def told() -> dict[str, Any]:
    """Machine and versions, and what the machine reaches on all its cores, measured now."""
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    found = {
        "device": _name(),
        "cores": cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peak_flops": {precision: peak(precision) for precision in KINDS},
        "copied_bytes_per_second": bandwidth(),
    }
    torch.set_num_threads(before)
    return found


def line(found: dict[str, Any]) -> str:
    """The same in one line."""
    flops = ", ".join(f"{name} {flops / 1e9:,.0f}" for name, flops in found["peak_flops"].items())
    return (
        f"{found['device']}, {found['cores']} cores, torch {found['torch']}; matrix products reach {flops} GFLOP/s, "
        f"copies {found['copied_bytes_per_second'] / 1e9:,.0f} GB/s"
    )


def _name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.is_file() else []
    named = (text.partition(":")[2].strip() for text in lines if text.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _fastest(work: Callable[[], Any]) -> float:
    work()
    times = []
    for _ in range(TRIES):
        wait()
        begin = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - begin)
    return min(times)


def _status(name: str) -> int:
    """Bytes that Linux tells of this process by a name."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
