"""LoRA: nothing at first, low-rank updates of query, value and input embedding after, and a plain network once merged.

Tolerance of merged against adapted logits: 1e-5 of their norm, because W x + s B A x and (W + s B A) x do not round
alike.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXForCausalLM

from ktrain import lora
from ktrain.config import Readout, Train
from ktrain.engine import Engine
from ktrain.forward import Loss

RELATIVE = 1e-5
HEADS, HEAD, LAYERS, WIDTH = 2, 16, 2, 32
PACKED = [f"gpt_neox.layers.{layer}.attention.query_key_value" for layer in range(LAYERS)]
Make = Callable[..., GPTNeoXForCausalLM]
Batch = Callable[..., tuple[Tensor, Tensor]]


def readout(rank_qv: int = 4, rank_embedding: int = 6, scale: float = 0.7) -> Readout:
    return Readout(rank_qv=rank_qv, rank_embedding=rank_embedding, lora_scale=scale)


@torch.no_grad()
def logits(network: GPTNeoXForCausalLM, ids: Tensor) -> Tensor:
    return network.eval()(input_ids=ids, use_cache=False).logits


def off(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted).norm() / wanted.norm()).detach())


def trained(small: Make, random_batch: Batch, asked: Readout, zero: int = 0) -> GPTNeoXForCausalLM:
    """Adapters after some steps that move them a lot."""
    network = small(spread=0.2)
    lora.attach(network, asked, seed=3)
    setting = Train(batch=4, context=32, steps=8, warmup=0, precision="fp32", zero=zero)
    engine = Engine(Loss(network).train(), setting, 4, compile=False)
    for step in range(8):
        engine.step(*random_batch(step), learning_rate=0.05)
    state = engine.state()
    engine.close()
    network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if "/" not in k}, strict=False)
    return network


def test_adapters_change_nothing_at_first(small: Make, random_batch: Batch) -> None:
    network, (ids, weights) = small(spread=0.2), random_batch(0)
    before, loss = logits(network, ids), Loss(network)(ids, weights)
    lora.attach(network, readout(), seed=3)
    assert torch.equal(logits(network, ids), before)
    assert torch.equal(Loss(network)(ids, weights), loss)


def test_only_adapters_have_gradients(small: Make, random_batch: Batch) -> None:
    network = small(spread=0.2)
    lora.attach(network, readout(), seed=3)
    with torch.no_grad():
        for tensor in lora.adapters(network).values():
            tensor.add_(0.1)
    Loss(network)(*random_batch(0)).backward()
    learned = {name for name, p in network.named_parameters() if p.grad is not None}
    assert learned == set(lora.adapters(network))
    assert all(p.grad.any() for p in network.parameters() if p.grad is not None)


def test_adapters_are_named_after_what_they_adapt(small: Make) -> None:
    network = small()
    lora.attach(network, readout(rank_qv=4, rank_embedding=6), seed=3)
    wanted = {"gpt_neox.embed_in.a": (97, 6), "gpt_neox.embed_in.b": (6, WIDTH)}
    for packed in PACKED:
        wanted |= {f"{packed}.a": (2, 4, WIDTH), f"{packed}.b": (2, WIDTH, 4)}
    found = lora.adapters(network)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == wanted
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize(("rank_qv", "rank_embedding"), [(4, 0), (0, 6)])
def test_a_rank_of_zero_leaves_its_part_frozen(
    small: Make, random_batch: Batch, rank_qv: int, rank_embedding: int
) -> None:
    network = small(spread=0.2)
    lora.attach(network, readout(rank_qv, rank_embedding), seed=3)
    found = set(lora.adapters(network))
    assert any("query_key_value" in name for name in found) == bool(rank_qv)
    assert any("embed_in" in name for name in found) == bool(rank_embedding)
    assert len(found) == 2 * bool(rank_embedding) + 2 * LAYERS * bool(rank_qv)
    ids, _ = random_batch(0)
    assert torch.equal(logits(lora.merge(network), ids), logits(network, ids))


@pytest.mark.parametrize("zero", [0, 2])
@pytest.mark.parametrize(("rank_qv", "rank_embedding"), [(4, 6), (4, 0), (0, 6)])
def test_merged_is_adapted(small: Make, random_batch: Batch, rank_qv: int, rank_embedding: int, zero: int) -> None:
    network = trained(small, random_batch, readout(rank_qv, rank_embedding), zero)
    ids, _ = random_batch(99)
    adapted = logits(network, ids)
    assert off(logits(small(spread=0.2), ids), adapted) > 1000 * RELATIVE
    merged = lora.merge(network)
    assert off(logits(merged, ids), adapted) <= RELATIVE
    assert type(merged) is GPTNeoXForCausalLM
    assert {type(m) for m in merged.modules()}.isdisjoint({lora.LowRankEmbedding, lora.LowRankQueryValue})


def test_an_update_is_the_product_of_its_factors_times_the_scale(small: Make, random_batch: Batch) -> None:
    """By hand, row by row: NeoX's packed rows are, head by head, query, key, value."""
    network = trained(small, random_batch, readout(scale=0.7))
    found, factors = dict(lora.merge(network).named_parameters()), lora.adapters(network)
    before = dict(small(spread=0.2).named_parameters())
    for packed in PACKED:
        a, b = factors[f"{packed}.a"], factors[f"{packed}.b"]
        update = found[f"{packed}.weight"] - before[f"{packed}.weight"]
        for head in range(HEADS):
            for part, row in ((0, 0), (2, 1)):
                begin = (3 * head + part) * HEAD
                wanted = 0.7 * b[row][head * HEAD : (head + 1) * HEAD] @ a[row]
                assert off(update[begin : begin + HEAD], wanted) <= 1e-4, (packed, head, part)
            key = slice((3 * head + 1) * HEAD, (3 * head + 2) * HEAD)
            assert not update[key].any(), "the key is not adapted"
        assert torch.equal(found[f"{packed}.bias"], before[f"{packed}.bias"])
    embedding = found["gpt_neox.embed_in.weight"] - before["gpt_neox.embed_in.weight"]
    assert off(embedding, 0.7 * factors["gpt_neox.embed_in.a"] @ factors["gpt_neox.embed_in.b"]) <= 1e-4


