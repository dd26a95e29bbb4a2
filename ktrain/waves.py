"""Waves: how many members of a fleet are trained at once, found by measuring steps of some."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from ktrain import memory
from ktrain.config import Readout, Runtime
from ktrain.fleet import Fleet
from ktrain.patience import persist, whole

SHARE = 0.6
"""Of the free memory that a wave may fill: compiled steps need workspace, and other processes live beside it."""
TIE = 1.03
"""A larger wave is preferred unless a smaller one is faster by more than the noise of the measurement."""

WORSE = 1.1
"""Larger waves are not tried once one was slower than the best by this factor."""

LONG = 1200.0
"""Seconds of all members' steps from which on waves are measured compiled, which takes half a minute for each size."""
TOKENS = 10_000
"""Tokens of a wave on a CPU where that does not pay: what a step holds of them about fits into a cache. At scale `mini`
no other number was clearly better in any kind of readout (docs/speed.md). Steps that are not compiled say nothing of
it: their times a member differ by a factor of two."""

Step = Callable[[int], tuple[Fleet, tuple[Tensor, ...]]]
"""A fleet of so many members and a batch for it."""


def size(make: Step, members: int, readout: Readout, runtime: Runtime, record: Path) -> int:
    """Members of a wave: the fastest of 1, 2, 4, ... that fits into memory, per member and step. Where finding out
    would take longer than it saves, it is `TOKENS` of them on a CPU, and all that fit on a GPU. Waves of one size need
    one compilation, so they are as even as can be.

    Every rank must call, because a step may be collective; rank 0's clock decides. What was found is kept in the file
    `record`, so that a restart makes the same waves and finds their resume points.
    """
    if known := _rank_0s(json.loads(record.read_text())["members"] if record.is_file() else None):
        return int(known)
    fleet, batch = make(1)
    need = _bytes(fleet, batch, readout)
    fits = max(1, min(_everyones(int(_free(runtime) * SHARE / need))))
    most = min(fits, members)
    seconds = {1: _seconds(fleet, batch, readout, compiled=False)}
    if _rank_0s(runtime.compile and seconds[1] * members * readout.steps < LONG):
        cached = max(1, TOKENS // batch[0][0].numel())
        chosen = min(cached, most) if batch[0].device.type == "cpu" else most
    else:
        for count in sorted({*(2**k for k in range(members.bit_length()) if 2**k <= most), most}):
            seconds[count] = _seconds(*make(count), readout, compiled=runtime.compile) / count
            if _rank_0s(seconds[count] > WORSE * min(seconds.values())):
                break
        chosen = _rank_0s(max(count for count in seconds if seconds[count] <= TIE * min(seconds.values())))
    chosen = math.ceil(members / math.ceil(members / chosen))
    if not dist.get_rank():
        text = json.dumps({"members": chosen, "bytes_of_one": need, "seconds_of_one": seconds})
        persist(f"waves of {record.parent.name}", lambda: whole(record, text))
    return int(chosen)


def _rank_0s(value: Any) -> Any:
    words = [value]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(words, src=0)
    return words[0]


def _everyones(value: Any) -> list[Any]:
    words = [value] * dist.get_world_size()
    if dist.get_world_size() > 1:
        dist.all_gather_object(words, value)
    return words


def _free(runtime: Runtime) -> float:
    """Bytes that this worker may use."""
    if torch.cuda.is_available():
        return memory.free(runtime.gpu_share)
    return float(psutil.virtual_memory().available) * min(1.0, runtime.threads / (os.cpu_count() or 1))


def _bytes(fleet: Fleet, batch: tuple[Tensor, ...], readout: Readout) -> int:
    """What one member holds at the end of its forward: activations, and four times its parameters."""
    shared = {p.untyped_storage().data_ptr() for p in fleet.parameters()}
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in shared:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with _precision(batch, readout), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = fleet(*batch)
    trained = sum(p.numel() * p.element_size() for p in fleet.parameters() if p.requires_grad)
    assert losses.requires_grad
    return sum(held.values()) + 4 * trained


def _seconds(fleet: Fleet, batch: tuple[Tensor, ...], readout: Readout, *, compiled: bool) -> float:
    """The shortest of three steps without optimizer, after one that allocates and compiles."""
    step = torch.compile(fleet) if compiled else fleet
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        with _precision(batch, readout):
            losses = step(*batch)
        losses.sum().backward()
        if losses.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    if compiled:
        torch.compiler.reset()
    return min(times[1:])


def _precision(batch: tuple[Tensor, ...], readout: Readout) -> torch.autocast:
    return torch.autocast(batch[0].device.type, torch.bfloat16, enabled=readout.precision == "bf16")
