"""LoRA of a network that is trained already: the loss that trains its updates, and the network with them."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn

from ktrain.model.lora import AdapterSpec
from ktrain.model.module_lora import ModuleAdapters
from ktrain.model.plain_forward import PlainLanguageModelLoss


class AdaptedLanguageModelLoss(nn.Module):
    """As `PlainLanguageModelLoss`, of a frozen network with low-rank updates of query and value, which alone train.

    Nothing changes at first: one factor of each update is zero. Raises `WrongRequest` where the network's modules of
    query and value are not known.
    """

    def __init__(self, network: Any, rank: int, seed: int) -> None:
        super().__init__()
        network.requires_grad_(False)
        self.network = network
        self.adapters = ModuleAdapters(network, [AdapterSpec("train", seed, 0, rank)], scale=1.0, rate=0.0)
        self.loss = PlainLanguageModelLoss(network)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        eager: Tensor = torch.compiler.disable(self._loss)(ids, weights)
        return eager

    def _loss(self, ids: Tensor, weights: Tensor) -> Tensor:
        with self.adapters.attached(self.network):
            loss: Tensor = self.loss._loss(ids, weights)
        return loss

    def train(self, mode: bool = True) -> Self:
        """The frozen network has neither dropout nor noise in training."""
        super().train(mode)
        self.network.eval()
        return self

    def weights(self) -> dict[str, Tensor]:
        """Returns the weights of the network with the updates as they are now; the network itself keeps its own."""
        plain = copy.deepcopy(self.network)
        self.adapters.add_projections(plain, 0)
        merged: dict[str, Tensor] = plain.state_dict()
        return merged

    def merge(self) -> None:
        """Adds the updates to the weights of the network itself. To be called once, after training."""
        self.adapters.add_projections(self.network, 0)
        self.network.requires_grad_(True)
