"""Memory of a worker: what it has taken at most, and how much of a GPU that it shares it may take."""

import resource

import torch
import torch.distributed as dist


def watch() -> None:
    """Counts the peak from here on, where it can be counted anew: on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def numbers() -> dict[str, int]:
    """The metrics of a stage about memory, from which the place of later trials is found (`sweeps/placement.py`):
    `speed/peak_memory_bytes` of this rank, and on how many GPUs that was, 0 on processors."""
    gpus = dist.get_world_size() if torch.cuda.is_available() else 0
    return {"speed/peak_memory_bytes": peak(), "speed/gpus": gpus}


def peak() -> int:
    """Bytes: the most that tensors have held on this worker's GPU since `watch`, or that the process has held in memory
    since it began."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def confine(share: float) -> None:
    """Lets this process take no more than `share` of its GPU: what it lacks is an error here, not in a neighbour."""
    if torch.cuda.is_available() and share < 1:
        torch.cuda.set_per_process_memory_fraction(share)


def free(share: float) -> float:
    """Bytes of its GPU that this process may still take."""
    left, total = torch.cuda.mem_get_info()
    return float(min(left, share * total - torch.cuda.memory_reserved()) if share < 1 else left)
