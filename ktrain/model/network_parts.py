"""The parts of a `transformers` network by the role that they have in a forward pass, alike for all families."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

GELU = 2 * math.sqrt(2 / math.pi)


def has_fast_forward(network: Any) -> bool:
    """Whether `forward.py` computes what the network does: a GPT-NeoX or Llama as `networks.configuration` makes it.

    What it does not compute: parallel residuals, other activations, shared keys and values, heads of a width of their
    own, and rotary embedding that is rescaled.
    """
    config = network.config
    if config.model_type not in ("gpt_neox", "llama"):
        return False
    if config.rope_parameters.get("rope_type", "default") != "default":
        return False
    if config.model_type == "gpt_neox":
        return not config.use_parallel_residual and config.hidden_act == "gelu_new" and bool(config.attention_bias)
    if config.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0:
        # `transformers` turns all of a Llama's heads whatever this says, and `forward.py` would not.
        return False
    heads, width = config.num_attention_heads, config.hidden_size
    return bool(config.num_key_value_heads == heads and (config.head_dim or width // heads) * heads == width)


class NeoXParts:
    """GPT-2 with rotary embedding; NeoX packs its projection as (heads, [query, key, value], width / heads)."""

    def __init__(self, network: Any) -> None:
        body = network.gpt_neox
        self.embedding, self.layers, self.norm = body.embed_in, body.layers, body.final_layer_norm
        self.drop_embedding = body.emb_dropout
        self._heads = network.config.num_attention_heads

    def project(self, layer: Any, asking: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        """Queries of the states that ask, keys and values of all; one product where these are the same."""
        packed = layer.attention.query_key_value
        if asking is state:
            parts = packed(state).unflatten(-1, (self._heads, 3, -1)).unbind(-2)
            return tuple(part.flatten(-2) for part in parts)
        weights = packed.weight.unflatten(0, (self._heads, 3, -1)).unbind(1)
        biases = packed.bias.unflatten(0, (self._heads, 3, -1)).unbind(1)
        return tuple(
            F.linear(x, w.flatten(0, 1), b.flatten())
            for x, w, b in zip((asking, state, state), weights, biases, strict=True)
        )

    def output(self, layer: Any, mixed: Tensor) -> Tensor:
        projected: Tensor = layer.attention.dense(mixed)
        return projected

    def mlp(self, layer: Any, state: Tensor) -> Tensor:
        """GELU by tanh, 0.5 x (1 + tanh u), written as x sigmoid(2 u): an exponential is the cheaper function."""
        up = layer.mlp.dense_h_to_4h(state)
        x = up.float()
        bent = x * torch.sigmoid(GELU * (x + 0.044715 * x**3))
        changed: Tensor = layer.mlp.dense_4h_to_h(bent.to(up.dtype))
        return changed

    def drop_attention(self, layer: Any) -> Any:
        return layer.post_attention_dropout

    def drop_mlp(self, layer: Any) -> Any:
        return layer.post_mlp_dropout


class LlamaParts:
    """Llama has no dropout of its own but on attention weights."""

    def __init__(self, network: Any) -> None:
        body = network.model
        self.embedding, self.layers, self.norm = body.embed_tokens, body.layers, body.norm
        self.drop_embedding = identity

    def project(self, layer: Any, asking: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        attention = layer.self_attn
        return attention.q_proj(asking), attention.k_proj(state), attention.v_proj(state)

    def output(self, layer: Any, mixed: Tensor) -> Tensor:
        projected: Tensor = layer.self_attn.o_proj(mixed)
        return projected

    def mlp(self, layer: Any, state: Tensor) -> Tensor:
        changed: Tensor = layer.mlp(state)
        return changed

    def drop_attention(self, layer: Any) -> Any:
        return identity

    drop_mlp = drop_attention


def identity(state: Tensor) -> Tensor:
    return state


def train_padding(network: Any) -> None:
    """Lets the embedding of EOS be trained, which also pads. Llama and others take the padding token of their
    configuration, which a published network has, for one whose embedding is never trained."""
    network.get_input_embeddings().padding_idx = None
