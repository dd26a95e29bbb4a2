"""The loss by chunks is the plain one; the oracle is `cross_entropy` over all logits.

Tolerance: fp32, another order of summation. In bf16 both sides round logits and gradients, in another order.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ktrain.model import chunked_cross_entropy, sizes
from ktrain.model.chunked_cross_entropy import ChunkedCrossEntropy

WIDTH = 8


def given_rows(rows: int, vocabulary: int, seed: int) -> tuple[nn.Linear, Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    embedding = nn.Linear(WIDTH, vocabulary, bias=False)
    nn.init.normal_(embedding.weight, generator=source)
    states = torch.randn(rows, WIDTH, generator=source, requires_grad=True)
    targets = torch.randint(0, vocabulary, (rows,), generator=source)
    return embedding, states, targets, torch.rand(rows, generator=source)


def plain(embedding: nn.Linear, states: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(embedding(states).float(), targets, reduction="none") * weights).sum()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    vocabulary=st.integers(2, 70),
    chunk=st.integers(0, 12),
    aligned=st.sampled_from([1, 16, 64]),
    seed=st.integers(0, 99),
)
def test_loss_and_gradients_are_those_of_the_plain_way(
    precision: str, rows: int, vocabulary: int, chunk: int, aligned: int, seed: int
) -> None:
    given_ = embedding, states, targets, weights = given_rows(rows, vocabulary, seed)
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        patch.setattr(sizes, "LOGITS", {"cpu": 4 * vocabulary * chunk})
        patch.setattr(chunked_cross_entropy, "ALIGNED", {"cpu": aligned})
        ours = 3 * ChunkedCrossEntropy(embedding)(states, targets, weights)
        wanted = 3 * plain(*given_)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, wanted, rtol=1e-5, atol=1e-5)
    learned = (states, embedding.weight)
    for mine, theirs in zip(torch.autograd.grad(ours, learned), torch.autograd.grad(wanted, learned), strict=True):
        assert mine.dtype == theirs.dtype
        assert float((mine - theirs).norm()) <= tolerance * float(theirs.norm()) + 1e-6


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_it_is_the_same(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    given_ = embedding, states, targets, weights = given_rows(50, 90, 3)
    monkeypatch.setattr(sizes, "LOGITS", {"cpu": 4 * 96 * 20})
    monkeypatch.setattr(chunked_cross_entropy, "ALIGNED", {"cpu": 16})
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        ours = torch.compile(ChunkedCrossEntropy(embedding))(states, targets, weights)
        wanted = plain(*given_)
    assert torch.allclose(ours, wanted, rtol=1e-5, atol=1e-5)
    learned = (states, embedding.weight)
    for mine, theirs in zip(torch.autograd.grad(ours, learned), torch.autograd.grad(wanted, learned), strict=True):
        assert float((mine - theirs).norm()) <= (1e-5 if precision == "fp32" else 2e-2) * float(theirs.norm())


class Largest(TorchDispatchMode):
    """The most elements that a result of any operation had."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.elements = max(self.elements, found.numel())
        return found


@pytest.mark.parametrize(("chunk", "wanted"), [(10, 10 * 500), (400, 400 * 500)])
def test_no_more_logits_are_there_at_once_than_a_chunk_has(
    monkeypatch: pytest.MonkeyPatch, chunk: int, wanted: int
) -> None:
    embedding, states, targets, weights = given_rows(400, 500, 0)
    monkeypatch.setattr(sizes, "LOGITS", {"cpu": 4 * 500 * chunk})
    with Largest() as largest:
        ChunkedCrossEntropy(embedding)(states, targets, weights).backward()
    assert largest.elements == wanted
