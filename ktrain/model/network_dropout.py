"""Dropout of a network that trains on a CPU, by hash: the compiler fuses it, where PyTorch's generator would take half
of a step (docs/speed.md)."""

from typing import Any

import torch
from torch import Tensor, nn

from ktrain.model.hashed_dropout import hashed_dropout

WORD = 2**31
"""Seeds are below this."""


class NetworkDropout:
    """The dropout of one forward pass, in place of the network's own; `forward.Adapter` that updates nothing."""

    def __init__(self, rate: float) -> None:
        """Draws the masks of this pass from PyTorch's generator, whose state a checkpoint keeps."""
        self.rate = rate
        self._seeds = torch.randint(WORD, (1, 2), dtype=torch.int32)

    def embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        """See `forward.Adapter`."""
        states: Tensor = table(ids)
        return states

    def query(self, layer: int, state: Tensor) -> None:
        """See `forward.Adapter`."""

    value = query

    def drop(self, state: Tensor, site: int) -> Tensor:
        """See `forward.Adapter`."""
        return hashed_dropout(state, self._seeds, site, self.rate)


def training_dropout(network: Any, ids: Tensor) -> NetworkDropout | None:
    """Returns the dropout of a forward pass over `ids`; None where there is none, or where a GPU's own is faster."""
    rate: float = network.config.attention_dropout
    return NetworkDropout(rate) if network.training and rate and ids.device.type == "cpu" else None
