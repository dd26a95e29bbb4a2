"""What the tests of the training half share: one thread, small networks, and random batches."""

import os
from collections.abc import Callable, Iterator

import pytest

# Equal bit by bit is asked for, and plain loops are compared with: on a machine with a GPU too, the tests take the CPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from torch import Tensor
from transformers import GPTNeoXForCausalLM

from ktrain.config import ModelConfig
from ktrain.model import networks

# Fixtures of a module are made before those of a function; threads that wait for each other on a busy machine take
# fifty times as long as one.
torch.set_num_threads(1)
VOCABULARY, CONTEXT = 97, 32
Make = Callable[..., GPTNeoXForCausalLM]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As `Runtime.threads` has it by default; sums do not depend on how many cores the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small() -> Make:
    """A network of the `mini` kind in a much smaller shape: `small(dropout=0.1, seed=1)`.

    `family` is one of the settings. `spread` replaces every weight, biases and norms too, by a normal draw: then
    attention is far from uniform, and a term that is left out changes the result.
    """

    def make(
        dropout: float = 0.0,
        seed: int = 0,
        spread: float | None = None,
        layers: int = 2,
        width: int = 32,
        vocabulary: int = VOCABULARY,
        context: int = CONTEXT,
        eos: int = 0,
        family: str = "gpt2",
    ) -> GPTNeoXForCausalLM:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(networks.SIZES, "mini", networks.NetworkSize(layers, 2, width))
            network = networks.build_network(
                ModelConfig.model_validate({"size": "mini", "family": family, "dropout": dropout}),
                vocabulary, context, eos, seed,
            )  # fmt: skip
        if spread is not None:
            drawn = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.normal_(0.0, spread, generator=drawn)
        return network

    return make


@pytest.fixture(scope="session")
def random_batch() -> Callable[..., tuple[Tensor, Tensor]]:
    """Ids and weights of a step, as a pure function of the step; the weights sum to `total`."""

    def batch(step: int, rows: int = 4, width: int = CONTEXT, total: float = 1.0) -> tuple[Tensor, Tensor]:
        drawn = torch.Generator().manual_seed(1000 + step)
        ids = torch.randint(0, VOCABULARY, (rows, width), generator=drawn)
        return ids, torch.full((rows, width), total / (rows * (width - 1)))

    return batch
