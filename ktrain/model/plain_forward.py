"""The forward of `transformers` itself, for every causal network that `forward.py` is not written for.

It runs uncompiled where adapters are attached, because they hook into modules, and in architectures that are not in
`COMPILED`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktrain.model.forward import gather_positions
from ktrain.model.module_lora import ModuleAdapters

COMPILED = frozenset({"gemma3_text", "gpt_neox", "mamba2", "mixtral", "qwen3"})
"""Architectures whose compiled step was seen to be one graph and to equal the plain one."""


class PlainLanguageModelLoss(nn.Module):
    """As `forward.LanguageModelLoss`: forward(ids, weights) is the weighted sum of the cross-entropies of next tokens.

    Where the network routes tokens to experts, what its configuration charges for uneven routing
    (`router_aux_loss_coef`) is added, over all tokens of the batch, padding included.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.balance = network, router_coefficient(network)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        if self.network.config.model_type in COMPILED:
            return self._loss(ids, weights)
        eager: Tensor = torch.compiler.disable(self._loss)(ids, weights)
        return eager

    def _loss(self, ids: Tensor, weights: Tensor) -> Tensor:
        routing = {"output_router_logits": True} if self.balance else {}
        output = self.network(input_ids=ids, use_cache=False, **routing)
        logits = output.logits[:, :-1].flatten(0, 1).float()
        losses = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        loss: Tensor = (losses * weights[:, 1:].flatten()).sum()
        return loss + self.balance * output.aux_loss if self.balance else loss


def router_coefficient(network: Any) -> float:
    """Returns the weight of the loss of uneven routing; 0 where there are no experts or the configuration says so."""
    settings = network.config.to_dict()
    return float(settings.get("router_aux_loss_coef") or 0.0) if "output_router_logits" in settings else 0.0


@torch.compiler.disable  # type: ignore[untyped-decorator]
def states_at(network: Any, ids: Tensor, adapters: ModuleAdapters, places: Tensor) -> Tensor:
    """Last states, after the final norm, of the network with adapters, (rows, P, width) at `places` (rows, P) int64."""
    with adapters.attached(network):
        embedded = adapters.embed(network.get_input_embeddings(), ids)
        states = network.base_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return gather_positions(states, places)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def logits_at(network: Any, ids: Tensor, adapters: ModuleAdapters, places: Tensor) -> Tensor:
    """Logits of the network with adapters, (rows, P, vocabulary) at `places` (rows, P) int64.

    The network computes them itself, because some scale or bend what the output embedding gives; it gets the states at
    `places` alone.
    """

    def chosen(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (gather_positions(args[0], places), *args[1:])

    handle = network.get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        with adapters.attached(network):
            embedded = adapters.embed(network.get_input_embeddings(), ids)
            logits: Tensor = network(inputs_embeds=embedded, use_cache=False).logits
    finally:
        handle.remove()
    assert logits.shape[:2] == places.shape
    return logits
