"""The pretraining loop as it is, against the same loop with one choice made otherwise."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ktrain import model, shapes
from ktrain.bench import machine, train, turns
from ktrain.bench.turns import Loop
from ktrain.config import Model, Train
from ktrain.device import device
from ktrain.engine import join_alone
from ktrain.forward import Loss

SHIPPED = "as it is"
SECONDS = 8.0


@dataclass(frozen=True)
class Way:
    """What is made otherwise; None and `default` are as it is."""

    logits: int | None = None
    """Bytes of a chunk of logits."""
    attention: SDPBackend | None = None
    mode: str = "default"
    """Of the compiler."""


EVERYWHERE = {
    SHIPPED: Way(),
    "all logits at once": Way(logits=2**62),
    "logits by 16 MiB": Way(logits=2**24),
    "logits by 256 MiB": Way(logits=2**28),
}
ON_A_GPU = {
    "logits by 8 GiB": Way(logits=2**33),
    "flash attention": Way(attention=SDPBackend.FLASH_ATTENTION),
    "cuDNN's attention": Way(attention=SDPBackend.CUDNN_ATTENTION),
    "CUDA graphs": Way(mode="reduce-overhead"),
}


def choices(setting: Train, network: Model, vocabulary: int, *, seconds: float) -> dict[str, Any]:
    """Tokens a second of each way; `ratios` are the loop as it is over the others, and each row's note says how much
    memory the way took beside the weights: moments, gradients and what a step holds."""
    join_alone()
    torch.manual_seed(0)
    torch.set_num_threads(machine.cores())
    about = machine.told()
    torch._dynamo.config.recompile_limit = 64
    ids = torch.randint(0, vocabulary, (8 * setting.batch, setting.context))
    ways = EVERYWHERE | (ON_A_GPU if device().type == "cuda" else {})
    held: dict[str, int] = {}
    loops = {name: _loop(name, way, setting, network, vocabulary, ids, held) for name, way in ways.items()}
    measured = turns.rounds(loops, seconds)
    rows = [turns.row(n, values, train.UNIT, f"{held[n] / 2**30:.2f} GiB") for n, values in measured.items()]
    ratios = {row.name: rows[0].median / row.median for row in rows[1:]}
    flops = model.flops_per_token(network, vocabulary, setting.context)
    shares = {row.name: row.median * flops / about["peak_flops"][setting.precision] for row in rows}
    told = {"model": network.size, "vocabulary": vocabulary, "batch": setting.batch, "context": setting.context}
    return turns.result(rows, ratios, shares, about, told)


def _loop(
    name: str, way: Way, setting: Train, network: Model, vocabulary: int, ids: Tensor, held: dict[str, int]
) -> Loop:
    module = Loss(model.build(network, vocabulary, setting.context, 0, 0).to(device()).train())
    weights = train.even_weights(setting)

    def loss(batch: Tensor) -> Tensor:
        # Inside of what is compiled, or the compiler would take the code of another way.
        with sdpa_kernel(way.attention) if way.attention else nullcontext():
            found: Tensor = module(batch, weights)
        return found

    compiled = torch.compile(loss, mode=way.mode) if train.COMPILE else loss
    loop = train.timed(train.plain(module, compiled, setting), ids, setting)

    def measured(seconds: float) -> float:
        with _chunks(way.logits):
            speed, taken = machine.memory_of(lambda: loop(seconds))
        # The first round takes the optimizer's moments too, and graphs hold their memory from then on.
        held.setdefault(name, taken)
        return speed

    return measured


@contextmanager
def _chunks(size: int | None) -> Iterator[None]:
    """The loss by chunks of so many bytes of logits."""
    before = shapes.LOGITS
    shapes.LOGITS = before if size is None else dict.fromkeys(before, size)
    try:
        yield
    finally:
        shapes.LOGITS = before


def main(words: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m ktrain.bench.choices", description=__doc__.splitlines()[0])
    parser.add_argument("size", nargs="?", choices=shapes.SHAPES, default="124m", help="of the network (124m)")
    parser.add_argument("batch", nargs="?", type=int, default=96, help="windows in a step (96)")
    asked = parser.parse_args(words)
    if asked.batch < 1:
        parser.error(f"argument batch: {asked.batch}: must be at least 1")
    vocabulary = train.VOCABULARY.get(asked.size, train.GPT2)
    network = Model.model_validate({"size": asked.size})
    print(turns.text(choices(Train(batch=asked.batch), network, vocabulary, seconds=SECONDS)))


if __name__ == "__main__":
    main(sys.argv[1:])
