"""Which modules of a network compute query and value, and which of their outputs, by architecture.

The names are those of peft's table (0.21) where it has the architecture; a test compares them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ktrain.errors import WrongRequest, nearest

Layout = Callable[[Any, int], tuple[Tensor, Tensor]]
"""The outputs that are query and value, of a configuration and the number of all outputs."""


def _by_head(config: Any, outputs: int) -> tuple[Tensor, Tensor]:
    """Head by head: query, key, value."""
    parts = torch.arange(outputs, device="cpu").view(config.num_attention_heads, 3, -1)
    return parts[:, 0].flatten(), parts[:, 2].flatten()


def _by_thirds(config: Any, outputs: int) -> tuple[Tensor, Tensor]:
    """All queries, all keys, all values."""
    query, _, value = torch.arange(outputs, device="cpu").view(3, -1)
    return query, value


def _by_groups(config: Any, outputs: int) -> tuple[Tensor, Tensor]:
    """All queries, then fewer keys and values, where several query heads share one of each."""
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    width = outputs // (heads + 2 * shared)
    return torch.arange(heads * width, device="cpu"), torch.arange((heads + shared) * width, outputs, device="cpu")


FUSED: Mapping[str, tuple[str, Layout]] = {
    "gpt_neox": ("query_key_value", _by_head),
    "bloom": ("query_key_value", _by_head),
    "gpt2": ("c_attn", _by_thirds),
    "mpt": ("Wqkv", _by_thirds),
    "phi3": ("qkv_proj", _by_groups),
}
"""One module for query, key and value: only query and value are updated."""
WHOLE: Mapping[str, tuple[str, ...]] = {
    "falcon": ("query_key_value",),
    "gpt_bigcode": ("c_attn",),
    "codegen": ("qkv_proj",),
    "rwkv": ("key", "value", "receptance", "output"),
}
"""Modules that peft updates whole."""
USUAL = ("q_proj", "v_proj")
"""What most architectures call the two, and peft's table for all of those."""


@dataclass(frozen=True)
class UpdatedOutputs:
    """A module that computes `outputs` numbers of `inputs`, and those of them that get one low-rank update."""

    module: str
    part: str
    """`query`, `value`, or the module's own name where all its outputs are updated."""
    inputs: int
    outputs: int
    """How many outputs are updated."""
    rows: Tensor | None = None
    """Which ones, (outputs,) int64; None where all are."""

    @property
    def name(self) -> str:
        """Names the update among those of a network."""
        return f"{self.module}.{self.part}" if self.rows is not None else self.module


def updated_outputs(network: Any, modules: str | None) -> list[UpdatedOutputs]:
    """Returns what adapters update in a network, in the order of its modules.

    `modules` names modules by the last part of their name, joined by `+`, and then whole ones are updated. Raises
    `WrongRequest` for a name that no linear module has, and where neither `modules` nor this table has names.
    """
    architecture, linear = network.config.model_type, _linear_modules(network)
    if modules is not None:
        return _named(linear, tuple(modules.split("+")), f"readout.modules={modules}")
    if architecture in FUSED:
        last, layout = FUSED[architecture]
        return [update for whole in _named(linear, (last,), architecture) for update in _split(whole, network, layout)]
    if architecture in WHOLE:
        return _named(linear, WHOLE[architecture], architecture)
    known = {name.rpartition(".")[2] for name in linear}
    if not known.issuperset(USUAL):
        raise WrongRequest(
            f"readout.rank_qv: which modules of {architecture} compute query and value is not known; name them, as in "
            f"readout.modules={sorted(known)[0]} (there are {_listed(linear)}), or set rank_qv=0"
        )
    return _named(linear, USUAL, architecture)


def _linear_modules(network: Any) -> dict[str, nn.Module]:
    """The linear modules of all layers by name: not the output embedding."""
    head = network.get_output_embeddings()
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _named(linear: Mapping[str, nn.Module], names: tuple[str, ...], what: str) -> list[UpdatedOutputs]:
    for name in names:
        if not any(module.rpartition(".")[2] == name for module in linear):
            known = {module.rpartition(".")[2] for module in linear}
            raise WrongRequest(
                f"{what}: no linear module is called {name}; there are {_listed(linear)}{nearest(name, known)}"
            )
    updated = []
    for full, module in linear.items():
        if full.rpartition(".")[2] in names:
            inputs, outputs = matrix(module).shape[1], matrix(module).shape[0]
            updated.append(UpdatedOutputs(full, full.rpartition(".")[2], inputs, outputs))
    return updated


def _split(whole: UpdatedOutputs, network: Any, layout: Layout) -> list[UpdatedOutputs]:
    parts = zip(("query", "value"), layout(network.config, whole.outputs), strict=True)
    return [UpdatedOutputs(whole.module, part, whole.inputs, len(rows), rows) for part, rows in parts]


def _listed(linear: Mapping[str, nn.Module]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in linear})[:12]) or "none"


def matrix(module: Any) -> Tensor:
    """Returns the weight of a linear module, (outputs, inputs); GPT-2's `Conv1D` has it transposed."""
    weight: Tensor = module.weight
    return weight.t() if isinstance(module, Conv1D) else weight
