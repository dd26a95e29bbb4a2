"""Heads of stacked adapters: the network's own language head, or a linear classifier for each adapter."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from ktrain.model.lora import AdapterSpec
from ktrain.rng import torch_seed

MOMENTUM = 0.1
EPSILON = 1e-5


class LanguageHead(nn.Module):
    """The frozen output embedding of the network: the targets are tokens."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        # In a tuple, so that the weight is not counted as a parameter of its own.
        self._shared = (network,)

    def forward(self, state: Tensor) -> Tensor:
        """Logits (K, B, P, vocabulary) of states (K, B, P, width)."""
        logits: Tensor = self._shared[0].get_output_embeddings()(state)
        return logits


class Classifier(nn.Module):
    """Norm with affine, then a linear layer, K of each (paper, sections 4.1 and 4.2).

    P-probes have layer norm, Q-probes batch norm over the batch of their adapter. Adapters may have different numbers
    of classes: the logits of classes that an adapter does not have are minus infinity.
    """

    absent: Tensor
    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, specs: Sequence[AdapterSpec], classes: Sequence[int], width: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.batch_norm = batch_norm
        count, largest = len(specs), max(classes)
        self.gain = nn.Parameter(torch.ones(count, 1, 1, width))
        self.shift = nn.Parameter(torch.zeros(count, 1, 1, width))
        self.weight = nn.Parameter(torch.zeros(count, width, largest))
        self.bias = nn.Parameter(torch.zeros(count, 1, largest))
        bound = 1 / math.sqrt(width)
        for k, (spec, size) in enumerate(zip(specs, classes, strict=True)):
            source = torch.Generator().manual_seed(torch_seed(spec.seed, "head", spec.name))
            self.weight.data[k, :, :size].uniform_(-bound, bound, generator=source)
            self.bias.data[k, :, :size].uniform_(-bound, bound, generator=source)
        absent = torch.arange(largest) >= torch.tensor(list(classes))[:, None]
        self.register_buffer("absent", absent[:, None, None], persistent=False)
        if batch_norm:
            self.register_buffer("running_mean", torch.zeros(count, 1, 1, width))
            self.register_buffer("running_variance", torch.ones(count, 1, 1, width))

    def forward(self, state: Tensor) -> Tensor:
        """Logits (K, B, P, classes) of states (K, B, P, width)."""
        state = state.float()
        normed = self._batch(state) if self.batch_norm else F.layer_norm(state, state.shape[-1:], eps=EPSILON)
        normed = normed * self.gain + self.shift
        logits = torch.baddbmm(self.bias, normed.flatten(1, 2), self.weight).unflatten(1, state.shape[1:3])
        present: Tensor = logits.float().masked_fill(self.absent, float("-inf"))
        return present

    def _batch(self, state: Tensor) -> Tensor:
        if not self.training:
            return (state - self.running_mean) * torch.rsqrt(self.running_variance + EPSILON)
        count = torch.full_like(state[:, :1, :1], state.shape[1] * state.shape[2])
        sums = torch.stack([state.sum((1, 2), keepdim=True), state.square().sum((1, 2), keepdim=True), count])
        if dist.is_initialized() and dist.get_world_size() > 1:
            # The statistics of the whole batch, or a result would depend on the number of workers.
            sums = all_reduce(sums)
        count = sums[2]
        mean, square = sums[0] / count, sums[1] / count
        variance = (square - mean.square()).clamp(min=0.0)
        with torch.no_grad():
            self.running_mean.lerp_(mean.detach(), MOMENTUM)
            self.running_variance.lerp_(variance.detach() * (count / (count - 1)), MOMENTUM)
        return (state - mean) * torch.rsqrt(variance + EPSILON)
