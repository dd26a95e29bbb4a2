"""The loss that trains a whole causal network, by the forward that it has."""

from typing import Any

from torch import nn

from ktrain.model.forward import LanguageModelLoss
from ktrain.model.network_parts import has_fast_forward
from ktrain.model.plain_forward import PlainLanguageModelLoss


def next_token_loss(network: Any) -> nn.Module:
    """Returns the module whose forward(ids, weights) is the weighted sum of the cross-entropies of next tokens."""
    return LanguageModelLoss(network) if has_fast_forward(network) else PlainLanguageModelLoss(network)
