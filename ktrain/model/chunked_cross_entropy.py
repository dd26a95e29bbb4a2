"""Cross-entropy through the output embedding, by chunks of tokens: the logits of all tokens never exist at once.

With a vocabulary of 50,257 the logits of a step are larger than the rest of its activations. Their gradient is known
as soon as they are, so a chunk's logits give the loss, the gradient of its states and a part of that of the embedding,
and are gone before the next chunk's come: the same three matrix products as without chunks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ktrain.model import sizes

ALIGNED = {"cpu": 1, "cuda": 64}
"""Rows of the embedding and of a chunk are multiples of this, because the products of a GPU slow down at odd sizes."""


class ChunkedCrossEntropy(nn.Module):
    """The weighted sum of the cross-entropies of states with their targets.

    The weight is that of the network's own output embedding, which is a parameter of this module too: ZeRO 3 brings a
    module the parameters that it has when it is called.
    """

    weight: nn.Parameter

    def __init__(self, embedding: nn.Linear) -> None:
        super().__init__()
        assert embedding.bias is None
        self.weight = embedding.weight

    def forward(self, states: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """A scalar, of states (N, width), targets (N,) int64 and their weights (N,), which get no gradient."""
        kind, vocabulary = states.device.type, len(self.weight)
        padding = -vocabulary % ALIGNED[kind]
        embedding = F.pad(self.weight, (0, 0, 0, padding)) if padding else self.weight
        rows = sizes.LOGITS[kind] // (4 * len(embedding))
        if len(states) <= rows:
            logits = F.linear(states, embedding)[:, :vocabulary]
            return (F.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()
        if torch.is_autocast_enabled(kind):
            embedding = embedding.to(torch.get_autocast_dtype(kind))
        rows = max(1, rows - rows % ALIGNED[kind])
        loss: Tensor = _Chunked.apply(  # type: ignore[no-untyped-call]
            states, embedding, targets, weights, vocabulary, rows
        )
        return loss


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, embedding: Tensor, targets: Tensor, weights: Tensor, vocabulary: int, rows: int
    ) -> Tensor:
        total = states.new_zeros((), dtype=torch.float32)
        entry = torch.arange(len(embedding), device=states.device)
        of_embedding = torch.zeros_like(embedding, dtype=torch.float32)
        of_states = []
        for state, target, weight in zip(*(x.split(rows) for x in (states, targets, weights)), strict=True):
            logits = F.linear(state, embedding)
            scores = logits.float()
            if len(embedding) > vocabulary:
                scores = scores.masked_fill(entry >= vocabulary, -torch.inf)
            shares = torch.log_softmax(scores, dim=-1)
            total = total - (shares.gather(1, target[:, None])[:, 0] * weight).sum()
            slope = ((shares.exp() - (entry == target[:, None]).float()) * weight[:, None]).to(logits.dtype)
            of_states.append((slope @ embedding.to(slope.dtype)).to(states.dtype))
            of_embedding += slope.t() @ state.to(slope.dtype)
        ctx.save_for_backward(torch.cat(of_states), of_embedding.to(embedding.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        of_states, of_embedding = ctx.saved_tensors
        return outputs[0] * of_states, outputs[0] * of_embedding, None, None, None, None
