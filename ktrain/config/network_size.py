"""Sizes of networks: layers, heads and width, and the sizes that have a name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkSize:
    """Layers, heads and width."""

    layers: int
    heads: int
    width: int

    @property
    def gated(self) -> int:
        """Width of Llama's feed-forward layers: two thirds of four times the width, so that three matrices cost what
        GPT-2's two do, rounded up to a multiple of 8 (not stated in the paper).
        """
        return -(-8 * self.width // 3 // 8) * 8

    def __str__(self) -> str:
        """Such as `8x256h4`: layers x width, and the heads."""
        return f"{self.layers}x{self.width}h{self.heads}"


SIZES = {
    "mini": NetworkSize(4, 4, 128),
    "124m": NetworkSize(12, 12, 768),
    "302m": NetworkSize(12, 20, 1280),
    "682m": NetworkSize(12, 32, 2048),
}
"""The named sizes; the paper's name of a size is its parameter count, rounded."""
