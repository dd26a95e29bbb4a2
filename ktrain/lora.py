"""LoRA as in the paper's section 3: rank r on query and value, rank r' on the input embedding (Hu et al. 2021)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPTNeoXForCausalLM

from ktrain.config import Readout
from ktrain.randomness import torch_seed


class LowRankEmbedding(nn.Module):
    """Embedding plus A[ids] B; A (vocabulary, r') begins at zero, B (r', width) random, so nothing changes at first."""

    def __init__(self, base: nn.Embedding, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.a = nn.Parameter(torch.zeros(base.num_embeddings, rank))
        self.b = nn.Parameter(torch.randn(rank, base.embedding_dim) / math.sqrt(rank))

    def forward(self, ids: Tensor) -> Tensor:
        plain: Tensor = self.base(ids)
        return plain + F.embedding(ids, self.a) @ self.b * self.scale

    def merged(self) -> Tensor:
        """The weight of a plain embedding of the same function."""
        return self.base.weight + self.a @ self.b * self.scale


class LowRankQueryValue(nn.Module):
    """A packed query-key-value projection plus low-rank updates of its query and value parts.

    `a` (2, r, width) random, `b` (2, width, r) zero. NeoX packs its output as (heads,
    [query, key, value], width / heads).
    """

    def __init__(self, base: nn.Linear, heads: int, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.heads, self.scale = base, heads, scale
        width = base.in_features
        self.a = nn.Parameter(torch.randn(2, rank, width) / math.sqrt(width))
        self.b = nn.Parameter(torch.zeros(2, width, rank))

    def forward(self, state: Tensor) -> Tensor:
        query, value = (F.linear(F.linear(state, self.a[i]), self.b[i]) * self.scale for i in (0, 1))
        plain: Tensor = self.base(state)
        return plain + self._pack(query, torch.zeros_like(query), value)

    def merged(self) -> Tensor:
        """The weight of a plain projection of the same function, (3 * width, width)."""
        query, value = (self.b[i] @ self.a[i] * self.scale for i in (0, 1))
        packed = self._pack(query.T, torch.zeros_like(query), value.T)
        return self.base.weight + packed.T

    def _pack(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(..., width) three times to (..., 3 * width) in NeoX's order."""
        parts = [x.reshape(*x.shape[:-1], self.heads, -1) for x in (query, key, value)]
        return torch.stack(parts, dim=-2).flatten(-3)


def attach(network: GPTNeoXForCausalLM, readout: Readout, seed: int) -> None:
    """Freezes the network and puts the adapters of `readout` into it; a rank of 0 leaves its part frozen."""
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "adapters"))
        body = network.gpt_neox
        if readout.rank_embedding:
            body.embed_in = LowRankEmbedding(body.embed_in, readout.rank_embedding, readout.lora_scale)
        if readout.rank_qv:
            for layer in body.layers:
                packed = layer.attention.query_key_value
                heads = network.config.num_attention_heads
                layer.attention.query_key_value = LowRankQueryValue(packed, heads, readout.rank_qv, readout.lora_scale)


@torch.no_grad()
def merge(network: GPTNeoXForCausalLM) -> GPTNeoXForCausalLM:
    """A plain network of the same function. Its embeddings are untied: only the input one has been updated."""
    config = type(network.config).from_dict({**network.config.to_dict(), "tie_word_embeddings": False})
    plain = GPTNeoXForCausalLM(config)
    weights = {
        name.replace(".base.", "."): tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith((".a", ".b"))
    }
    for name, module in network.named_modules():
        if isinstance(module, LowRankEmbedding | LowRankQueryValue):
            weights[f"{name}.weight"] = module.merged()
    plain.load_state_dict(weights)
    return plain


def adapters(network: nn.Module) -> dict[str, Tensor]:
    """The trained tensors by name, contiguous, for saving beside the merged model."""
    return {n: p.detach().contiguous() for n, p in network.named_parameters() if p.requires_grad}
