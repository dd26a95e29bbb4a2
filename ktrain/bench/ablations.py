"""The pretraining loop as shipped, against the same loop with one choice changed."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ktrain.bench import interleaved, machine, train
from ktrain.bench.interleaved import Loop
from ktrain.config import ModelConfig, TrainConfig
from ktrain.model import networks, sizes
from ktrain.model.forward import LanguageModelLoss
from ktrain.system.device import training_device
from ktrain.system.process_group import join_alone

SHIPPED = "as it is"
SECONDS = 8.0


@dataclass(frozen=True)
class Variant:
    """The choice that is changed; None and `default` are as shipped."""

    logits: int | None = None
    """Bytes of a chunk of logits."""
    attention: SDPBackend | None = None
    mode: str = "default"
    """Mode of `torch.compile`."""


EVERYWHERE = {
    SHIPPED: Variant(),
    "all logits at once": Variant(logits=2**62),
    "logits by 16 MiB": Variant(logits=2**24),
    "logits by 256 MiB": Variant(logits=2**28),
}
ON_A_GPU = {
    "logits by 8 GiB": Variant(logits=2**33),
    "flash attention": Variant(attention=SDPBackend.FLASH_ATTENTION),
    "cuDNN's attention": Variant(attention=SDPBackend.CUDNN_ATTENTION),
    "CUDA graphs": Variant(mode="reduce-overhead"),
}


def choices(setting: TrainConfig, network: ModelConfig, vocabulary: int, *, seconds: float) -> dict[str, Any]:
    """Returns tokens a second of each variant; `ratios` are the shipped loop over the others.

    Each row's note is the variant's memory besides the weights: moments, gradients and activations.
    """
    join_alone()
    torch.manual_seed(0)
    torch.set_num_threads(machine.cores())
    host = machine.describe()
    torch._dynamo.config.recompile_limit = 64
    ids = torch.randint(0, vocabulary, (8 * setting.batch, setting.context))
    ways = EVERYWHERE | (ON_A_GPU if training_device().type == "cuda" else {})
    held: dict[str, int] = {}
    loops = {name: _loop(name, way, setting, network, vocabulary, ids, held) for name, way in ways.items()}
    measured = interleaved.interleave(loops, seconds, host=host)
    rows = [interleaved.row(n, values, train.UNIT, f"{held[n] / 2**30:.2f} GiB") for n, values in measured.items()]
    ratios = {row.name: rows[0].median / row.median for row in rows[1:]}
    flops = networks.flops_per_token(network, vocabulary, setting.context)
    shares = {row.name: row.median * flops / machine.peak_of(host, setting.precision) for row in rows}
    described = {"model": network.size, "vocabulary": vocabulary, "batch": setting.batch, "context": setting.context}
    return interleaved.result(rows, ratios, shares, host, described)


def _loop(
    name: str,
    way: Variant,
    setting: TrainConfig,
    network: ModelConfig,
    vocabulary: int,
    ids: Tensor,
    held: dict[str, int],
) -> Loop:
    module = LanguageModelLoss(
        networks.build_network(network, vocabulary, setting.context, 0, 0).to(training_device()).train()
    )
    weights = train.even_weights(setting)

    def loss(batch: Tensor) -> Tensor:
        # Inside the compiled function, or the compiler would reuse the code of another variant.
        with sdpa_kernel(way.attention) if way.attention else nullcontext():
            summed: Tensor = module(batch, weights)
        return summed

    compiled = torch.compile(loss, mode=way.mode) if train.COMPILE else loss
    loop = train.timed(train.plain(module, compiled, setting), ids, setting)

    def measured(seconds: float) -> float:
        with _chunks(way.logits):
            speed, taken = machine.memory_of(lambda: loop(seconds))
        # Only the first round counts: it allocates the optimizer's moments, and CUDA graphs keep their memory after it.
        held.setdefault(name, taken)
        return speed

    return measured


@contextmanager
def _chunks(size: int | None) -> Iterator[None]:
    """Limits the loss to chunks of `size` bytes of logits."""
    before = sizes.LOGITS
    sizes.LOGITS = before if size is None else dict.fromkeys(before, size)
    try:
        yield
    finally:
        sizes.LOGITS = before


def main(words: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m ktrain.bench.ablations", description=__doc__.splitlines()[0])
    parser.add_argument("size", nargs="?", choices=sizes.SIZES, default="124m", help="of the network (124m)")
    parser.add_argument("batch", nargs="?", type=int, default=96, help="windows in a step (96)")
    arguments = parser.parse_args(words)
    if arguments.batch < 1:
        parser.error(f"argument batch: {arguments.batch}: must be at least 1")
    vocabulary = train.VOCABULARY.get(arguments.size, train.GPT2)
    network = ModelConfig.model_validate({"size": arguments.size})
    print(interleaved.text(choices(TrainConfig(batch=arguments.batch), network, vocabulary, seconds=SECONDS)))


if __name__ == "__main__":
    main(sys.argv[1:])
