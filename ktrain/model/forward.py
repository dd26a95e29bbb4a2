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

from ktrain.model.chunked_cross_entropy import ChunkedCrossEntropy
from ktrain.model.network_dropout import training_dropout
from ktrain.model.network_parts import LlamaParts, NeoXParts, has_fast_forward, identity


class Adapter(Protocol):
    """Updates of the frozen network by K adapters: K * B rows, those of one adapter after those of another."""

    def embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        """States (rows, T, width) of the tokens `ids` (rows, T)."""

    def query(self, layer: int, state: Tensor) -> Tensor | None:
        """What is added to the query projection of `state` (rows, T, width)."""

    def value(self, layer: int, state: Tensor) -> Tensor | None:
        """What is added to the value projection."""

    def drop(self, state: Tensor, site: int) -> Tensor:
        """Dropout at a site, see `LayerSites`."""


class LanguageModelLoss(nn.Module):
    """Next-token loss of a network: forward(ids, weights) is the weighted sum of cross-entropies.

    `ids` (rows, T) int64; `weights` (rows, T) float32, the weight of each token as a target, column 0 unused.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.tables = network, PositionTables(network)
        self.output = ChunkedCrossEntropy(network.get_output_embeddings())

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        dropout = training_dropout(self.network, ids)
        states = hidden_states(self.network, ids, dropout, tables=self.tables)[:, :-1]
        loss: Tensor = self.output(states.flatten(0, 1), ids[:, 1:].flatten(), weights[:, 1:].flatten())
        return loss


LONGEST_TABLE = 4096
"""Positions in tables; the mask has the square of it, and a network may be made for more than it is trained on."""


class PositionTables(nn.Module):
    """Constants of every step: the angles of the rotary embedding and the causal mask.

    A compiler would compute them again for every element of every head, which costs a sixth of a step on a CPU.
    """

    cosine: Tensor
    sine: Tensor
    causal: Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        length = min(network.config.max_position_embeddings, LONGEST_TABLE)
        cosine, sine = _rotary(network, length, network.device)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.register_buffer("causal", causal_mask(length, network.device), persistent=False)


def hidden_states(
    network: Any,
    ids: Tensor,
    adapter: Adapter | None = None,
    places: Tensor | None = None,
    *,
    tables: PositionTables | None = None,
) -> Tensor:
    """States after the final norm, (rows, T, width), or (rows, P, width) at `places` (rows, P) int64.

    With an `adapter`, such as `NetworkDropout`, which only drops, the network's own dropout is off. Without `tables`,
    or for rows that are longer than those, angles and mask are computed. `network` must have a fast forward
    (`network_parts.has_fast_forward`); the others have `plain_forward`.
    """
    assert has_fast_forward(network), network.config.model_type
    forward = _Forward(network, ids, adapter, tables)
    state = forward.embed(ids)
    for index in range(forward.layers - 1):
        state = forward.layer_step(index, state)
    # The last layer computes states only where they are read.
    state = forward.layer_step(forward.layers - 1, state, places)
    return forward.norm(state)


EMBEDDING_SITE = 0
"""The dropout site after the embedding."""


class LayerSites:
    """The dropout sites of a layer. Their numbers seed the masks of adapters, so they must not change."""

    def __init__(self, layer: int) -> None:
        self.attention_weights, self.attention, self.mlp = 3 * layer + 1, 3 * layer + 2, 3 * layer + 3


class _Forward:
    """One forward pass: the parts of the network, the adapter, and the tables of its positions."""

    def __init__(self, network: Any, ids: Tensor, adapter: Adapter | None, tables: PositionTables | None) -> None:
        self._body = NeoXParts(network) if network.config.model_type == "gpt_neox" else LlamaParts(network)
        self._adapter, self._heads = adapter, network.config.num_attention_heads
        self.layers = len(self._body.layers)
        # A network that sees later tokens must not see padding among them.
        self._visible = ids != network.config.pad_token_id if bidirectional(network) else None
        length = ids.shape[1]
        if tables is not None and length <= len(tables.cosine):
            self._angles = tables.cosine[:length], tables.sine[:length]
            self._causal = tables.causal[:length, :length]
        else:
            self._angles = _rotary(network, length, ids.device)
            self._causal = causal_mask(length, ids.device)

    def embed(self, ids: Tensor) -> Tensor:
        """States (rows, T, width) before the first layer."""
        body = self._body
        state = body.embedding(ids) if self._adapter is None else self._adapter.embed(body.embedding, ids)
        return self._drop(state, body.drop_embedding, EMBEDDING_SITE)

    def layer_step(self, index: int, state: Tensor, places: Tensor | None = None) -> Tensor:
        """States after a layer, (rows, T, width), or only those at `places`: these ask, and all tokens answer."""
        body, layer, sites = self._body, self._body.layers[index], LayerSites(index)
        normed = layer.input_layernorm(state)
        attended = self._attend(layer, index, normed, places, sites.attention_weights)
        state = state if places is None else gather_positions(state, places)
        state = state + self._drop(attended, body.drop_attention(layer), sites.attention)
        changed = body.mlp(layer, layer.post_attention_layernorm(state))
        return state + self._drop(changed, body.drop_mlp(layer), sites.mlp)

    def norm(self, state: Tensor) -> Tensor:
        """The final norm."""
        normed: Tensor = self._body.norm(state)
        return normed

    def _attend(self, layer: Any, index: int, normed: Tensor, places: Tensor | None, site: int) -> Tensor:
        """Output of a layer's attention, (rows, P or T, width), for the normed states (rows, T, width)."""
        asking = normed if places is None else gather_positions(normed, places)
        query, key, value = self._body.project(layer, asking, normed)
        if self._adapter is not None:
            query = add_optional(query, self._adapter.query(index, asking))
            value = add_optional(value, self._adapter.value(index, normed))
        # (rows, heads, P or T, width of a head)
        query, key, value = (x.unflatten(-1, (self._heads, -1)).transpose(1, 2) for x in (query, key, value))
        angles = self._angles if places is None else tuple(table[places][:, None] for table in self._angles)
        query, key = apply_rotary(query, *angles), apply_rotary(key, *self._angles)
        mixed = self._mix(layer, query, key, value, places, site)
        return self._body.output(layer, mixed.transpose(1, 2).flatten(2))

    def _mix(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, places: Tensor | None, site: int) -> Tensor:
        """The values weighted by attention, (rows, heads, P or T, width of a head)."""
        module = getattr(layer, "attention", None) or layer.self_attn
        rate = module.attention_dropout if module.training and self._adapter is None else 0.0
        # PyTorch's kernels have no dropout by hash, and plain products are what a compiler fuses on a CPU.
        fused = query.is_cuda and getattr(self._adapter, "rate", 0.0) == 0.0
        if fused and places is None and self._visible is None:
            return F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=rate)
        mask = mask_at(self._causal, places) if self._visible is None else padding_mask(self._visible)
        if fused:
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.dtype), dropout_p=rate)
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        weights = torch.softmax(scores.float() + mask, dim=-1).to(value.dtype)
        dropped = F.dropout(weights, rate) if self._adapter is None else self._adapter.drop(weights, site)
        return dropped @ value

    def _drop(self, state: Tensor, own: Callable[[Tensor], Tensor], site: int) -> Tensor:
        """Dropout of the network, or of the adapter wherever the network has one."""
        return own(state) if self._adapter is None or own is identity else self._adapter.drop(state, site)


def bidirectional(network: Any) -> bool:
    """Whether a token sees those after it."""
    return not getattr(network.config, "is_causal", True)


def add_optional(projected: Tensor, update: Tensor | None) -> Tensor:
    return projected if update is None else projected + update


def gather_positions(state: Tensor, places: Tensor) -> Tensor:
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


def causal_mask(length: int, device: torch.device) -> Tensor:
    """What is added to scores, (T, T): minus infinity where a key comes after the query."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)


def mask_at(causal: Tensor, places: Tensor | None) -> Tensor:
    """The causal mask of queries at `places` (rows, P), (rows, 1, P, T), or of all tokens, (T, T)."""
    return causal if places is None else causal[places][:, None]


def padding_mask(visible: Tensor) -> Tensor:
    """What is added to scores, (rows, 1, 1, T): minus infinity where a key is not `visible` (rows, T) bool."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, float("-inf"))[:, None, None, :]


def apply_rotary(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    turned, kept = x[..., : cosine.shape[-1]], x[..., cosine.shape[-1] :]
    half = turned.shape[-1] // 2
    rotated = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
    return torch.cat([turned * cosine + rotated * sine, kept], dim=-1).to(x.dtype)
