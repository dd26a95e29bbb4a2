"""Speed of the training loop against reference loops on the same network, batch and precision, in one run.

Loops take turns, so that a machine whose speed drifts slows all of them alike; each is measured at its best thread
count, without logging, with `scaled_dot_product_attention` and fused AdamW.
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
from ktrain.config import Model, Train
from ktrain.engine import Engine, join_alone
from ktrain.forward import Loss

VOCABULARY = 2048
ROUNDS = 3
WARM = 3
"""Steps before the clock starts: compilation, allocation, autotuning."""

Loop = Callable[[float], float]
"""Runs steps for about so many seconds and returns tokens a second."""


def train(setting: Train, network: Model, *, seconds: float) -> dict[str, Any]:
    """Tokens a second of each loop and the ratios `eager` and `trainer`: this loop's over theirs.

    `seconds` is the measured time of each loop, thread count and round.
    """
    join_alone()
    torch.manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (64 * setting.batch, setting.context))
    counts = sorted({1, os.cpu_count() or 1})
    makers = {"ktrain": _ktrain, "eager": _eager, "trainer": _trainer}
    loops = {name: maker(setting, _network(network, setting), ids) for name, maker in makers.items()}
    measured: dict[str, dict[int, list[float]]] = {name: {n: [] for n in counts} for name in loops}
    for _ in range(ROUNDS):
        for threads in counts:
            torch.set_num_threads(threads)
            for name, loop in loops.items():
                measured[name][threads].append(loop(seconds))
    medians = {name: {n: statistics.median(v) for n, v in runs.items()} for name, runs in measured.items()}
    best = {name: max(runs.values()) for name, runs in medians.items()}
    return {
        "ratios": {name: best["ktrain"] / best[name] for name in ("eager", "trainer")},
        "tokens_per_second": best,
        "threads": {name: max(runs, key=runs.__getitem__) for name, runs in medians.items()},
        "by_threads": medians,
        "setting": {
            "model": network.size,
            "vocabulary": VOCABULARY,
            "batch": setting.batch,
            "context": setting.context,
            "precision": setting.precision,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "torch": torch.__version__,
        },
    }


def text(found: dict[str, Any]) -> str:
    """The result as a small table."""
    setting = found["setting"]
    lines = [f"{setting['model']}, {setting['batch']} x {setting['context']} tokens, {setting['precision']}:"]
    for name, speed in found["tokens_per_second"].items():
        ratio = f"{found['ratios'][name]:6.2f}x" if name in found["ratios"] else ""
        lines.append(f"  {name:<8}{speed:>12,.0f} tok/s  {found['threads'][name]} threads{ratio:>10}")
    return "\n".join(lines)


def _network(network: Model, setting: Train) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.build(network, VOCABULARY, setting.context, 0, 0).to(device)


def _ktrain(setting: Train, network: Any, ids: Tensor) -> Loop:
    engine = Engine(Loss(network).train(), setting, setting.batch, compile=True)
    weights = torch.full((setting.batch, setting.context), 1 / (setting.batch * (setting.context - 1)))
    weights = weights.to(engine.device)

    def step(batch: Tensor) -> Tensor:
        return engine.step(batch.to(engine.device), weights, learning_rate=1e-3)

    return _timed(step, ids, setting)


def _eager(setting: Train, network: Any, ids: Tensor) -> Loop:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=setting.weight_decay, fused=True)
    device = network.device
    network.train()

    def step(batch: Tensor) -> Tensor:
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.precision == "bf16"):
            loss: Tensor = network(input_ids=batch, labels=batch, use_cache=False).loss
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), setting.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return _timed(step, ids, setting)


def _timed(step: Callable[[Tensor], Tensor], ids: Tensor, setting: Train) -> Loop:
    def loop(seconds: float) -> float:
        batches = torch.split(ids, setting.batch)
        for i in range(WARM):
            step(batches[i])
        _wait()
        begin, steps = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            step(batches[steps % len(batches)])
            steps += 1
            _wait()
        return steps * setting.batch * setting.context / (time.perf_counter() - begin)

    return loop


def _trainer(setting: Train, network: Any, ids: Tensor) -> Loop:
    from transformers import Trainer, TrainerCallback, TrainingArguments

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
            Trainer(model=network, args=arguments, train_dataset=rows, callbacks=[clock]).train()
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


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
