"""Shapes: layers, heads and width of each size of network, and what follows from them.

Apart from the networks, so that a plan need not wait for PyTorch.
"""

from dataclasses import dataclass

from ktrain.bios.tokenizer import SPECIAL
from ktrain.config import ModelConfig


@dataclass(frozen=True)
class NetworkSize:
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


SIZES = {
    "mini": NetworkSize(4, 4, 128),
    "124m": NetworkSize(12, 12, 768),
    "302m": NetworkSize(12, 20, 1280),
    "682m": NetworkSize(12, 32, 2048),
}

LOGITS = {"cpu": 2**29, "cuda": 2**31}
"""Bytes in fp32 of the logits of a step from which on its loss goes through them by chunks of that size; fewer chunks
add fewer gradients of the output embedding up."""


def parameters(setting: ModelConfig, vocabulary: int) -> int:
    """How many parameters the network has, tied embeddings counted once, without building it."""
    shape = SIZES[setting.size]
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
    shape = SIZES[setting.size]
    unused = vocabulary * shape.width if setting.family == "llama" else 0
    if not head:
        unused += (vocabulary + (len(SPECIAL) if setting.family == "gbert" else 0)) * shape.width
    return 6 * (parameters(setting, vocabulary) - unused) + 12 * shape.layers * shape.width * context
