"""A minimal GPT, as small training scripts write it: the reference for compiled loops.

Learned positions, packed projections, `scaled_dot_product_attention`, GELU by tanh, tied embedding; nothing else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktrain.model.sizes import NetworkSize


class ReferenceGpt(nn.Module):
    """Next-token loss of `ids` (rows, T) int64, the mean over targets."""

    def __init__(self, shape: NetworkSize, vocabulary: int, context: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, shape.width)
        self.places = nn.Embedding(context, shape.width)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, vocabulary, bias=False)
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        state = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            state = block(state)
        logits = self.head(self.norm(state))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


class _Block(nn.Module):
    def __init__(self, shape: NetworkSize) -> None:
        super().__init__()
        width, self.heads = shape.width, shape.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.packed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, state: Tensor) -> Tensor:
        parts = self.packed(self.before(state)).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        state = state + self.out(mixed.transpose(1, 2).flatten(2))
        changed: Tensor = self.down(F.gelu(self.up(self.between(state)), approximate="tanh"))
        return state + changed
