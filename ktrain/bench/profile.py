"""Where the time of a pretraining step goes: kernels by their own time."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ktrain.bench import machine
from ktrain.bench.interleaved import WARM
from ktrain.config import ModelConfig, TrainConfig
from ktrain.model import networks
from ktrain.model.forward import LanguageModelLoss
from ktrain.system.allocator import keep_freed_memory
from ktrain.system.device import training_device
from ktrain.system.process_group import join_alone
from ktrain.training.deepspeed_engine import Engine

STEPS = 20
LINES = 24


@dataclass(frozen=True)
class Part:
    """A kernel or function: its own milliseconds and its calls in a step."""

    name: str
    milliseconds: float
    calls: float


def step(setting: TrainConfig, network: ModelConfig, vocabulary: int) -> dict[str, Any]:
    """Returns the parts of a step, longest first, its milliseconds under the profiler, and how often the host waits
    for a GPU. The profiler itself adds one or two waits over all steps. Fetching the batch is not part of the step.

    On a CPU each compiled kernel appears under its own name, which lists the operations fused into it.
    """
    import torch._inductor.config as inductor

    join_alone()
    keep_freed_memory()
    torch.set_num_threads(machine.cores())
    cuda = training_device().type == "cuda"
    # The cache may hold code compiled without these names.
    with inductor.patch({"cpp.enable_kernel_profile": True, "fx_graph_cache": False}):
        torch.manual_seed(0)
        trained = LanguageModelLoss(
            networks.build_network(network, vocabulary, setting.context, 0, 0).to(training_device())
        )
        engine = Engine(trained, setting, setting.batch, compile=True)
        ids = torch.randint(0, vocabulary, (setting.batch, setting.context), device=training_device())
        weights = torch.full(ids.shape, 1 / (setting.batch * (setting.context - 1)), device=training_device())
        for _ in range(2 * WARM):
            engine.step(ids, weights, learning_rate=1e-3)
        machine.wait()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=activities) as profiler:
            for _ in range(STEPS):
                engine.step(ids, weights, learning_rate=1e-3)
            machine.wait()
        engine.close()
    parts = []
    for event in profiler.key_averages():
        own = event.self_device_time_total if cuda else event.self_cpu_time_total
        parts.append(Part(event.key, own / STEPS / 1e3, event.count / STEPS))
    parts.sort(key=lambda part: -part.milliseconds)
    waits = sum(part.calls for part in parts if "Synchronize" in part.name)
    return {"parts": parts, "milliseconds": sum(part.milliseconds for part in parts), "waits": waits}


def text(measured: dict[str, Any]) -> str:
    """Formats the `LINES` longest parts, a line each."""
    whole = measured["milliseconds"]
    waits = f"; the host waits for the device {measured['waits']:.2g} times" if training_device().type == "cuda" else ""
    lines = [f"{whole:.1f} ms a step{waits}", f"{'ms':>9}{'share':>8}{'calls':>8}"]
    for part in measured["parts"][:LINES]:
        lines.append(f"{part.milliseconds:>9.2f}{part.milliseconds / whole:>8.1%}{part.calls:>8.1f}  {part.name[:100]}")
    return "\n".join(lines)
