"""How many adapters to train at once, from the memory and the time that steps of a few of them take."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from ktrain.config import ReadoutConfig, RuntimeConfig
from ktrain.model.stacked_lora import StackedAdapters
from ktrain.store.regular_files import read_text
from ktrain.system import gpu_memory
from ktrain.system.atomic_write import atomic_write
from ktrain.system.collectives import broadcast_from_rank0, gather_objects
from ktrain.system.device import autocast
from ktrain.system.retry import retry_until

SHARE = 0.6
"""Share of the free memory that a batch of adapters may fill: compiled steps need workspace, and other processes run
on the same device."""
TIE = 1.03
"""A larger batch is preferred unless a smaller one is faster by more than this factor, the noise of a measurement."""
WORSE = 1.1
"""Once a batch is slower than the fastest by this factor, larger ones are not measured."""
LONG = 1200.0
"""Seconds of all adapters' steps above which compiled steps are measured, which takes half a minute for each size."""
TOKENS = 10_000
"""Tokens of a batch on a CPU where measuring does not pay: its activations about fit into a cache. At scale `mini` no
other number was clearly better for any kind of readout (docs/speed.md). Steps that are not compiled do not predict it:
their times per adapter differ by a factor of two."""

MakeStep = Callable[[int], tuple[StackedAdapters, tuple[Tensor, ...]]]
"""Makes so many stacked adapters and the data of one step."""


def choose_batch_size(
    make: MakeStep, adapters: int, readout: ReadoutConfig, runtime: RuntimeConfig, record: Path
) -> int:
    """Chooses how many of `adapters` train at once: the fastest of 1, 2, 4, ... per adapter and step that fits into
    memory. Where measuring would cost more than it saves, it is `TOKENS` of them on a CPU, and all that fit on a GPU.
    Batches of one size share a compilation, so they are as even as possible.

    Every rank must call, because a step may be collective; rank 0's clock decides. The file `record` keeps the choice,
    so that a restart makes the same batches and finds their checkpoints.
    """
    recorded = json.loads(read_text(record, record.parent))["members"] if record.is_file() else None
    if known := broadcast_from_rank0(recorded):
        return int(known)
    stack, data = make(1)
    need = _bytes(stack, data, readout)
    fitting = max(1, min(gather_objects(int(_free(runtime) * SHARE / need))))
    most = min(fitting, adapters)
    seconds = {1: _seconds(stack, data, readout, compiled=False)}
    if broadcast_from_rank0(runtime.compile and seconds[1] * adapters * readout.steps < LONG):
        cached = max(1, TOKENS // data[0][0].numel())
        size = min(cached, most) if data[0].device.type == "cpu" else most
    else:
        size = _fastest(make, most, readout, runtime, seconds)
    size = math.ceil(adapters / math.ceil(adapters / size))
    if not dist.get_rank():
        text = json.dumps({"members": size, "bytes_of_one": need, "seconds_of_one": seconds})
        retry_until(f"adapter batch size of {record.parent.name}", lambda: atomic_write(record, text))
    return size


def _fastest(
    make: MakeStep, most: int, readout: ReadoutConfig, runtime: RuntimeConfig, seconds: dict[int, float]
) -> int:
    """The largest of the fastest sizes up to `most`; leaves the measured seconds per adapter and step in `seconds`."""
    doubled = {2**k for k in range(most.bit_length()) if 2**k <= most}
    for size in sorted({*doubled, most}):
        seconds[size] = _seconds(*make(size), readout, compiled=runtime.compile) / size
        if broadcast_from_rank0(seconds[size] > WORSE * min(seconds.values())):
            break
    tied = [size for size, time_of_one in seconds.items() if time_of_one <= TIE * min(seconds.values())]
    return int(broadcast_from_rank0(max(tied)))


def _free(runtime: RuntimeConfig) -> float:
    """Bytes that this worker may use."""
    if torch.cuda.is_available():
        return gpu_memory.free(runtime.gpu_share)
    return float(psutil.virtual_memory().available) * min(1.0, runtime.threads / (os.cpu_count() or 1))


def _bytes(stack: StackedAdapters, data: tuple[Tensor, ...], readout: ReadoutConfig) -> int:
    """Bytes that one adapter holds at the end of its forward: activations, and four times its parameters."""
    shared = {p.untyped_storage().data_ptr() for p in stack.parameters()}
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in shared:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        autocast(readout.precision, data[0].device),
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        losses = stack(*data)
    trained = sum(p.numel() * p.element_size() for p in stack.parameters() if p.requires_grad)
    assert losses.requires_grad
    return sum(held.values()) + 4 * trained


def _seconds(stack: StackedAdapters, data: tuple[Tensor, ...], readout: ReadoutConfig, *, compiled: bool) -> float:
    """The shortest of three steps without optimizer, after one that allocates and compiles."""
    step = torch.compile(stack) if compiled else stack
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        with autocast(readout.precision, data[0].device):
            losses = step(*data)
        losses.sum().backward()
        if losses.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    if compiled:
        torch.compiler.reset()
    return min(times[1:])
