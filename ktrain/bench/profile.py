"""Where the time of a pretraining step goes: kernels by the time that they take themselves."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ktrain import model
from ktrain.bench import machine
from ktrain.bench.turns import WARM
from ktrain.config import Model, Train
from ktrain.device import device
from ktrain.engine import Engine, join_alone
from ktrain.forward import Loss

STEPS = 20
LINES = 24


@dataclass(frozen=True)
class Part:
    """A kernel or a function: its own milliseconds and its calls in a step."""

    name: str
    milliseconds: float
    calls: float


def step(setting: Train, network: Model, vocabulary: int) -> dict[str, Any]:
    """The parts of a step, the longest first, the step's milliseconds while it is watched, and how often the host waits
    in it for a GPU. One or two waits in all steps are the profile's own; fetching the batch is no part of the step.

    On a CPU each kernel of the compiler has its name, which is made of what was fused into it.
    """
    import torch._inductor.config as inductor

    join_alone()
    torch.set_num_threads(machine.cores())
    cuda = device().type == "cuda"
    # Compiled code without these names may lie in the cache.
    with inductor.patch({"cpp.enable_kernel_profile": True, "fx_graph_cache": False}):
        torch.manual_seed(0)
        trained = Loss(model.build(network, vocabulary, setting.context, 0, 0).to(device()))
        engine = Engine(trained, setting, setting.batch, compile=True)
        ids = torch.randint(0, vocabulary, (setting.batch, setting.context), device=device())
        weights = torch.full(ids.shape, 1 / (setting.batch * (setting.context - 1)), device=device())
        for _ in range(2 * WARM):
            engine.step(ids, weights, learning_rate=1e-3)
        machine.wait()
        watched = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=watched) as seen:
            for _ in range(STEPS):
                engine.step(ids, weights, learning_rate=1e-3)
            machine.wait()
        engine.close()
    found = []
    for event in seen.key_averages():
        own = event.self_device_time_total if cuda else event.self_cpu_time_total
        found.append(Part(event.key, own / STEPS / 1e3, event.count / STEPS))
    found.sort(key=lambda part: -part.milliseconds)
    waits = sum(part.calls for part in found if "Synchronize" in part.name)
    return {"parts": found, "milliseconds": sum(part.milliseconds for part in found), "waits": waits}


def text(found: dict[str, Any]) -> str:
    """The longest parts, a line each."""
    whole = found["milliseconds"]
    waits = f"; the host waits for the device {found['waits']:.2g} times" if device().type == "cuda" else ""
    lines = [f"{whole:.1f} ms a step{waits}", f"{'ms':>9}{'share':>8}{'calls':>8}"]
    for part in found["parts"][:LINES]:
        lines.append(f"{part.milliseconds:>9.2f}{part.milliseconds / whole:>8.1%}{part.calls:>8.1f}  {part.name[:100]}")
    return "\n".join(lines)
