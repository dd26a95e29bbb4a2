"""The machine of a benchmark: hardware, versions, and the peak that it reaches in the same run."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ktrain.system.allocator import return_freed_memory
from ktrain.system.device import describe_device, multiplies_in_bf16, training_device

PRODUCT = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the square matrices whose product gives the peak."""
COPIED = {"cpu": 2**28, "cuda": 2**31}
"""Bytes that the bandwidth test copies."""
TRIES = 5
KINDS = {"bf16": torch.bfloat16, "fp32": torch.float32}


def wait() -> None:
    """Waits until the GPU, if there is one, has finished its queue."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def memory_of(work: Callable[[], float]) -> tuple[float, int]:
    """Returns what `work` returns, and the peak of the bytes that it allocated: GPU memory if there is a GPU."""
    wait()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return work(), torch.cuda.max_memory_allocated() - before
    # What was freed before and kept would be used again, and not be counted.
    return_freed_memory()
    # Resets VmHWM, Linux's peak of resident memory.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    return work(), _status("VmHWM") - before


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def precisions() -> tuple[str, ...]:
    """Returns the precisions that the device has instructions for."""
    return tuple(name for name in KINDS if name == "fp32" or multiplies_in_bf16(name, training_device()))


def peak(precision: str) -> float:
    """Returns the FLOPs a second of a product of two square matrices, with the current number of threads."""
    size = PRODUCT[training_device().type]
    a, b = (torch.randn(size, size, device=training_device(), dtype=KINDS[precision]) for _ in range(2))
    return 2 * size**3 / _fastest(lambda: a @ b)


def bandwidth() -> float:
    """Returns the bytes a second that a copy reads and writes together."""
    source = torch.ones(COPIED[training_device().type], dtype=torch.uint8, device=training_device())
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest(lambda: target.copy_(source))


def measure_peaks(host: dict[str, Any]) -> None:
    """Measures the peaks of what `describe` has returned again, and keeps the higher ones: other work on the machine
    may have slowed the measurement before."""
    flops: dict[str, float] = host["peak_flops"]
    with _on_all_cores():
        for precision in flops:
            flops[precision] = max(flops[precision], peak(precision))


def describe() -> dict[str, Any]:
    """Returns machine and versions, and the peaks on all cores, measured now."""
    with _on_all_cores():
        peaks, copied = {precision: peak(precision) for precision in precisions()}, bandwidth()
    return {
        "device": describe_device()["device"],
        "cores": cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "peak_flops": peaks,
        "copied_bytes_per_second": copied,
    }


def peak_of(host: dict[str, Any], precision: str) -> float:
    """Returns the FLOPs a second that what `describe` has returned gives for a precision; where the device computes it
    in fp32, those of fp32."""
    flops: dict[str, float] = host["peak_flops"]
    return flops.get(precision, flops["fp32"])


def line(host: dict[str, Any]) -> str:
    """Formats what `describe` returns as one line."""
    flops = ", ".join(f"{name} {flops / 1e9:,.0f}" for name, flops in host["peak_flops"].items())
    return (
        f"{host['device']}, {host['cores']} cores, torch {host['torch']}; matrix products reach {flops} GFLOP/s, "
        f"copies {host['copied_bytes_per_second'] / 1e9:,.0f} GB/s"
    )


@contextmanager
def _on_all_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    """Returns the bytes of a field of `/proc/self/status`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
