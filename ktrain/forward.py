"""The training forward: the function of the `transformers` network, written for the compiler.

Same modules, same weights, same result as `model(input_ids)` (tests hold it to that); faster because on a CPU the
attention is plain matrix products, which a compiler fuses, because angles and masks are read from tables, because
logits are never shifted and, where they are large, never there at once, and because the last layer is computed only
where its states are wanted.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktrain.output_loss import OutputLoss

GELU = 2 * math.sqrt(2 / math.pi)


class Adapter(Protocol):
    """What a fleet adds to the frozen network: rows are all rows of all members, one member after the other."""

    def embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        """States (rows, T, width) of the tokens `ids` (rows, T)."""

    def query(self, layer: int, state: Tensor) -> Tensor | None:
        """What is added to the query projection of `state` (rows, T, width)."""

    def value(self, layer: int, state: Tensor) -> Tensor | None:
        """What is added to the value projection."""

    def drop(self, state: Tensor, site: int) -> Tensor:
        """Dropout; `site` numbers the places in the network."""


class Loss(nn.Module):
    """Next-token loss of a network: forward(ids, weights) is the weighted sum of cross-entropies.

    `ids` (rows, T) int64; `weights` (rows, T) float32, the weight of each token as a target, column 0 unused.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.tables = network, Tables(network)
        self.output = OutputLoss(network.get_output_embeddings())

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        states = hidden(self.network, ids, tables=self.tables)[:, :-1]
        loss: Tensor = self.output(states.flatten(0, 1), ids[:, 1:].flatten(), weights[:, 1:].flatten())
        return loss


class Tables(nn.Module):
    """What each step needs and no weight changes: angles of the rotary embedding, and what a token may not see.

    A compiler would compute them anew for every element of every head, which costs a sixth of a step on a CPU.
    """

    cosine: Tensor
    sine: Tensor
    unseen: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        length = network.config.max_position_embeddings
        cosine, sine = _rotary(network, length, network.device)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.register_buffer("unseen", _unseen(length, network.device), persistent=False)


def hidden(
    network: Any,
    ids: Tensor,
    adapter: Adapter | None = None,
    places: Tensor | None = None,
    *,
    tables: Tables | None = None,
) -> Tensor:
    """States after the final norm, (rows, T, width), or (rows, P, width) at `places` (rows, P) int64.

    With an `adapter` the network's own dropout is off, and the adapter's is used. Without `tables`, or for rows that
    are longer than those, the angles are computed.
    """
    body = _NeoX(network) if network.config.model_type == "gpt_neox" else _Llama(network)
    heads = network.config.num_attention_heads
    # A network that sees what comes after must not see padding there.
    read = ids != network.config.pad_token_id if bidirectional(network) else None
    length = ids.shape[1]
    if tables is not None and length <= len(tables.cosine):
        turn, unseen = (tables.cosine[:length], tables.sine[:length]), tables.unseen[:length, :length]
    else:
        turn, unseen = _rotary(network, length, ids.device), _unseen(length, ids.device)

    def dropped(state: Tensor, own: Callable[[Tensor], Tensor], site: int) -> Tensor:
        """An adapter drops where the network does."""
        return own(state) if adapter is None or own is _kept else adapter.drop(state, site)

    state = body.embedding(ids) if adapter is None else adapter.embed(body.embedding, ids)
    state = dropped(state, body.drop_embedding, 0)
    final = len(body.layers) - 1
    for index, layer in enumerate(body.layers):
        wanted = places if index == final else None
        normed = layer.input_layernorm(state)
        asking = normed if wanted is None else _take(normed, wanted)
        query, key, value = body.project(layer, asking, normed)
        if adapter is not None:
            query = _plus(query, adapter.query(index, asking))
            value = _plus(value, adapter.value(index, normed))
        query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
        query = _turned(query, *(turn if wanted is None else (x[wanted][:, None] for x in turn)))
        mixed = _attention(query, _turned(key, *turn), value, wanted, layer, adapter, 3 * index + 1, read, unseen)
        attended = body.output(layer, mixed.transpose(1, 2).flatten(2))
        state = state if wanted is None else _take(state, wanted)
        state = state + dropped(attended, body.drop_attention(layer), 3 * index + 2)
        changed = body.mlp(layer, layer.post_attention_layernorm(state))
        state = state + dropped(changed, body.drop_mlp(layer), 3 * index + 3)
    normed_last: Tensor = body.norm(state)
    return normed_last


def bidirectional(network: Any) -> bool:
    """Whether a token sees those after it."""
    return not getattr(network.config, "is_causal", True)


class _NeoX:
    """GPT-2 with rotary embedding; NeoX packs its projection as (heads, [query, key, value], width / heads)."""

    def __init__(self, network: Any) -> None:
        body = network.gpt_neox
        self.embedding, self.layers, self.norm = body.embed_in, body.layers, body.final_layer_norm
        self.drop_embedding = body.emb_dropout
        self._heads = network.config.num_attention_heads

    def project(self, layer: Any, asking: Tensor, state: Tensor) -> tuple[Tensor, ...]:
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


class _Llama:
    """Llama has no dropout of its own but on attention weights."""

    def __init__(self, network: Any) -> None:
        body = network.model
        self.embedding, self.layers, self.norm = body.embed_tokens, body.layers, body.norm
        self.drop_embedding = _kept

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
        return _kept

    drop_mlp = drop_attention


def _kept(state: Tensor) -> Tensor:
    return state


def _plus(projected: Tensor, update: Tensor | None) -> Tensor:
    return projected if update is None else projected + update


def _take(state: Tensor, places: Tensor) -> Tensor:
    return state.gather(1, places[:, :, None].expand(-1, -1, state.shape[-1]))


def _rotary(network: Any, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, (length, turned part of a head)."""
    rope = network.config.rope_parameters
    width = network.config.hidden_size // network.config.num_attention_heads
    turned = int(width * rope.get("partial_rotary_factor", 1.0))
    frequency = rope["rope_theta"] ** -(torch.arange(0, turned, 2, device=device).float() / turned)
    angle = torch.arange(length, device=device).float()[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def _unseen(length: int, device: torch.device) -> Tensor:
    """What is added to the scores of tokens (T, T) that stand after the one that asks."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)


def _turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    turned, kept = x[..., : cosine.shape[-1]], x[..., cosine.shape[-1] :]
    half = turned.shape[-1] // 2
    rotated = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
    return torch.cat([turned * cosine + rotated * sine, kept], dim=-1).to(x.dtype)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    places: Tensor | None,
    layer: Any,
    adapter: Adapter | None,
    site: int,
    read: Tensor | None,
    unseen: Tensor,
) -> Tensor:
    """Attention of queries (rows, heads, P or T, width), which stand at `places` or at every token: causal, by what
    `unseen` (T, T) adds to scores, or to all tokens that `read` (rows, T) bool says.
    """
    module = getattr(layer, "attention", None) or layer.self_attn
    rate = module.attention_dropout if module.training and adapter is None else 0.0
    dense = query.is_cuda and getattr(adapter, "rate", 0.0) == 0.0
    if dense and places is None and read is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=rate)
    if read is None:
        barred = unseen if places is None else unseen[places][:, None]
    else:
        barred = torch.zeros(read.shape, device=read.device).masked_fill(~read, float("-inf"))[:, None, None, :]
    if dense:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=barred.to(query.dtype), dropout_p=rate)
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
    weights = torch.softmax(scores.float() + barred, dim=-1).to(value.dtype)
    return (F.dropout(weights, rate) if adapter is None else adapter.drop(weights, site)) @ value
