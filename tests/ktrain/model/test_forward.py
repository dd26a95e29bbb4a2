"""The training forward is the function of the `transformers` network.

Tolerance in fp32: 1e-5 of the norm of what is compared. The two sum in different orders, which was seen to make a
difference of about 1e-7 to 1e-6.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPTNeoXForCausalLM

from ktrain.model.forward import LanguageModelLoss, bidirectional, hidden_states
from ktrain.model.hashed_dropout import dropout_seeds, hashed_dropout
from ktrain.model.lora import Adapters, AdapterSpec

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
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_loss_and_gradients_are_those_of_transformers(
    small: Make, random_batch: Batch, family: str, spread: float | None
) -> None:
    network = small(spread=spread, family=family)
    ids, weights = random_batch(0, rows=3, width=24)
    ours = LanguageModelLoss(network)(ids, weights)
    theirs = network(input_ids=ids, labels=ids, use_cache=False).loss
    assert off(ours, theirs) <= RELATIVE
    assert_close(gradients(network, ours), gradients(network, theirs))


def body(network: GPTNeoXForCausalLM) -> torch.nn.Module:
    """The network without its head."""
    return network.model if hasattr(network, "model") else network.gpt_neox


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_hidden_is_the_state_after_the_final_norm(small: Make, random_batch: Batch, family: str) -> None:
    network = small(spread=0.2, family=family)
    ids, _ = random_batch(0, rows=2)
    wanted = body(network)(input_ids=ids, use_cache=False).last_hidden_state
    assert off(hidden_states(network, ids), wanted) <= RELATIVE
    places = torch.tensor([[3, 31, 0], [7, 7, 30]])
    assert (
        off(hidden_states(network, ids, places=places), wanted.gather(1, places[..., None].expand(-1, -1, 32)))
        <= RELATIVE
    )


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_which_tokens_a_token_sees(small: Make, random_batch: Batch, family: str) -> None:
    """As in `transformers`' own forward, place by place: those before it, or all of them."""
    network = small(spread=0.2, family=family)
    assert bidirectional(network) == (family == "gbert")
    ids, _ = random_batch(0, rows=1, width=8)
    with torch.no_grad():
        forwards = (
            lambda x: hidden_states(network, x),
            lambda x: body(network)(input_ids=x, use_cache=False).last_hidden_state,
        )
        for forward in forwards:
            before = forward(ids)
            seen = torch.zeros(8, 8, dtype=torch.bool)
            for place in range(8):
                other = ids.clone()
                other[0, place] = (ids[0, place] + 1) % 97
                seen[:, place] = (forward(other) - before)[0].abs().amax(dim=-1) > 1e-5
            wanted = torch.ones(8, 8, dtype=torch.bool)
            assert torch.equal(seen, wanted if family == "gbert" else wanted.tril())


