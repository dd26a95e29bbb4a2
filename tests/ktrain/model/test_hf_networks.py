"""Networks from a file: what is built, what a plan counts without building it, and what is refused before compute."""

import json
import re
from typing import Any

import hf_files
import pytest
import torch

from ktrain.config import CellConfig, ModelConfig
from ktrain.errors import GuardFailure, WrongRequest
from ktrain.model import hf_networks, hf_request, networks, sizes

VOCABULARY, LONGEST = 400, 128
BERT = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def setting(architecture: str, dropout: float = 0.0, **changes: Any) -> ModelConfig:
    return ModelConfig.model_validate(hf_files.model(architecture, **changes) | {"dropout": dropout})


@pytest.mark.parametrize("architecture", hf_files.FILES)
def test_a_plan_counts_what_is_built_of_the_corpus_vocabulary(architecture: str) -> None:
    model = setting(architecture)
    network = networks.build_network(model, VOCABULARY, 64, 3, 0)
    weights = {name: p.numel() for name, p in network.named_parameters()}
    assert sizes.parameters(model, VOCABULARY) == sum(weights.values())
    assert len(network.get_input_embeddings().weight) == network.config.vocab_size == VOCABULARY
    config = network.config
    assert (config.eos_token_id, config.pad_token_id, config.bos_token_id) == (3, 3, 3)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    shape = sizes.shape_of(model, VOCABULARY)
    heads = {"mamba2": 0, "gpt_neox": 2}.get(architecture, 4)
    assert (shape.layers, shape.heads, shape.width) == (2, heads, 32)
    # By hand: two of Mixtral's four experts; a table that is looked up multiplies nothing unless it is the head too.
    table = VOCABULARY * 32
    used = sum(size / 2 if "experts" in name else size for name, size in weights.items())
    tied = architecture == "gemma3_text"
    attention = 12 * 2 * 32 * 64 if heads else 0
    assert sizes.flops_per_token(model, VOCABULARY, 64) == 6 * (used - (0 if tied else table)) + attention
    without = 6 * (used - (1 if tied else 2) * table) + attention
    assert sizes.flops_per_token(model, VOCABULARY, 64, head=False) == without


def test_weights_depend_on_the_seed_alone() -> None:
    drawn: list[dict[str, torch.Tensor]] = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(drawn))
        drawn.append(networks.build_network(setting("mixtral"), VOCABULARY, 64, 3, seed).state_dict())
    first, again, other = drawn
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_dropout_is_that_of_the_cell_in_every_place() -> None:
    """GPT-2's file has 0.1 by default, in three places with names of their own."""
    gpt2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2}
    for rate in (0.0, 0.3):
        model = ModelConfig(family="hf", config=json.dumps(gpt2), dropout=rate)
        network = networks.build_network(model, VOCABULARY, 64, 3, 0)
        assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {rate}
        networks.set_dropout(network, 0.2)
        assert (network.config.attn_pdrop, network.config.embd_pdrop, network.config.resid_pdrop) == (0.2, 0.2, 0.2)


