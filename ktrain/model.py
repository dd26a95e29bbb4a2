"""The networks, from `transformers` classes: GPT-2 with rotary embedding (paper, section 2.2 and appendix B).

A GPT-NeoX block without parallel residual is GPT-2's block with rotary embedding instead of learned positions.
"""

from dataclasses import dataclass

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from ktrain.config import Model
from ktrain.randomness import torch_seed


@dataclass(frozen=True)
class Shape:
    """Layers, heads and width; the paper's name of a size is its parameter count."""

    layers: int
    heads: int
    width: int


SHAPES = {
    "mini": Shape(4, 4, 128),
    "124m": Shape(12, 12, 768),
    "302m": Shape(12, 20, 1280),
    "682m": Shape(12, 32, 2048),
}


def configuration(setting: Model, vocabulary: int, context: int, eos: int) -> GPTNeoXConfig:
    """The `transformers` configuration: rotary on a quarter of the head dimension, base 10,000, tied embeddings."""
    shape = SHAPES[setting.size]
    return GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width,
        hidden_act="gelu_new",
        rotary_pct=0.25,
        max_position_embeddings=context,
        hidden_dropout=setting.dropout,
        attention_dropout=setting.dropout,
        use_parallel_residual=False,
        tie_word_embeddings=True,
        bos_token_id=eos,
        eos_token_id=eos,
        pad_token_id=eos,
        attn_implementation="sdpa",
    )


def build(setting: Model, vocabulary: int, context: int, eos: int, seed: int) -> GPTNeoXForCausalLM:
    """A network with `transformers`' initial weights (normal, 0.02), drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "weights"))
        return GPTNeoXForCausalLM(configuration(setting, vocabulary, context, eos))


def parameters(setting: Model, vocabulary: int) -> int:
    """How many parameters the network has, tied embeddings counted once, without building it."""
    shape = SHAPES[setting.size]
    block = 12 * shape.width**2 + 13 * shape.width
    return vocabulary * shape.width + shape.layers * block + 2 * shape.width


def flops_per_token(setting: Model, vocabulary: int, context: int) -> int:
    """6 N + 12 L d T: forward and backward of one trained token."""
    shape = SHAPES[setting.size]
    return 6 * parameters(setting, vocabulary) + 12 * shape.layers * shape.width * context