def test_padding_is_not_read_by_a_network_that_sees_what_comes_after(small: Make, random_batch: Batch) -> None:
    """Rows of several lengths: each is what it is alone, with adapters and at places too."""
    network = small(spread=0.2, family="gbert")
    ids, _ = random_batch(0, rows=3, width=20)
    lengths = [20, 13, 5]
    padded = torch.where(torch.arange(20) < torch.tensor(lengths)[:, None], ids, network.config.pad_token_id)
    adapters = Adapters(network, [AdapterSpec("a", 0, 4, 2)], 0.5, 0.0)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(0))
        theirs = body(network)(
            input_ids=padded, attention_mask=padded != network.config.pad_token_id, use_cache=False
        ).last_hidden_state
        for row, length in enumerate(lengths):
            alone = ids[row : row + 1, :length]
            for adapter in (None, adapters):
                wanted = hidden_states(network, alone, adapter)
                assert off(hidden_states(network, padded, adapter)[row, :length], wanted[0]) <= RELATIVE
                places = torch.tensor([[0, length - 1]] * 3)
                assert off(hidden_states(network, padded, adapter, places)[row], wanted[0, [0, length - 1]]) <= RELATIVE
            assert off(theirs[row, :length], hidden_states(network, alone)[0]) <= RELATIVE


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_an_adapter_drops_out_where_its_network_does(small: Make, random_batch: Batch, family: str) -> None:
    """Llama has dropout on attention weights alone."""
    network, asked = small(spread=0.2, family=family).eval(), list[int]()

    class Spy(Adapters):
        def drop(self, state: Tensor, site: int) -> Tensor:
            asked.append(site)
            return super().drop(state, site)

    spy = Spy(network, [AdapterSpec("a", 0, 4, 2)], 0.5, 0.3).train()
    spy.at(dropout_seeds([(0, "a")], 0))
    ids, _ = random_batch(0, rows=2)
    said = hidden_states(network, ids, spy)
    assert sorted(asked) == ([1, 4] if family == "llama" else list(range(7)))
    assert off(said, hidden_states(network, ids, spy.eval())) > 100 * RELATIVE


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_the_kernels_of_a_gpu_are_given_the_same_mask(
    small: Make, random_batch: Batch, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a query is on a GPU, torch's own attention takes the place of plain products."""
    network = small(spread=0.2, family=family).eval()
    ids, _ = random_batch(0, rows=2, width=12)
    places = torch.tensor([[3, 11], [0, 7]])
    if family == "gbert":
        ids[1, 9:] = network.config.pad_token_id
    with torch.no_grad():
        wanted, at = hidden_states(network, ids), hidden_states(network, ids, places=places)
        monkeypatch.setattr(torch.Tensor, "is_cuda", True)
        assert off(hidden_states(network, ids), wanted) <= RELATIVE
        assert off(hidden_states(network, ids, places=places), at) <= RELATIVE


def test_dropout_falls_where_that_of_transformers_falls(small: Make, random_batch: Batch) -> None:
    """Its eager attention draws in the same order, so from one seed both drop the same elements."""
    network = small(dropout=0.3, spread=0.2)
    network.set_attn_implementation("eager")
    network.train()
    ids, _ = random_batch(0, rows=3)

    def loss(seed: int) -> Tensor:
        torch.manual_seed(seed)
        logits = network.get_output_embeddings()(hidden_states(network, ids)[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    ours, other = loss(7), loss(8)
    torch.manual_seed(7)
    theirs = network(input_ids=ids, labels=ids, use_cache=False).loss
    assert off(ours, theirs) <= RELATIVE
    assert_close(gradients(network, ours), gradients(network, theirs))
    assert off(other, theirs) > 100 * RELATIVE


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_training_on_a_cpu_drops_by_hash_at_the_same_places(
    small: Make, random_batch: Batch, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small(dropout=0.3, spread=0.2, family=family).train()
    sites = list[int]()

    def counted(state: Tensor, seeds: Tensor, site: int, rate: float) -> Tensor:
        sites.append(site)
        assert rate == 0.3
        return hashed_dropout(state, seeds, site, rate)

    monkeypatch.setattr("ktrain.model.network_dropout.hashed_dropout", counted)
    ids, weights = random_batch(0, rows=3)
    loss = LanguageModelLoss(network)

    def at(seed: int) -> Tensor:
        torch.manual_seed(seed)
        said: Tensor = loss(ids, weights)
        return said

    first = at(7)
    assert sorted(sites) == ([1, 4] if family == "llama" else list(range(7)))
    assert torch.equal(first, at(7)) and off(first, at(8)) > 10 * RELATIVE
    # No draw but that of the masks' seeds.
    torch.manual_seed(7)
    torch.randint(2**31, (1, 2), dtype=torch.int32)
    drawn = torch.rand(())
    at(7)
    assert torch.equal(torch.rand(()), drawn)
    assert off(first, loss.eval()(ids, weights)) > 10 * RELATIVE


def test_no_dropout_outside_of_training(small: Make, random_batch: Batch) -> None:
    network = small(dropout=0.3, spread=0.2).eval()
    ids, weights = random_batch(0)
    assert (
        off(LanguageModelLoss(network)(ids, weights), network(input_ids=ids, labels=ids, use_cache=False).loss)
        <= RELATIVE
    )


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
    assert off(LanguageModelLoss(network)(ids, weights), wanted) <= RELATIVE


def test_what_weighs_nothing_changes_nothing(small: Make, random_batch: Batch) -> None:
    """A target of weight 0 at the end of a row, and the weight of column 0, which has nothing before it."""
    loss = LanguageModelLoss(small(spread=0.2))
    ids, weights = random_batch(0)
    weights[:, -5:] = 0.0
    padded, first = ids.clone(), weights.clone()
    padded[:, -5:] = 3
    first[:, 0] = 1e6
    before = loss(ids, weights)
    assert torch.equal(loss(padded, weights), before)
    assert torch.equal(loss(ids, first), before)
    assert loss(ids, torch.zeros_like(weights)) == 0


def test_compiled_is_the_same_function_in_one_graph(small: Make, random_batch: Batch) -> None:
    """As the compiler traces and differentiates it; the kernels that it makes of that are in `test_numerics`."""
    network = small(spread=0.2, layers=1)
    ids, weights = random_batch(0)
    plain = LanguageModelLoss(network)
    wanted = plain(ids, weights)
    found = torch.compile(plain, backend="aot_eager", fullgraph=True)(ids, weights)
    assert off(found, wanted) <= RELATIVE
    assert_close(gradients(network, found), gradients(network, wanted))
