"""What follows from the layers, heads and width of a network: parameters and FLOPs.

Apart from the networks, so that a plan need not wait for PyTorch.
"""

from ktrain.bios.tokenizer import SPECIAL
from ktrain.config import ModelConfig
from ktrain.config.network_size import SIZES, NetworkSize

__all__ = ["LOGITS", "SIZES", "NetworkSize", "flops_per_token", "parameters", "shape_of"]


LOGITS = {"cpu": 2**29, "cuda": 2**31}
"""Bytes in fp32 of the logits of a step from which on its loss goes through them by chunks of that size; fewer chunks
add fewer gradients of the output embedding up."""


def shape_of(setting: ModelConfig, vocabulary: int) -> NetworkSize:
    """Layers, heads and width of a network; no heads where the architecture has no attention."""
    if setting.family != "hf":
        return setting.shape
    from ktrain.model import hf_networks  # A plan of other networks does not wait for PyTorch.

    config = hf_networks.outline(setting, vocabulary).config
    heads = getattr(config, "num_attention_heads", 0) or 0
    return NetworkSize(int(config.num_hidden_layers), int(heads), int(config.hidden_size))


def parameters(setting: ModelConfig, vocabulary: int) -> int:
    """How many parameters the network has, tied embeddings counted once, without building it."""
    if setting.family == "hf":
        from ktrain.model import hf_networks

        return hf_networks.parameters(setting, vocabulary)
    shape = setting.shape
    if setting.family == "llama":
        block = 4 * shape.width**2 + 3 * shape.width * shape.gated + 2 * shape.width
        return 2 * vocabulary * shape.width + shape.layers * block + shape.width
    block = 12 * shape.width**2 + 13 * shape.width
    rows = vocabulary + (len(SPECIAL) if setting.family == "gbert" else 0)
    return rows * shape.width + shape.layers * block + 2 * shape.width


def flops_per_token(setting: ModelConfig, vocabulary: int, context: int, *, head: bool = True) -> int:
    """6 N + 12 L d T: forward and backward of one trained token; looking a token up multiplies nothing.

    Without `head`, no logits are computed, as in training a probe. N counts, of experts, those that a token is sent to;
    an architecture without attention has no 12 L d T.
    """
    if setting.family == "hf":
        from ktrain.model import hf_networks

        size = shape_of(setting, vocabulary)
        attention = 12 * size.layers * size.width * context if size.heads else 0
        return 6 * hf_networks.multiplied(setting, vocabulary, head=head) + attention
    shape = setting.shape
    unused = vocabulary * shape.width if setting.family == "llama" else 0
    if not head:
        unused += (vocabulary + (len(SPECIAL) if setting.family == "gbert" else 0)) * shape.width
    return 6 * (parameters(setting, vocabulary) - unused) + 12 * shape.layers * shape.width * context
