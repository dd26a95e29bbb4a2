"""The training forward is the function of the `transformers` network.

Tolerance in fp32: 1e-5 of the norm of what is compared. The two sum in different orders, which was seen to make a
difference of about 1e-7 to 1e-6.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXForCausalLM

from ktrain.forward import Loss, hidden

RELATIVE = 1e-5
Make = Callable[..., GPTNeoXForCausalLM]
Batch = Callable[..., tuple[Tensor, Tensor]]


def off(found: Tensor, wanted: Tensor) -> float:
    """Distance relative to what is wanted."""
    return float(((found - wanted).norm() / wanted.norm()).detach())


def gradients(network: GPTNeoXForCausalLM, loss: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    loss.backward()
    # A copy: the next call overwrites them.
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], relative: float = RELATIVE) -> None:
    assert found.keys() == wanted.keys()
    # The key bias moves all scores of a query alike, so its true gradient is zero and both sides hold rounding only.
    scale = max(float(g.norm()) for g in wanted.values())
    for name, gradient in wanted.items():
        distance = float((found[name] - gradient).norm())
        assert distance <= relative * max(float(gradient.norm()), 1e-2 * scale), name


@pytest.mark.parametrize("spread", [None, 0.2], ids=["as built", "spread"])
def test_loss_and_gradients_are_those_of_transformers(small: Make, random_batch: Batch, spread: float | None) -> None:
    network = small(spread=spread)
    ids, weights = random_batch(0, rows=3, width=24)
    ours = Loss(network)(ids, weights)
    theirs = network(input_ids=ids, labels=ids, use_cache=False).loss
    assert off(ours, theirs) <= RELATIVE
    assert_close(gradients(network, ours), gradients(network, theirs))


def test_hidden_is_the_state_after_the_final_norm(small: Make, random_batch: Batch) -> None:
    network = small(spread=0.2)
    ids, _ = random_batch(0, rows=2)
    wanted = network.gpt_neox(input_ids=ids, use_cache=False).last_hidden_state
    assert off(hidden(network, ids), wanted) <= RELATIVE


def test_dropout_falls_where_that_of_transformers_falls(small: Make, random_batch: Batch) -> None:
    """Its eager attention draws in the same order, so from one seed both drop the same elements."""
    network = small(dropout=0.3, spread=0.2)
    network.set_attn_implementation("eager")
    network.train()
    ids, weights = random_batch(0, rows=3)
    torch.manual_seed(7)
    ours = Loss(network)(ids, weights)
    torch.manual_seed(7)
    theirs = network(input_ids=ids, labels=ids, use_cache=False).loss
    torch.manual_seed(8)
    other = Loss(network)(ids, weights)
    assert off(ours, theirs) <= RELATIVE
    assert_close(gradients(network, ours), gradients(network, theirs))
    assert off(other, theirs) > 100 * RELATIVE


def test_no_dropout_outside_of_training(small: Make, random_batch: Batch) -> None:
    network = small(dropout=0.3, spread=0.2).eval()
    ids, weights = random_batch(0)
    assert off(Loss(network)(ids, weights), network(input_ids=ids, labels=ids, use_cache=False).loss) <= RELATIVE


def test_a_weight_is_that_of_its_token_as_a_target(small: Make, random_batch: Batch) -> None:
    network = small(spread=0.2)
    ids, _ = random_batch(0, rows=3)
    weights = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0))
    weights[torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = 0.0
    likely = torch.log_softmax(network(input_ids=ids, use_cache=False).logits, dim=-1)
    wanted = torch.zeros(())
    for row in range(ids.shape[0]):
        for place in range(1, ids.shape[1]):
            wanted = wanted - weights[row, place] * likely[row, place - 1, ids[row, place]]
    assert off(Loss(network)(ids, weights), wanted) <= RELATIVE


def test_what_weighs_nothing_changes_nothing(small: Make, random_batch: Batch) -> None:
    """A target of weight 0 at the end of a row, and the weight of column 0, which has nothing before it."""
    loss = Loss(small(spread=0.2))
    ids, weights = random_batch(0)
    weights[:, -5:] = 0.0
    padded, first = ids.clone(), weights.clone()
    padded[:, -5:] = 3
    first[:, 0] = 1e6
    before = loss(ids, weights)
    assert torch.equal(loss(padded, weights), before)
    assert torch.equal(loss(ids, first), before)
    assert loss(ids, torch.zeros_like(weights)) == 0


def test_compiled_is_the_same_function(small: Make, random_batch: Batch) -> None:
    network = small(spread=0.2, layers=1)
    ids, weights = random_batch(0)
    plain = Loss(network)
    wanted, found = plain(ids, weights), torch.compile(plain)(ids, weights)
    assert off(found, wanted) <= RELATIVE
    assert_close(gradients(network, found), gradients(network, wanted))
