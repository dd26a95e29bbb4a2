"""Low-rank updates as in the paper's section 3 (Hu et al. 2021), those of many adapters stacked in one tensor.

Rank r on query and value, rank r' on the input embedding, or the whole input embedding. Members of one stack may have
different ranks: smaller ones are padded with zeros, which stay zero, because each factor's gradient is a product with
the other one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ktrain.model.hashed_dropout import hashed_dropout
from ktrain.rng import torch_seed

Rank = int | Literal["full"]


@dataclass(frozen=True)
class AdapterSpec:
    """One adapter with a name of its own: initial values, data order and dropout are drawn from (seed, name)."""

    name: str
    seed: int
    rank_embedding: Rank
    rank_qv: int


class Adapters(nn.Module):
    """The updates of one network by K adapters; `forward.Adapter` for rows of K * B.

    `table` (K, vocabulary, width) where the embedding is trained whole, else `embedding_a` (K, vocabulary, r') zero at
    first and `embedding_b` (K, r', width) random; `qv_a` (K, layers, 2, r, width) random, `qv_b` (K, layers, 2, width,
    r) zero: nothing changes at first. All adapters train the whole embedding, or none.
    """

    tokens: Tensor | None

    def __init__(
        self, network: Any, specs: Sequence[AdapterSpec], scale: float, rate: float, tokens: Tensor | None = None
    ) -> None:
        """`rate` is that of dropout; `tokens` (vocabulary,) bool confines updates of low rank to some tokens."""
        super().__init__()
        self.register_buffer("tokens", None if tokens is None else tokens.float(), persistent=False)
        self.specs, self.scale, self.rate = tuple(specs), scale, rate
        self.rank, self.ranks = 0, 1
        self._seeds: Tensor | None = None
        base = network.get_input_embeddings().weight
        width = base.shape[1]
        sources = [torch.Generator().manual_seed(torch_seed(spec.seed, "adapters", spec.name)) for spec in specs]
        # Each adapter draws for the embedding first.
        drawn = [_initial(spec, width, source) for spec, source in zip(specs, sources, strict=True)]
        self.table = self.embedding_a = self.embedding_b = None
        self.qv_a: nn.Parameter | None = None
        self.qv_b: nn.Parameter | None = None
        if any(spec.rank_embedding == "full" for spec in specs):
            assert all(spec.rank_embedding == "full" for spec in specs)
            self.table = nn.Parameter(base.detach().expand(len(specs), -1, -1).clone())
        elif rank := max(int(spec.rank_embedding) for spec in specs):
            self.embedding_a = nn.Parameter(torch.zeros(len(specs), len(base), rank))
            self.embedding_b = nn.Parameter(stacked(drawn, (rank, width)))
        self._make_projections(network, sources)

    def _make_projections(self, network: Any, sources: Sequence[torch.Generator]) -> None:
        """Makes the factors of query and value, random ones from each adapter's own source."""
        layers, width = network.config.num_hidden_layers, network.get_input_embeddings().weight.shape[1]
        drawn = [
            torch.randn(layers, 2, spec.rank_qv, width, generator=source) / math.sqrt(width)
            for spec, source in zip(self.specs, sources, strict=True)
        ]
        if rank := max(spec.rank_qv for spec in self.specs):
            self.qv_a = nn.Parameter(stacked(drawn, (layers, 2, rank, width)))
            self.qv_b = nn.Parameter(torch.zeros(len(self.specs), layers, 2, width, rank))

    def at(self, seeds: Tensor) -> None:
        """Draws the dropout of this forward from `seeds` (K, 2)."""
        self._seeds = seeds

    def embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        """See `forward.Adapter`."""
        if self.embedding_a is None and self.table is None:
            plain: Tensor = table(ids)
            return plain
        parts = ids.unflatten(0, (len(self.specs), -1))
        stack = self.table if self.table is not None else self.embedding_a
        assert stack is not None
        # One lookup in all tables, laid end to end: ids of adapter k start at k * vocabulary.
        start = stack.shape[1] * torch.arange(len(self.specs), device=ids.device)[:, None, None]
        rows = self._look_up(table, stack.flatten(0, 1), parts + start)
        if self.embedding_b is None:
            return rows.flatten(0, 1)
        if self.tokens is not None:
            rows = rows * self.tokens[parts][..., None]
        update = torch.bmm(rows.flatten(1, 2), self.embedding_b).unflatten(1, parts.shape[1:]).flatten(0, 1)
        embedded: Tensor = table(ids) + update * self.scale
        return embedded

    def _look_up(self, table: nn.Embedding, stack: Tensor, ids: Tensor) -> Tensor:
        """Rows of `stack` (N, width), which stands for the weight of `table`."""
        return nn.functional.embedding(ids, stack)

    def query(self, layer: int, state: Tensor) -> Tensor | None:
        """See `forward.Adapter`."""
        return self._update(layer, 0, state)

    def value(self, layer: int, state: Tensor) -> Tensor | None:
        """See `forward.Adapter`."""
        return self._update(layer, 1, state)

    def drop(self, state: Tensor, site: int) -> Tensor:
        """See `forward.Adapter`."""
        if not self.training or not self.rate:
            return state
        assert self._seeds is not None
        return hashed_dropout(state, self._seeds, site, self.rate, self.rank, self.ranks)

    def _update(self, layer: int, which: int, state: Tensor) -> Tensor | None:
        if self.qv_a is None or self.qv_b is None:
            return None
        a, b = self.qv_a.unbind(1)[layer].unbind(1)[which], self.qv_b.unbind(1)[layer].unbind(1)[which]
        parts = state.unflatten(0, (len(self.specs), -1)).flatten(1, 2)
        update = torch.bmm(torch.bmm(parts, a.transpose(1, 2)), b.transpose(1, 2)) * self.scale
        return update.view(*state.shape[:-1], -1)

    def tensors(self, index: int) -> dict[str, Tensor]:
        """The trained tensors of one adapter at its own ranks, contiguous, for saving beside its merged network."""
        spec, tensors = self.specs[index], {}
        for name, parameter in self.named_parameters(recurse=False):
            own = parameter.detach()[index]
            if name == "embedding_a":
                own = own[:, : spec.rank_embedding]
            elif name == "embedding_b":
                own = own[: spec.rank_embedding]
            elif name == "qv_a":
                own = own[:, :, : spec.rank_qv]
            elif name == "qv_b":
                own = own[..., : spec.rank_qv]
            if own.numel():
                tensors[name] = own.cpu().contiguous()
        return tensors

    @torch.no_grad()
    def add_projections(self, plain: Any, index: int) -> None:
        """Adds the updates of query and value of one adapter to the weights of a network."""
        if self.qv_a is None or self.qv_b is None:
            return
        config = plain.config
        heads = config.num_attention_heads
        for layer in range(config.num_hidden_layers):
            updates = self.qv_b[index, layer] @ self.qv_a[index, layer] * self.scale
            if config.model_type == "gpt_neox":
                packed = plain.gpt_neox.layers[layer].attention.query_key_value.weight
                packed.unflatten(0, (heads, 3, -1))[:, (0, 2)] += (
                    updates.unflatten(1, (heads, -1)).transpose(0, 1).to(packed)
                )
            else:
                attention = plain.model.layers[layer].self_attn
                for projection, update in zip((attention.q_proj, attention.v_proj), updates, strict=True):
                    projection.weight += update.to(projection.weight)


@torch.no_grad()
def merged(network: Any, adapters: Adapters, index: int) -> Any:
    """A plain network that computes what the network with one adapter does. Its embeddings are untied, because only the
    input embedding is updated."""
    config = type(network.config).from_dict({**network.config.to_dict(), "tie_word_embeddings": False})
    plain = type(network)(config).to(network.device)
    plain.load_state_dict(network.state_dict())
    table = plain.get_input_embeddings().weight
    if adapters.table is not None:
        table.copy_(adapters.table[index])
    elif adapters.embedding_a is not None and adapters.embedding_b is not None:
        table += (adapters.embedding_a[index] @ adapters.embedding_b[index] * adapters.scale).to(table)
    adapters.add_projections(plain, index)
    return plain


def _initial(spec: AdapterSpec, width: int, source: torch.Generator) -> Tensor:
    """The random factor of one adapter's embedding, (r', width), with deviation 1 / sqrt(r')."""
    rank = 0 if spec.rank_embedding == "full" else spec.rank_embedding
    return torch.randn(rank, width, generator=source) / math.sqrt(max(rank, 1))


def stacked(parts: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Returns the parts in one tensor (K, *shape), each padded with zeros."""
    stack = torch.zeros(len(parts), *shape)
    for k, part in enumerate(parts):
        stack[k][tuple(slice(size) for size in part.shape)] = part
    return stack
