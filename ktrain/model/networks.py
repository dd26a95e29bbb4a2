"""The networks, from `transformers` classes (paper, section 2.2 and appendix B).

GPT-2 with rotary embedding is a GPT-NeoX without parallel residual; GBERT is the same with full attention. Llama has
the layers, heads and width of the GPT-2 of its size.
"""

from typing import Any

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from ktrain.bios.tokenizer import SPECIAL, mask_id, pad_id
from ktrain.config import ModelConfig
from ktrain.model import hf_networks
from ktrain.model.sizes import SIZES, NetworkSize, flops_per_token, parameters
from ktrain.rng import torch_seed

__all__ = ["SIZES", "NetworkSize", "build_network", "configuration", "flops_per_token", "parameters", "set_dropout"]


def configuration(setting: ModelConfig, vocabulary: int, context: int, eos: int) -> Any:
    """The `transformers` configuration. `vocabulary` is the tokenizer's; GBERT has a mask and a padding token besides.

    GPT-2 and GBERT: rotary on a quarter of the head dimension, base 10,000, tied embeddings. Llama: rotary on all of
    it, RMS norm, gated feed-forward, embeddings not tied.
    """
    shape = setting.shape
    common: dict[str, Any] = {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": context,
        "attention_dropout": setting.dropout,
        "bos_token_id": eos,
        "eos_token_id": eos,
        "attn_implementation": "sdpa",
    }
    if setting.family == "llama":
        return LlamaConfig(
            vocab_size=vocabulary, intermediate_size=shape.gated, rms_norm_eps=1e-6, pad_token_id=eos, **common
        )
    full = setting.family == "gbert"
    return GPTNeoXConfig(
        vocab_size=vocabulary + (len(SPECIAL) if full else 0),
        intermediate_size=4 * shape.width,
        hidden_act="gelu_new",
        rotary_pct=0.25,
        hidden_dropout=setting.dropout,
        use_parallel_residual=False,
        tie_word_embeddings=True,
        pad_token_id=pad_id(vocabulary) if full else eos,
        # Only where it is told: the configuration of a causal network has no such entry.
        **({"is_causal": False, "mask_token_id": mask_id(vocabulary)} if full else {}),
        **common,
    )


def build_network(setting: ModelConfig, vocabulary: int, context: int, eos: int, seed: int) -> Any:
    """A network with `transformers`' initial weights (normal, 0.02, but for those of `hf`), drawn from `seed` alone;
    that of `model.start` has its own weights."""
    if setting.start is not None:
        network = hf_networks.load(setting, eos)
        set_dropout(network, setting.dropout)
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "weights"))
        if setting.family == "hf":
            return hf_networks.build(setting, vocabulary, eos)
        chosen = configuration(setting, vocabulary, context, eos)
        if setting.family != "llama":
            return GPTNeoXForCausalLM(chosen)
        # An embedding that knows of padding starts at zero and stays there, and here EOS pads.
        padding, chosen.pad_token_id = chosen.pad_token_id, None
        network = LlamaForCausalLM(chosen)
        network.config.pad_token_id = network.generation_config.pad_token_id = padding
        return network


def set_dropout(network: Any, rate: float) -> None:
    """Sets the rate of dropout with which a network trains from now on, in its configuration too."""
    for setting in hf_networks.dropout_rates(network.config):
        setattr(network.config, setting, rate)
    hf_networks.set_rates(network, rate)
