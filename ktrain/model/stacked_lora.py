"""Stacked adapters: K of them, each with its own head and data stream, trained at once over one frozen network.

Each ends where it would end alone: the losses are summed, so that no gradient reaches another adapter; clipping,
dropout, data order and initial values belong to each adapter.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktrain.model import plain_forward
from ktrain.model.forward import PositionTables, hidden_states
from ktrain.model.heads import LanguageHead
from ktrain.model.lora import Adapters
from ktrain.model.module_lora import ModuleAdapters


class StackedAdapters(nn.Module):
    """forward(ids, places, targets, weights, seeds) is the weighted loss of each adapter, (K,).

    `ids` (K, B, T) int64; `places` (K, B, P) int64, where states are read; `targets` (K, B, P) int64, the tokens or
    classes to predict there; `weights` (K, B, P) float32; `seeds` (K, 2) int32 from `dropout.seeds`.
    """

    def __init__(self, network: Any, adapters: Adapters, head: nn.Module) -> None:
        super().__init__()
        network.requires_grad_(False)
        self.network, self.adapters, self.head = network, adapters, head
        self.tables = None if isinstance(adapters, ModuleAdapters) else PositionTables(network)

    def forward(self, ids: Tensor, places: Tensor, targets: Tensor, weights: Tensor, seeds: Tensor) -> Tensor:
        self.adapters.at(seeds)
        logits = self.logits(ids, places)
        losses = F.cross_entropy(logits.flatten(0, 2).float(), targets.flatten(), reduction="none")
        weighted: Tensor = (losses * weights.flatten()).unflatten(0, (len(ids), -1)).sum(1)
        return weighted

    def logits(self, ids: Tensor, places: Tensor) -> Tensor:
        """Logits of each adapter's head at its places, (K, B, P, classes or vocabulary)."""
        network, adapters, rows, at = self.network, self.adapters, ids.flatten(0, 1), places.flatten(0, 1)
        if not isinstance(adapters, ModuleAdapters):
            states = hidden_states(network, rows, adapters, at, tables=self.tables)
        elif isinstance(self.head, LanguageHead):
            wanted: Tensor = plain_forward.logits_at(network, rows, adapters, at).unflatten(0, (len(ids), -1))
            return wanted
        else:
            states = plain_forward.states_at(network, rows, adapters, at)
        logits: Tensor = self.head(states.unflatten(0, (len(ids), -1)))
        return logits

    def train(self, mode: bool = True) -> Self:
        """A frozen network that is not written for adapters has neither dropout nor noise in training."""
        super().train(mode)
        if isinstance(self.adapters, ModuleAdapters):
            self.network.eval()
        return self

    @torch.no_grad()
    def clip(self, limit: float) -> None:
        """Scales each adapter's gradient down to norm `limit`, as `clip_grad_norm_` does for a model of its own."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
        factor = (limit / (squares.sqrt() + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g *= factor.view(-1, *[1] * (g.dim() - 1))
