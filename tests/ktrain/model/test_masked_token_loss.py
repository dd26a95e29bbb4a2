"""The loss of filling in and its gradients are those of the slow way, and only chosen tokens weigh."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPTNeoXForCausalLM

from ktrain.data.masking import evenly_weighted, target_places
from ktrain.model.masked_token_loss import MaskedTokenLoss

Make = Callable[..., GPTNeoXForCausalLM]
RELATIVE = 1e-5


@pytest.mark.parametrize("spread", [None, 0.2], ids=["as built", "spread"])
def test_the_loss_of_filling_in_and_its_gradients_are_those_of_the_slow_way(small: Make, spread: float | None) -> None:
    """`transformers`' own forward, and the weighted mean of log-probabilities one by one."""
    network = small(family="gbert", spread=spread)
    drawn = torch.Generator().manual_seed(0)
    ids, truth = (torch.randint(0, 97, (3, 20), generator=drawn) for _ in range(2))
    chosen = torch.rand(3, 20, generator=drawn) < 0.3
    ids[chosen] = network.config.mask_token_id
    weights = evenly_weighted(chosen.numpy(), 1)
    wanted = torch.zeros(())
    likely = torch.log_softmax(network(input_ids=ids, use_cache=False).logits, dim=-1)
    for row, place in chosen.nonzero().tolist():
        wanted = wanted - likely[row, place, truth[row, place]] / chosen.sum()
    found = MaskedTokenLoss(network)(ids, truth, weights)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=RELATIVE)
    mine, theirs = (_gradients(network, loss) for loss in (found, wanted))
    scale = max(float(g.norm()) for g in theirs.values())
    assert mine.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert float((mine[name] - gradient).norm()) <= RELATIVE * max(float(gradient.norm()), 1e-2 * scale), name


def test_the_loss_at_the_places_of_the_targets_is_that_of_all_tokens(small: Make) -> None:
    network = small(family="gbert", spread=0.2)
    drawn = torch.Generator().manual_seed(0)
    ids, truth = (torch.randint(0, 97, (4, 24), generator=drawn) for _ in range(2))
    chosen = torch.rand(4, 24, generator=drawn) < 0.15
    ids[chosen] = network.config.mask_token_id
    weights = evenly_weighted(chosen.numpy(), 1)
    places = torch.from_numpy(target_places(chosen.numpy(), 0.45))
    assert places.shape == (4, 11)
    filling = MaskedTokenLoss(network)
    everywhere = filling(ids, truth, weights)
    there = filling(ids, truth.gather(1, places), weights.gather(1, places), places)
    assert float(there.detach()) == pytest.approx(float(everywhere.detach()), rel=RELATIVE)
    mine, theirs = (_gradients(network, loss) for loss in (there, everywhere))
    for name, gradient in theirs.items():
        assert float((mine[name] - gradient).norm()) <= RELATIVE * max(float(gradient.norm()), 1e-2), name


def _gradients(network: GPTNeoXForCausalLM, loss: Tensor) -> dict[str, Tensor]:
    network.zero_grad()
    loss.backward(retain_graph=True)
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def test_what_is_not_chosen_weighs_nothing(small: Make) -> None:
    network = small(family="gbert", spread=0.2)
    ids = torch.randint(0, 97, (2, 12), generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(2, 12)
    weights[0, 3] = 1.0
    other = ids.clone()
    other[1, 5] = (ids[1, 5] + 1) % 97
    filling = MaskedTokenLoss(network)
    assert torch.equal(filling(ids, ids, weights), filling(ids, other, weights))
    assert not torch.equal(filling(ids, ids, weights), filling(ids, (ids + 1) % 97, weights))
    expected = F.cross_entropy(network(input_ids=ids, use_cache=False).logits[0, 3], ids[0, 3])
    assert float(filling(ids, ids, weights).detach()) == pytest.approx(float(expected.detach()), rel=RELATIVE)
