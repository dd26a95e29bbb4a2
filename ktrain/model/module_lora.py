"""Stacked adapters of any network of `transformers`: low-rank updates that are added to the outputs of its modules.

As `lora.Adapters`, but each module has factors of its own widths: where heads share values, the value is narrower than
the query, and some architectures have queries wider than the network.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ktrain.errors import WrongRequest
from ktrain.model.lora import Adapters, AdapterSpec, stacked
from ktrain.model.network_parts import has_fast_forward
from ktrain.model.query_value import UpdatedOutputs, matrix, updated_outputs


def adapters_of(
    network: Any,
    specs: Sequence[AdapterSpec],
    scale: float,
    rate: float,
    tokens: Tensor | None = None,
    modules: str | None = None,
) -> Adapters:
    """Returns the adapters of a network: for the fast forward, where it has one and no `modules` are named.

    Raises `WrongRequest` where its query and value modules are not known.
    """
    if has_fast_forward(network) and modules is None:
        return Adapters(network, specs, scale, rate, tokens)
    return ModuleAdapters(network, specs, scale, rate, tokens, modules)


class ModuleAdapters(Adapters):
    """`module_a` holds (K, r, inputs), random, and `module_b` (K, outputs, r), zero, for each of `updates`."""

    updates: tuple[UpdatedOutputs, ...]

    def __init__(
        self,
        network: Any,
        specs: Sequence[AdapterSpec],
        scale: float,
        rate: float,
        tokens: Tensor | None = None,
        modules: str | None = None,
    ) -> None:
        """`modules` as in `query_value.updated_outputs`. Raises `WrongRequest`."""
        if rate:
            raise WrongRequest(f"readout.dropout={rate:g}: {network.config.model_type} trains adapters without dropout")
        self._modules_named = modules
        super().__init__(network, specs, scale, rate, tokens)

    def _make_projections(self, network: Any, sources: Sequence[torch.Generator]) -> None:
        self.module_a, self.module_b = nn.ParameterList(), nn.ParameterList()
        self.updates = ()
        rank = max(spec.rank_qv for spec in self.specs)
        if not rank:
            return
        self.updates = tuple(updated_outputs(network, self._modules_named))
        for update in self.updates:
            drawn = [
                torch.randn(spec.rank_qv, update.inputs, generator=source) / math.sqrt(update.inputs)
                for spec, source in zip(self.specs, sources, strict=True)
            ]
            self.module_a.append(nn.Parameter(stacked(drawn, (rank, update.inputs))))
            self.module_b.append(nn.Parameter(torch.zeros(len(self.specs), update.outputs, rank)))

    def _look_up(self, table: nn.Embedding, stack: Tensor, ids: Tensor) -> Tensor:
        """As the network's own embedding looks tokens up: Gemma's scales what it finds."""
        found: Tensor = functional_call(table, {"weight": stack}, (ids,))
        return found

    @contextmanager
    def attached(self, network: Any) -> Iterator[None]:
        """Adds the updates to the outputs of the network's modules while inside.

        Raises `WrongRequest` for a module that the forward pass inside did not call, or that does not see all tokens.
        """
        called: set[int] = set()
        handles = [
            network.get_submodule(update.module).register_forward_hook(partial(self._updated, index, called))
            for index, update in enumerate(self.updates)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if missing := [u.module for k, u in enumerate(self.updates) if k not in called]:
            raise WrongRequest(f"readout.modules: the network computes without calling {missing[0]}")

    def _updated(
        self, index: int, called: set[int], module: nn.Module, args: tuple[Tensor, ...], out: Tensor
    ) -> Tensor:
        called.add(index)
        update, state, count = self.updates[index], args[0], len(self.specs)
        if state.dim() != 3 or len(state) % count:
            raise WrongRequest(f"readout.modules: {update.module} does not see all tokens of all rows")
        parts = state.unflatten(0, (count, -1)).flatten(1, 2)
        a, b = self.module_a[index], self.module_b[index]
        added = torch.bmm(torch.bmm(parts, a.transpose(1, 2)), b.transpose(1, 2)) * self.scale
        added = added.view(*out.shape[:-1], -1).to(out.dtype)
        if update.rows is None:
            return out + added
        return out.index_add(-1, update.rows.to(out.device), added)

    def tensors(self, index: int) -> dict[str, Tensor]:
        """See `Adapters.tensors`; the factors of a module are `<module>.a` and `<module>.b`."""
        tensors, rank = super().tensors(index), self.specs[index].rank_qv
        for update, a, b in zip(self.updates, self.module_a, self.module_b, strict=True):
            if rank:
                tensors[f"{update.name}.a"] = a.detach()[index, :rank].cpu().contiguous()
                tensors[f"{update.name}.b"] = b.detach()[index, :, :rank].cpu().contiguous()
        return tensors

    @torch.no_grad()
    def add_projections(self, plain: Any, index: int) -> None:
        """See `Adapters.add_projections`."""
        for update, a, b in zip(self.updates, self.module_a, self.module_b, strict=True):
            weight = matrix(plain.get_submodule(update.module))
            product = (b[index] @ a[index] * self.scale).to(weight)
            if update.rows is None:
                weight += product
            else:
                weight[update.rows.to(weight.device)] += product
