"""The pretraining loop as it is, against the same loop with one choice made otherwise.

`python -m ktrain.bench.choices [size] [batch]`; size is that of a network, 124m where none is given.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ktrain import model, output_loss
from ktrain.bench import machine, train, turns
from ktrain.bench.turns import Loop
from ktrain.config import Model, Train
from ktrain.device import device
from ktrain.engine import join_alone
from ktrain.forward import Loss

SHIPPED = "as it is"
SECONDS = 8.0


@contextmanager
def _chunks(size: float) -> Iterator[None]:
    """The cross-entropy by chunks of so many bytes of logits."""
    before = output_loss.LOGITS
    output_loss.LOGITS = {kind: int(size) for kind in before}
    try:
        yield
    finally:
        output_loss.LOGITS = before


Way = tuple[Callable[[], AbstractContextManager[Any]], str]
"""What holds while a loop runs, and the compiler's mode."""
EVERYWHERE: dict[str, Way] = {
    SHIPPED: (nullcontext, "default"),
    "all logits at once": (lambda: _chunks(2**62), "default"),
    "logits by 16 MiB": (lambda: _chunks(2**24), "default"),
    "logits by 256 MiB": (lambda: _chunks(2**28), "default"),
}
ON_A_GPU: dict[str, Way] = {
    "logits by 8 GiB": (lambda: _chunks(2**33), "default"),
    "flash attention": (lambda: sdpa_kernel(SDPBackend.FLASH_ATTENTION), "default"),
    "cuDNN's attention": (lambda: sdpa_kernel(SDPBackend.CUDNN_ATTENTION), "default"),
    "CUDA graphs": (nullcontext, "reduce-overhead"),
}


def choices(setting: Train, network: Model, vocabulary: int, *, seconds: float) -> dict[str, Any]:
    """Tokens a second of each way; `ratios` are the loop as it is over the others, and each row's note says how much
    memory the way took beside the weights."""
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
    name: str, way: Way, setting: Train, network: Model, vocabulary: int, ids: torch.Tensor, held: dict[str, int]
) -> Loop:
    holds, mode = way
    module = Loss(model.build(network, vocabulary, setting.context, 0, 0).to(device()).train())
    weights = train.even_weights(setting)
    loss = torch.compile(module, mode=mode) if train.COMPILE else module
    loop = train.timed(train.plain(module, lambda batch: loss(batch, weights), setting), ids, setting)

    def measured(seconds: float) -> float:
        with holds():
            speed, held[name] = machine.memory_of(lambda: loop(seconds))
        return speed

    return measured


if __name__ == "__main__":
    size, batch = (*sys.argv[1:], *("124m", "96")[len(sys.argv) - 1 :])
    asked = Train(batch=int(batch))
    network = Model.model_validate({"size": size})
    print(turns.text(choices(asked, network, train.VOCABULARY.get(size, train.GPT2), seconds=SECONDS)))
