"""What follows from the layers, heads and width of a network: parameters and FLOPs.

Apart from the networks, so that a plan need not wait for PyTorch.
"""

from ktrain.bios.tokenizer import SPECIAL
from ktrain.config import ModelConfig
from ktrain.config.network_size import SIZES, NetworkSize

__all__ = ["LOGITS", "SIZES", "NetworkSize", "flops_per_token", "parameters"]


LOGITS = {"cpu": 2**29, "cuda": 2**31}
"""Bytes in fp32 of the logits of a step from which on its loss goes through them by chunks of that size; fewer chunks
add fewer gradients of the output embedding up."""


def parameters(setting: ModelConfig, vocabulary: int) -> int:
    """How many parameters the network has, tied embeddings counted once, without building it."""
    shape = setting.shape
    if setting.family == "llama":
        block = 4 * shape.width**2 + 3 * shape.width * shape.gated + 2 * shape.width
        return 2 * vocabulary * shape.width + shape.layers * block + shape.width
    block = 12 * shape.width**2 + 13 * shape.width
    rows = vocabulary + (len(SPECIAL) if setting.family == "gbert" else 0)
    return rows * shape.width + shape.layers * block + 2 * shape.width


def flops_per_token(setting: ModelConfig, vocabulary: int, context: int, *, head: bool = True) -> int:
    """6 N + 12 L d T: forward and backward of one trained token; looking a token up multiplies nothing.

    Without `head`, no logits are computed, as in training a probe.
    """
    shape = setting.shape
    unused = vocabulary * shape.width if setting.family == "llama" else 0
    if not head:
        unused += (vocabulary + (len(SPECIAL) if setting.family == "gbert" else 0)) * shape.width
    return 6 * (parameters(setting, vocabulary) - unused) + 12 * shape.layers * shape.width * context
