"""The peak memory of a worker, and the limit on its share of a GPU."""

import resource

import torch
import torch.distributed as dist


def reset_peak() -> None:
    """Restarts the count of the peak. Only a GPU can: the peak of a process in CPU memory is for its lifetime."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def memory_metrics() -> dict[str, int]:
    """Returns the memory metrics of a stage, from which later trials are placed (`sweeps/execution/placement.py`):
    `speed/peak_memory_bytes` of this rank, and `speed/gpus`, the number of GPUs of the job (0 on CPUs)."""
    gpus = dist.get_world_size() if torch.cuda.is_available() else 0
    return {"speed/peak_memory_bytes": peak(), "speed/gpus": gpus}


def peak() -> int:
    """Returns the peak in bytes: of tensors on this worker's GPU since `reset_peak`, or without a GPU of the resident
    memory of the process since it began."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_gpu_share(share: float) -> None:
    """Limits this process to `share` of its GPU, so that it runs out of memory itself and not a neighbour."""
    if torch.cuda.is_available() and share < 1:
        torch.cuda.set_per_process_memory_fraction(share)


def free(share: float) -> float:
    """Returns the bytes of its GPU that this process may still allocate, within its `share`."""
    left, total = torch.cuda.mem_get_info()
    return float(min(left, share * total - torch.cuda.memory_reserved()) if share < 1 else left)
