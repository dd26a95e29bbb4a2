"""Speed of the training loop against reference loops, in one run.

Each loop is measured at its best thread count and precision, without logging, with `scaled_dot_product_attention` and
fused AdamW. They read random tokens, which cost what any others do.
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

from ktrain import model
from ktrain.bench import machine, turns
from ktrain.bench.nano import Nano
from ktrain.bench.turns import WARM, Loop
from ktrain.config import Model, Train
from ktrain.device import device
from ktrain.engine import Engine, join_alone
from ktrain.forward import Loss

VOCABULARY = {"mini": 2048}
"""Of the scale; GPT-2's elsewhere."""
GPT2 = 50_257
UNIT = "tok/s"
COMPILE = True


def train(setting: Train, network: Model, *, seconds: float, precisions: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tokens a second of each loop: the rows, and `ratios` of this loop over `eager`, `trainer` and `compiled`.

    `engineless` is this loop without DeepSpeed. `seconds` is the measured time of each loop, thread count and round;
    `precisions` are what each loop may choose from, on a CPU both.
    """
    join_alone()
    torch.manual_seed(0)
    about = machine.told()
    # Every loop is a compilation of its own of the same functions; beyond the limit they would run uncompiled.
    torch._dynamo.config.recompile_limit = 64
    vocabulary = VOCABULARY.get(network.size, GPT2)
    ids = torch.randint(0, vocabulary, (64 * setting.batch, setting.context))
    cpu = device().type == "cpu"
    counts = sorted({1, machine.cores()}) if cpu else [torch.get_num_threads()]
    chosen = precisions or (("bf16", "fp32") if cpu else (setting.precision,))
    settings = [setting.model_copy(update={"precision": precision}) for precision in chosen]
    loops: dict[str, Loop] = {}
    ways: dict[tuple[str, str, int], str] = {}
    for name, maker in MAKERS.items():
        for each in settings:
            loop = maker(each, network, vocabulary, ids)
            for threads in counts:
                ways[name, each.precision, threads] = way = f"{name} {each.precision} {threads}"
                loops[way] = _with(threads, loop)
    found_of = turns.rounds(loops, seconds)
    measured = {key: found_of[way] for key, way in ways.items()}
    per_token = model.flops_per_token(network, vocabulary, setting.context)
    rows, ratios, shares = [], {}, {}
    for name in MAKERS:
        best = max((k for k in measured if k[0] == name), key=lambda k: statistics.median(measured[k]))
        found = turns.row(name, measured[best], UNIT, f"{best[1]}, {best[2]} threads" if cpu else best[1])
        rows.append(found)
        shares[name] = found.median * per_token / about["peak_flops"][best[1]]
        if name != "ktrain":
            ratios[name] = rows[0].median / found.median
    for precision in chosen:
        ours = max(statistics.median(measured["ktrain", precision, threads]) for threads in counts)
        shares[f"ktrain {precision}"] = ours * per_token / about["peak_flops"][precision]
    told = {
        "model": network.size,
        "vocabulary": vocabulary,
        "batch": setting.batch,
        "context": setting.context,
        "by_threads": {way: statistics.median(values) for way, values in found_of.items()},
    }
    formula = f"6 N + 12 L d T = {per_token / 1e6:,.2f} MFLOP a token; shares are of the matrix product's peak"
    return turns.result(rows, ratios, shares, about, told, formula)


def text(found: dict[str, Any]) -> str:
    """The result as a table, and the share of the peak in each precision."""
    shares = [(n.removeprefix("ktrain "), s) for n, s in found["share_of_peak"].items() if n.startswith("ktrain ")]
    setting = {name: value for name, value in found["setting"].items() if name != "by_threads"}
    table = turns.text({**found, "setting": setting})
    return f"{table}\nktrain reaches " + ", ".join(f"{share:.0%} of it in {precision}" for precision, share in shares)


def _with(threads: int, loop: Loop) -> Loop:
    def measured(seconds: float) -> float:
        torch.set_num_threads(threads)
        return loop(seconds)

    return measured


def _network(network: Model, setting: Train, vocabulary: int) -> Any:
    return model.build(network, vocabulary, setting.context, 0, 0).to(device()).train()


def even_weights(setting: Train) -> Tensor:
    """Every target counts alike."""
    weights = torch.full((setting.batch, setting.context), 1 / (setting.batch * (setting.context - 1)))
    return weights.to(device())


def _ktrain(setting: Train, network: Model, vocabulary: int, ids: Tensor) -> Loop:
    engine = Engine(Loss(_network(network, setting, vocabulary)), setting, setting.batch, compile=COMPILE)
    weights = even_weights(setting)
    return timed(lambda batch: engine.step(batch, weights, learning_rate=1e-3), ids, setting)


def _engineless(setting: Train, network: Model, vocabulary: int, ids: Tensor) -> Loop:
    module, weights = Loss(_network(network, setting, vocabulary)), even_weights(setting)
    loss = torch.compile(module) if COMPILE else module
    return timed(plain(module, lambda batch: loss(batch, weights), setting), ids, setting)


def _compiled(setting: Train, network: Model, vocabulary: int, ids: Tensor) -> Loop:
    module = Nano(model.SHAPES[network.size], vocabulary, setting.context).to(device())
    loss = torch.compile(module) if COMPILE else module
    return timed(plain(module, loss, setting), ids, setting)


def _eager(setting: Train, network: Model, vocabulary: int, ids: Tensor) -> Loop:
    module = _network(network, setting, vocabulary)

    def loss(batch: Tensor) -> Tensor:
        found: Tensor = module(input_ids=batch, labels=batch, use_cache=False).loss
        return found

    return timed(plain(module, loss, setting), ids, setting)


def plain(module: nn.Module, loss: Callable[[Tensor], Tensor], setting: Train) -> Callable[[Tensor], Tensor]:
    """The step of the loop that anybody would write."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=setting.weight_decay, fused=True)

    def step(batch: Tensor) -> Tensor:
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=setting.precision == "bf16"):
            found = loss(batch)
        torch.autograd.backward(found)
        nn.utils.clip_grad_norm_(module.parameters(), setting.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return found.detach()

    return step


def timed(step: Callable[[Tensor], Tensor], ids: Tensor, setting: Train) -> Loop:
    """The loop of a step over the rows of `ids`, which measures tokens a second."""
    batches = torch.split(ids, setting.batch)
    if device().type == "cuda":
        batches = tuple(batch.pin_memory() for batch in batches)

    def one(k: int) -> None:
        step(batches[k % len(batches)].to(device(), non_blocking=True))

    def loop(seconds: float) -> float:
        for k in range(WARM):
            one(k)
        steps, passed = turns.repeated(one, seconds)
        return steps * setting.batch * setting.context / passed

    return loop


def _trainer(setting: Train, network: Model, vocabulary: int, ids: Tensor) -> Loop:
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
                bf16=setting.precision == "bf16",
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
    """Hides the process group of the engine, or the Trainer would wrap its network for a cluster of one and be slow."""
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