HEADS = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
SMALL = {"hidden_size": 32, "intermediate_size": 48, **HEADS}
DROPPING: tuple[dict[str, Any], ...] = (
    {"model_type": "starcoder2", **SMALL, "residual_dropout": 0.4, "embedding_dropout": 0.4},
    {"model_type": "seed_oss", **SMALL},
    {"model_type": "mpt", "d_model": 32, "n_heads": 2, "n_layers": 1, "emb_pdrop": 0.4},
    {"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2, "hidden_dropout": 0.4},
    {
        "model_type": "falcon", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "attention_dropout": 0.4,
    },
)  # fmt: skip


@pytest.mark.parametrize("config", DROPPING, ids=[config["model_type"] for config in DROPPING])
def test_nothing_is_dropped_at_rate_zero_whatever_the_file_says(config: dict[str, Any]) -> None:
    """Rates of unusual names, in a part of the configuration, and where a module bears the name of a rate."""
    network = networks.build_network(ModelConfig(family="hf", config=json.dumps(config)), VOCABULARY, 64, 3, 0).train()
    ids = torch.arange(24).view(2, 12)

    def differ() -> bool:
        with torch.no_grad():
            first, second = (network(input_ids=ids, use_cache=False).logits for _ in range(2))
        return not torch.equal(first, second)

    assert not differ()
    networks.set_dropout(network, 0.3)
    assert differ()
    networks.set_dropout(network, 0.0)
    assert not differ()


def test_a_network_that_sees_later_tokens_is_noticed() -> None:
    """Planted: attention in both directions."""
    for architecture in hf_files.FILES:
        hf_networks.require_causal(networks.build_network(setting(architecture), VOCABULARY, 64, 3, 0))
    full = networks.build_network(ModelConfig(family="gbert", size="mini"), VOCABULARY, 64, 3, 0)
    with pytest.raises(GuardFailure, match="gpt_neox: a token's prediction depends on a later token"):
        hf_networks.require_causal(full)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "qwen33"}, "model_type=qwen33 is no architecture of transformers; did you mean qwen3?"),
        (BERT, "model_type=bert is no causal network: its tokens see later ones (is_decoder, is_causal)"),
        ({"model_type": "vit"}, "model_type=vit has no causal network in transformers"),
        ({"model_type": "bart"}, "model_type=bart is an encoder with a decoder, no causal network"),
        ({"model_type": "xlnet"}, "model_type=xlnet is no causal network"),
        ({"model_type": "gemma3"}, "model_type=gemma3 is made of several networks: take its language model's file"),
        (hf_files.FILES["qwen3"] | {"is_causal": False}, "model_type=qwen3 is no causal network"),
        (hf_files.FILES["mamba2"] | {"num_heads": 3}, "transformers refuses it: "),
        (hf_files.FILES["qwen3"] | {"hidden_act": "nothing"}, "transformers refuses it: "),
        (hf_files.FILES["qwen3"] | {"rms_norm_eps": "small"}, "transformers refuses it: "),
        (
            hf_files.FILES["qwen3"] | {"max_position_embeddings": 64},
            "max_position_embeddings=64 is less than the 128 tokens of its longest row",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused_in_one_line(config: dict[str, Any], said: str) -> None:
    cell = CellConfig(model=ModelConfig(family="hf", config=json.dumps(config)))
    with pytest.raises(WrongRequest) as caught:
        hf_request.check_cell(cell, VOCABULARY, LONGEST)
    line = str(caught.value)
    assert line.startswith(f"model.config={cell.model.name}: ") and said in line and "\n" not in line


@pytest.mark.parametrize(
    ("architecture", "dropout", "readout", "said"),
    [
        ("mamba2", 0.0, {}, "readout.rank_qv: which modules of mamba2 compute query and value is not known"),
        ("mamba2", 0.0, {"modules": "q_proj"}, "readout.modules=q_proj: no linear module is called q_proj; there are "),
        ("mamba2", 0.1, {}, "model.dropout=0.1: mamba2 has no dropout; set it to 0"),
        ("mamba2", 0.0, {"method": "full", "beam": 4}, "readout.beam=4: mamba2 keeps one state for each row"),
        ("qwen3", 0.0, {"dropout": 0.1}, "readout.dropout=0.1: adapters of qwen3 are trained without dropout"),
        ("qwen3", 0.0, {"kind": "q_probe", "dropout": 0.1}, "readout.dropout=0.1: adapters of qwen3"),
        ("qwen3", 0.0, {"modules": "q_proj", "rank_qv": 0}, "readout.modules=q_proj: adapts nothing where"),
    ],
)  # fmt: skip
def test_what_a_network_cannot_be_asked_is_refused_in_one_line(
    architecture: str, dropout: float, readout: dict[str, Any], said: str
) -> None:
    cell = CellConfig.model_validate({"model": hf_files.model(architecture) | {"dropout": dropout}, "readout": readout})
    with pytest.raises(WrongRequest, match=re.escape(said)):
        hf_request.check_cell(cell, VOCABULARY, LONGEST)


def test_what_a_network_can_be_asked_is_not_refused() -> None:
    asked: tuple[tuple[str, float, dict[str, Any]], ...] = (
        ("mamba2", 0.0, {"rank_qv": 0}), ("mamba2", 0.0, {"modules": "in_proj"}), ("mamba2", 0.0, {"method": "full"}),
        ("qwen3", 0.1, {"method": "full"}), ("qwen3", 0.1, {"dropout": 0.0}), ("qwen3", 0.0, {"beam": 4}),
        ("gpt_neox", 0.0, {"modules": "query_key_value+dense"}), ("gemma3_text", 0.0, {"kind": "p_probe"}),
    )  # fmt: skip
    for architecture, dropout, readout in asked:
        model = hf_files.model(architecture) | {"dropout": dropout}
        cell = CellConfig.model_validate({"model": model, "readout": readout})
        hf_request.check_cell(cell, VOCABULARY, LONGEST)
