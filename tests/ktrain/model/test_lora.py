"""Adapters: nothing at first, updates of query, value and input embedding after, and a plain network once merged.

Tolerance of merged against adapted states: 1e-5 of their norm, because W x + s B A x and (W + s B A) x do not round
alike.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from ktrain.model.forward import hidden_states
from ktrain.model.lora import Adapters, AdapterSpec, merged

RELATIVE = 1e-5
HEADS, HEAD, LAYERS, WIDTH, SCALE = 2, 16, 2, 32, 0.7
PACKED = [f"gpt_neox.layers.{layer}.attention.query_key_value" for layer in range(LAYERS)]
Make = Callable[..., GPTNeoXForCausalLM]
MEMBERS = [AdapterSpec("a", 3, 6, 4), AdapterSpec("b", 3, 0, 2), AdapterSpec("c", 4, 9, 0)]
WHOLE = [AdapterSpec("d", 3, "full", 4), AdapterSpec("e", 3, "full", 0)]


def off(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted).norm() / wanted.norm()).detach())


@torch.no_grad()
def moved(network: GPTNeoXForCausalLM, members: list[AdapterSpec] = MEMBERS) -> Adapters:
    """Adapters as if trained: every factor is random at its member's own rank."""
    adapters = Adapters(network, members, SCALE, 0.0).eval()
    source = torch.Generator().manual_seed(5)
    for name, parameter in adapters.named_parameters():
        for k, member in enumerate(members):
            rank = 0 if member.rank_embedding == "full" else member.rank_embedding
            cut = {
                "table": (...,),
                "embedding_a": (slice(None), slice(rank)),
                "embedding_b": (slice(rank),),
                "qv_a": (..., slice(member.rank_qv), slice(None)),
                "qv_b": (..., slice(member.rank_qv)),
            }[name]
            parameter[k][cut].normal_(0.0, 0.3, generator=source)
    return adapters


def llama() -> LlamaForCausalLM:
    shape = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(vocab_size=97, max_position_embeddings=32, initializer_range=0.2, **shape))


@pytest.mark.parametrize("members", [MEMBERS, WHOLE], ids=["low rank", "whole embedding"])
def test_adapters_change_nothing_at_first(
    small: Make, random_batch: Callable[..., tuple[Tensor, Tensor]], members: list[AdapterSpec]
) -> None:
    network, (ids, _) = small(spread=0.2), random_batch(0)
    adapters = Adapters(network, members, SCALE, 0.0)
    before = hidden_states(network, ids)
    after = hidden_states(network, ids.repeat(len(members), 1), adapters)
    assert all(torch.allclose(part, before, atol=1e-5) for part in after.unflatten(0, (len(members), -1)))


def test_what_a_member_draws_depends_on_its_seed_and_name_alone(small: Make) -> None:
    network = small()
    first = Adapters(network, MEMBERS, SCALE, 0.0).tensors(0)
    again = Adapters(network, [*MEMBERS[1:], MEMBERS[0]], 0.1, 0.3).tensors(2)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    for other in (AdapterSpec("z", 3, 6, 4), AdapterSpec("a", 9, 6, 4)):
        drawn = Adapters(network, [other], SCALE, 0.0).tensors(0)
        assert not torch.equal(drawn["embedding_b"], first["embedding_b"])
        assert not torch.equal(drawn["qv_a"], first["qv_a"])


