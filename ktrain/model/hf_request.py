"""What a cell of `model.family=hf` asks that its network cannot do: found before anything is trained."""

import inspect
from typing import Any

from ktrain.config import CellConfig
from ktrain.errors import WrongRequest
from ktrain.model import hf_networks
from ktrain.model.network_parts import has_fast_forward
from ktrain.model.query_value import updated_outputs


def check_cell(cell: CellConfig, vocabulary: int, longest: int) -> None:
    """Raises `WrongRequest` for a network that cannot be built, that cannot read `longest` tokens, or that cannot be
    trained, adapted or asked as the cell wants it."""
    network, name = hf_networks.outline(cell.model, vocabulary), cell.model.name
    config = network.config
    positions = getattr(config, "max_position_embeddings", None) or longest
    if longest > positions:
        raise WrongRequest(
            f"{cell.model.axis}={name}: max_position_embeddings={positions} is less than the {longest} tokens of its "
            "longest row (train.context, a biography or a question)"
        )
    if network.base_model is network or network.get_output_embeddings() is None:
        raise WrongRequest(f"{cell.model.axis}={name}: {config.model_type} has no body below its output embedding")
    if cell.model.dropout and not hf_networks.dropout_rates(config):
        raise WrongRequest(f"model.dropout={cell.model.dropout:g}: {config.model_type} has no dropout; set it to 0")
    if cell.readout.beam > 1 and getattr(network, "_is_stateful", False):
        raise WrongRequest(
            f"readout.beam={cell.readout.beam}: {config.model_type} keeps one state for each row; set it to 1"
        )
    if cell.train.method == "lora":
        updated_outputs(network, None)
    if cell.readout.adapted:
        _check_adapters(cell, network)


def _check_adapters(cell: CellConfig, network: Any) -> None:
    architecture, readout = network.config.model_type, cell.readout
    if readout.rank_qv == 0 and readout.modules is not None:
        raise WrongRequest(f"readout.modules={readout.modules}: adapts nothing where readout.rank_qv=0")
    if has_fast_forward(network) and readout.modules is None:
        return
    if cell.readout_dropout:
        raise WrongRequest(
            f"readout.dropout={cell.readout_dropout:g}: adapters of {architecture} are trained without dropout; set it "
            "to 0"
        )
    for module in (network, network.base_model):
        if "inputs_embeds" not in inspect.signature(module.forward).parameters:
            raise WrongRequest(
                f"{cell.model.axis}={cell.model.name}: {architecture} reads no embeddings, so it takes no adapters"
            )
    if readout.rank_qv:
        updated_outputs(network, readout.modules)
