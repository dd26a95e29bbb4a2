"""Speed of the training loop against reference loops, in one run.

Each loop runs at its best thread count and precision, without logging, with `scaled_dot_product_attention`, fused AdamW
and the allocator's setting of a trial. The tokens are random, which does not change the speed.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ktrain.bench import interleaved, machine
from ktrain.bench.interleaved import WARM, Loop
from ktrain.bench.reference_gpt import ReferenceGpt
from ktrain.config import ModelConfig, TrainConfig
from ktrain.model import networks
from ktrain.model.forward import LanguageModelLoss
from ktrain.system.allocator import keep_freed_memory
from ktrain.system.device import autocast, multiplies_in_bf16, training_device
from ktrain.system.process_group import join_alone
from ktrain.training.deepspeed_engine import Engine

VOCABULARY = {"mini": 2048}
"""Vocabulary of a network size; GPT-2's for all others."""
GPT2 = 50_257
UNIT = "tok/s"
COMPILE = True


def train(
    setting: TrainConfig, network: ModelConfig, *, seconds: float, precisions: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Returns tokens a second of each loop, and `ratios` of our loop over the others.

    `engineless` is our loop without DeepSpeed. `seconds` is the measured time of each loop, thread count and round;
    `precisions` are the candidates of each loop, by default those that a CPU has instructions for, and the
    setting's on a GPU.
    """
    join_alone()
    keep_freed_memory()
    torch.manual_seed(0)
    host = machine.describe()
    # Each loop compiles the same functions again; beyond the limit they would run uncompiled.
    torch._dynamo.config.recompile_limit = 64
    vocabulary = VOCABULARY.get(network.size, GPT2)
    ids = torch.randint(0, vocabulary, (64 * setting.batch, setting.context))
    cpu = training_device().type == "cpu"
    counts = sorted({1, machine.cores()}) if cpu else [torch.get_num_threads()]
    chosen = precisions or _precisions(setting)
    settings = [setting.model_copy(update={"precision": precision}) for precision in chosen]
    loops: dict[str, Loop] = {}
    ways: dict[tuple[str, str, int], str] = {}
    for name, maker in MAKERS.items():
        for each in settings:
            loop = maker(each, network, vocabulary, ids)
            for threads in counts:
                ways[name, each.precision, threads] = way = f"{name} {each.precision} {threads}"
                loops[way] = _with(threads, loop)
    by_way = interleaved.interleave(loops, seconds, host=host)
    measured = {key: by_way[way] for key, way in ways.items()}
    per_token = networks.flops_per_token(network, vocabulary, setting.context)
    rows, ratios, shares = [], {}, {}
    for name in MAKERS:
        best = max((k for k in measured if k[0] == name), key=lambda k: statistics.median(measured[k]))
        row = interleaved.row(name, measured[best], UNIT, f"{best[1]}, {best[2]} threads" if cpu else best[1])
        rows.append(row)
        shares[name] = row.median * per_token / host["peak_flops"][best[1]]
        if name != "ktrain":
            ratios[name] = rows[0].median / row.median
    for precision in chosen:
        ours = max(statistics.median(measured["ktrain", precision, threads]) for threads in counts)
        shares[f"ktrain {precision}"] = ours * per_token / host["peak_flops"][precision]
    described = {
        "model": network.size,
        "vocabulary": vocabulary,
        "batch": setting.batch,
        "context": setting.context,
        "by_threads": {way: statistics.median(values) for way, values in by_way.items()},
    }
    formula = f"6 N + 12 L d T = {per_token / 1e6:,.2f} MFLOP a token; shares are of the matrix product's peak"
    return interleaved.result(rows, ratios, shares, host, described, formula)


def _precisions(setting: TrainConfig) -> tuple[str, ...]:
    """The precisions of which each loop may choose the faster one."""
    possible = machine.precisions()
    return possible if training_device().type == "cpu" or setting.precision not in possible else (setting.precision,)


def text(measured: dict[str, Any]) -> str:
    """Formats a result as a table, with the share of the peak in each precision."""
    shares = [(n.removeprefix("ktrain "), s) for n, s in measured["share_of_peak"].items() if n.startswith("ktrain ")]
    setting = {name: value for name, value in measured["setting"].items() if name != "by_threads"}
    table = interleaved.text({**measured, "setting": setting})
    return f"{table}\nktrain reaches " + ", ".join(f"{share:.0%} of it in {precision}" for precision, share in shares)


def _with(threads: int, loop: Loop) -> Loop:
    def measured(seconds: float) -> float:
        torch.set_num_threads(threads)
        return loop(seconds)

    return measured


def _network(network: ModelConfig, setting: TrainConfig, vocabulary: int) -> Any:
    return networks.build_network(network, vocabulary, setting.context, 0, 0).to(training_device()).train()


def even_weights(setting: TrainConfig) -> Tensor:
    """Returns weights that sum to one, equal for every target."""
    weights = torch.full((setting.batch, setting.context), 1 / (setting.batch * (setting.context - 1)))
    return weights.to(training_device())


def _ktrain(setting: TrainConfig, network: ModelConfig, vocabulary: int, ids: Tensor) -> Loop:
    engine = Engine(LanguageModelLoss(_network(network, setting, vocabulary)), setting, setting.batch, compile=COMPILE)
    weights = even_weights(setting)
    return timed(lambda batch: engine.step(batch, weights, learning_rate=1e-3), ids, setting)


def _engineless(setting: TrainConfig, network: ModelConfig, vocabulary: int, ids: Tensor) -> Loop:
    module, weights = LanguageModelLoss(_network(network, setting, vocabulary)), even_weights(setting)
    loss = torch.compile(module) if COMPILE else module
    return timed(plain(module, lambda batch: loss(batch, weights), setting), ids, setting)


def _compiled(setting: TrainConfig, network: ModelConfig, vocabulary: int, ids: Tensor) -> Loop:
    module = ReferenceGpt(network.shape, vocabulary, setting.context).to(training_device())
    loss = torch.compile(module) if COMPILE else module
    return timed(plain(module, loss, setting), ids, setting)


def _eager(setting: TrainConfig, network: ModelConfig, vocabulary: int, ids: Tensor) -> Loop:
    module = _network(network, setting, vocabulary)

    def loss(batch: Tensor) -> Tensor:
        mean: Tensor = module(input_ids=batch, labels=batch, use_cache=False).loss
        return mean

    return timed(plain(module, loss, setting), ids, setting)


def plain(module: nn.Module, loss: Callable[[Tensor], Tensor], setting: TrainConfig) -> Callable[[Tensor], Tensor]:
    """Returns the training step of a plain PyTorch loop."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=setting.weight_decay, fused=True)

    def step(batch: Tensor) -> Tensor:
        with autocast(setting.precision, batch.device):
            value = loss(batch)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(module.parameters(), setting.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    return step


def timed(step: Callable[[Tensor], Tensor], ids: Tensor, setting: TrainConfig) -> Loop:
    """Returns a loop that steps over the rows of `ids` (rows, T) and measures tokens a second."""
    batches = torch.split(ids, setting.batch)
    if training_device().type == "cuda":
        batches = tuple(batch.pin_memory() for batch in batches)

    def one(k: int) -> None:
        step(batches[k % len(batches)].to(training_device(), non_blocking=True))

    def loop(seconds: float) -> float:
        for k in range(WARM):
            one(k)
        steps, passed = interleaved.repeated(one, seconds)
        return steps * setting.batch * setting.context / passed

    return loop


def _trainer(setting: TrainConfig, network: ModelConfig, vocabulary: int, ids: Tensor) -> Loop:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    module = _network(network, setting, vocabulary)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self, seconds: float) -> None:
            self.seconds, self.begin, self.end, self.steps = seconds, 0.0, 0.0, 0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.end = time.perf_counter()
            if state.global_step == WARM:
                self.begin = self.end
            self.steps = state.global_step - WARM
            control.should_training_stop = state.global_step > WARM and self.end - self.begin > self.seconds

    rows = [{"input_ids": row, "labels": row} for row in ids]

    def loop(seconds: float) -> float:
        clock = Clock(seconds)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None), _alone():
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=setting.batch,
                max_steps=10**6,
                learning_rate=1e-3,
                lr_scheduler_type="constant",
                weight_decay=setting.weight_decay,
                max_grad_norm=setting.clip,
                optim="adamw_torch_fused",
                bf16=multiplies_in_bf16(setting.precision, training_device()),
                use_cpu=not torch.cuda.is_available(),
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=torch.cuda.is_available(),
            )
            Trainer(model=module, args=arguments, train_dataset=rows, callbacks=[clock]).train()
        return clock.steps * setting.batch * setting.context / (clock.end - clock.begin)

    return loop


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hides the engine's process group from the Trainer, which would otherwise wrap its network in slow DDP."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


MAKERS = {
    "ktrain": _ktrain,
    "engineless": _engineless,
    "compiled": _compiled,
    "eager": _eager,
    "trainer": _trainer,
}