def test_tensors_have_the_ranks_of_their_member(small: Make) -> None:
    adapters = moved(small())
    low = {"embedding_a": (97, 6), "embedding_b": (6, WIDTH)}
    query_value = {"qv_a": (LAYERS, 2, 4, WIDTH), "qv_b": (LAYERS, 2, WIDTH, 4)}
    assert {n: tuple(t.shape) for n, t in adapters.tensors(0).items()} == low | query_value
    assert set(adapters.tensors(1)) == {"qv_a", "qv_b"}
    assert set(adapters.tensors(2)) == {"embedding_a", "embedding_b"}
    assert {n: tuple(t.shape) for n, t in moved(small(), WHOLE).tensors(1).items()} == {"table": (97, WIDTH)}
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in adapters.tensors(0).values())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("members", [MEMBERS, WHOLE], ids=["low rank", "whole embedding"])
def test_merged_is_adapted(
    small: Make, random_batch: Callable[..., tuple[Tensor, Tensor]], family: str, members: list[AdapterSpec]
) -> None:
    network = small(spread=0.2) if family == "gpt2" else llama()
    adapters, (ids, _) = moved(network, members), random_batch(99)
    with torch.no_grad():
        adapted = hidden_states(network, ids.repeat(len(members), 1), adapters).unflatten(0, (len(members), -1))
        for k in range(len(members)):
            plain = merged(network, adapters, k).eval()
            assert type(plain) is type(network)
            said = plain(input_ids=ids, use_cache=False).logits
            # The output embedding is that of the network, tied or not.
            assert off(said, network.get_output_embeddings()(adapted[k])) <= RELATIVE
            assert off(said, network.eval()(input_ids=ids, use_cache=False).logits) > 1000 * RELATIVE


def test_an_update_is_the_product_of_its_factors_times_the_scale(small: Make) -> None:
    """By hand, row by row: NeoX's packed rows are, head by head, query, key, value."""
    network = small(spread=0.2)
    adapters = moved(network)
    factors, before = adapters.tensors(0), dict(network.named_parameters())
    found = dict(merged(network, adapters, 0).named_parameters())
    for layer, packed in enumerate(PACKED):
        update = found[f"{packed}.weight"] - before[f"{packed}.weight"]
        for head in range(HEADS):
            for part, row in ((0, 0), (2, 1)):
                begin = (3 * head + part) * HEAD
                b = factors["qv_b"][layer, row][head * HEAD : (head + 1) * HEAD]
                assert off(update[begin : begin + HEAD], SCALE * b @ factors["qv_a"][layer, row]) <= 1e-4
            key = slice((3 * head + 1) * HEAD, (3 * head + 2) * HEAD)
            assert not update[key].any(), "the key is not adapted"
    embedding = found["gpt_neox.embed_in.weight"] - before["gpt_neox.embed_in.weight"]
    assert off(embedding, SCALE * factors["embedding_a"] @ factors["embedding_b"]) <= 1e-4
    adapted = {f"{name}.weight" for name in (*PACKED, "gpt_neox.embed_in")}
    state, wanted = merged(network, adapters, 0).state_dict(), network.state_dict()
    assert {name for name, tensor in wanted.items() if not torch.equal(state[name], tensor)} == adapted
    assert not merged(network, adapters, 0).config.tie_word_embeddings


def test_only_adapters_have_gradients(small: Make, random_batch: Callable[..., tuple[Tensor, Tensor]]) -> None:
    network = small(spread=0.2).requires_grad_(False)
    adapters, (ids, _) = moved(network), random_batch(0)
    hidden_states(network, ids.repeat(3, 1), adapters).square().sum().backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(p.grad is not None and p.grad.any() for p in adapters.parameters())


def test_updates_can_be_confined_to_some_tokens(
    small: Make, random_batch: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    network, (ids, _) = small(spread=0.2).requires_grad_(False), random_batch(0)
    tokens = torch.arange(97) % 3 == 0
    free, confined = moved(network, MEMBERS[:1]), Adapters(network, MEMBERS[:1], SCALE, 0.0, tokens)
    confined.load_state_dict(free.state_dict())
    table = network.get_input_embeddings()
    embedded = confined.embed(table, ids)
    allowed = tokens[ids][..., None]
    assert torch.equal(torch.where(allowed, free.embed(table, ids), table(ids)), embedded)
    embedded.square().sum().backward()
    assert confined.embedding_a.grad[0][tokens][torch.unique(ids[tokens[ids]]) // 3].any()
    assert not confined.embedding_a.grad[0][~tokens].any()
