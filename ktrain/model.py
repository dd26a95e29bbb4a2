"""The networks, from `transformers` classes (paper, section 2.2 and appendix B).

GPT-2 with rotary embedding is a GPT-NeoX without parallel residual; GBERT is the same with full attention. Llama has
the layers, heads and width of the GPT-2 of its size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from ktrain.config import Model
from ktrain.masking import SPECIAL, mask_id, pad_id
from ktrain.randomness import torch_seed


@dataclass(frozen=True)
class Shape:
    """Layers, heads and width; the paper's name of a size is its parameter count."""

    layers: int
    heads: int
    width: int

    @property
    def gated(self) -> int:
        """Width of Llama's feed-forward layers: two thirds of four times the width, so that three matrices cost what
        GPT-2's two do, rounded up to a multiple of 8 (not stated in the paper).
        """
        return -(-8 * self.width // 3 // 8) * 8


SHAPES = {
    "mini": Shape(4, 4, 128),
    "124m": Shape(12, 12, 768),
    "302m": Shape(12, 20, 1280),
    "682m": Shape(12, 32, 2048),
}


def configuration(setting: Model, vocabulary: int, context: int, eos: int) -> Any:
    """The `transformers` configuration. `vocabulary` is the tokenizer's; GBERT has a mask and a padding token besides.

    GPT-2 and GBERT: rotary on a quarter of the head dimension, base 10,000, tied embeddings. Llama: rotary on all of
    it, RMS norm, gated feed-forward, embeddings not tied.
    """
    shape = SHAPES[setting.size]
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


def build(setting: Model, vocabulary: int, context: int, eos: int, seed: int) -> Any:
    """A network with `transformers`' initial weights (normal, 0.02), drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, "weights"))
        chosen = configuration(setting, vocabulary, context, eos)
        return LlamaForCausalLM(chosen) if setting.family == "llama" else GPTNeoXForCausalLM(chosen)


def parameters(setting: Model, vocabulary: int) -> int:
    """How many parameters the network has, tied embeddings counted once, without building it."""
    shape = SHAPES[setting.size]
    if setting.family == "llama":
        block = 4 * shape.width**2 + 3 * shape.width * shape.gated + 2 * shape.width
        return 2 * vocabulary * shape.width + shape.layers * block + shape.width
    block = 12 * shape.width**2 + 13 * shape.width
    rows = vocabulary + (len(SPECIAL) if setting.family == "gbert" else 0)
    return rows * shape.width + shape.layers * block + 2 * shape.width


def flops_per_token(setting: Model, vocabulary: int, context: int) -> int:
    """6 N + 12 L d T: forward and backward of one trained token; looking a token up multiplies nothing."""
    shape = SHAPES[setting.size]
    looked_up = vocabulary * shape.width if setting.family == "llama" else 0
    return 6 * (parameters(setting, vocabulary) - looked_up) + 12 * shape.layers * shape.width * context