def test_everything_else_is_as_it_was(small: Make, random_batch: Batch) -> None:
    merged, before = lora.merge(trained(small, random_batch, readout())), small(spread=0.2)
    adapted = {f"{name}.weight" for name in (*PACKED, "gpt_neox.embed_in")}
    found, wanted = merged.state_dict(), before.state_dict()
    assert found.keys() == wanted.keys()
    assert {name for name, tensor in wanted.items() if not torch.equal(found[name], tensor)} == adapted


def test_only_the_input_embedding_is_updated(small: Make, random_batch: Batch) -> None:
    """Input and output were one matrix before."""
    merged, before = lora.merge(trained(small, random_batch, readout())), small(spread=0.2)
    tied = before.get_input_embeddings().weight
    assert tied is before.get_output_embeddings().weight
    assert torch.equal(merged.get_output_embeddings().weight, tied)
    assert off(merged.get_input_embeddings().weight, tied) > 0.01
    assert not merged.config.tie_word_embeddings


def test_a_merged_network_is_saved_and_loaded_as_it_is(small: Make, random_batch: Batch, tmp_path: Path) -> None:
    merged = lora.merge(trained(small, random_batch, readout()))
    merged.save_pretrained(tmp_path)
    loaded = GPTNeoXForCausalLM.from_pretrained(tmp_path)
    ids, _ = random_batch(99)
    assert torch.equal(logits(loaded, ids), logits(merged, ids))
    assert loaded.get_input_embeddings().weight is not loaded.get_output_embeddings().weight


def test_adapters_are_drawn_from_the_seed_alone(small: Make) -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        network = small()
        lora.attach(network, readout(), seed)
        return lora.adapters(network)

    torch.manual_seed(1)
    first, state = drawn(3), torch.get_rng_state()
    torch.manual_seed(2)
    again, other = drawn(3), drawn(4)
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())
    assert not torch.equal(other["gpt_neox.embed_in.b"], first["gpt_neox.embed_in.b"])
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "the generator that dropout draws from is not touched"
    assert not first["gpt_neox.embed_in.a"].any()
    assert not any(first[f"{packed}.b"].any() for packed in PACKED)
