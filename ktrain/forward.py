"""The training forward: the function of the `transformers` network, written for the compiler.

Same modules, same weights, same result as `model(input_ids)` (tests hold it to that); faster because on a CPU the
attention is plain matrix products, which a compiler fuses, and because the loss never makes a shifted copy.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPTNeoXForCausalLM


class Loss(nn.Module):
    """Next-token loss of a network: forward(ids, weights) is the weighted sum of cross-entropies.

    `ids` (rows, T) int64; `weights` (rows, T) float32, the weight of each token as a target, column 0 unused.
    """

    def __init__(self, network: GPTNeoXForCausalLM) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        logits = self.network.get_output_embeddings()(hidden(self.network, ids)[:, :-1])
        losses = F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        return (losses * weights[:, 1:].flatten()).sum()


def hidden(network: Any, ids: Tensor) -> Tensor:
    """States after the final norm, (rows, T, width)."""
    body, config = network.gpt_neox, network.config
    heads = config.num_attention_heads
    cosine, sine = _rotary(ids.shape[1], config.hidden_size // heads, config.rope_parameters, ids.device)
    state = body.emb_dropout(body.embed_in(ids))
    for layer in body.layers:
        attended = _attention(layer.attention, layer.input_layernorm(state), heads, cosine, sine)
        state = state + layer.post_attention_dropout(attended)
        state = state + layer.post_mlp_dropout(layer.mlp(layer.post_attention_layernorm(state)))
    final: Tensor = body.final_layer_norm(state)
    return final


def _rotary(length: int, width: int, rope: dict[str, float], device: torch.device) -> tuple[Tensor, Tensor]:
    turned = int(width * rope["partial_rotary_factor"])
    frequency = rope["rope_theta"] ** -(torch.arange(0, turned, 2, device=device).float() / turned)
    angle = torch.arange(length, device=device).float()[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def _turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    turned, kept = x[..., : cosine.shape[-1]], x[..., cosine.shape[-1] :]
    half = turned.shape[-1] // 2
    rotated = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
    return torch.cat([turned * cosine + rotated * sine, kept], dim=-1).to(x.dtype)


def _attention(attention: Any, state: Tensor, heads: int, cosine: Tensor, sine: Tensor) -> Tensor:
    rows, length, width = state.shape
    packed = attention.query_key_value(state).view(rows, length, heads, -1).transpose(1, 2)
    query, key, value = packed.chunk(3, dim=-1)
    query, key = _turn(query, cosine, sine), _turn(key, cosine, sine)
    dropout = attention.attention_dropout if attention.training else 0.0
    if state.is_cuda:
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
    else:
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        future = torch.ones(length, length, dtype=torch.bool, device=state.device).triu(1)
        weights = torch.softmax(scores.float().masked_fill(future, float("-inf")), dim=-1).to(value.dtype)
        mixed = F.dropout(weights, dropout) @ value
    output: Tensor = attention.dense(mixed.transpose(1, 2).reshape(rows, length, width))
    return output
