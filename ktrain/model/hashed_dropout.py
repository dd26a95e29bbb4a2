"""Dropout as a pure function of (adapter, step, site, element), so that an adapter's masks do not depend on the others.

A generator would give other masks in another batch of adapters, on another number of workers and after a restart; a
hash gives the same ones everywhere, is fused by the compiler and needs no state in a checkpoint.
"""

import numpy as np
import torch
from torch import Tensor

from ktrain.rng import generator

_BITS = 31
_SITE = 0x3C6EF372


def dropout_seeds(streams: list[tuple[int, str]], step: int) -> Tensor:
    """Two 31-bit words for each adapter's (seed, stream) at a step, (adapters, 2) int32."""
    words = [generator(seed, "dropout", stream, step).integers(2**_BITS, size=2) for seed, stream in streams]
    return torch.from_numpy(np.array(words, dtype=np.int32))


def hashed_dropout(state: Tensor, seeds: Tensor, site: int, rate: float, rank: int = 0, ranks: int = 1) -> Tensor:
    """Zeroes elements with probability `rate` and divides the others by 1 - rate.

    `state` (adapters * rows, ...) and `seeds` (adapters, 2). Row r here is row r * ranks + rank of its adapter's batch.
    """
    adapters = len(seeds)
    rows, size = len(state) // adapters, state[0].numel()
    row = torch.arange(rows, device=state.device, dtype=torch.int32) * ranks + rank
    index = row[:, None] * size + torch.arange(size, device=state.device, dtype=torch.int32)
    first, second = (seeds[:, i, None, None] for i in (0, 1))
    # Two rounds of a 32-bit integer hash (multipliers of Wellons' hash-prospector), a seed word before each.
    x = index[None] ^ first ^ (_SITE * (site + 1) & 0x7FFFFFFF)
    x = x ^ _shift(x, 15)
    x = x * 0x2C1B3C6D
    x = x ^ _shift(x, 12) ^ second
    x = x * 0x297A2D39
    x = (x ^ _shift(x, 15)) & 0x7FFFFFFF
    kept = (x >= int(rate * 2**_BITS)).view(state.shape)
    return torch.where(kept, state / (1 - rate), 0.0)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Right shift of the 32 bits without the sign."""
    return (x >> bits) & ((1 << (32 - bits)) - 1)
