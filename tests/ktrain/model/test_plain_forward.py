"""Networks of `transformers` that the fast forward is not written for: their losses, and adapters of any module.

Tolerance of merged against adapted logits: 1e-5 of their norm, as in `test_lora`.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hf_files
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, MptConfig, MptForCausalLM, Phi3Config, Phi3ForCausalLM

from ktrain.config import ModelConfig
from ktrain.errors import WrongRequest
from ktrain.model import networks
from ktrain.model.forward import hidden_states
from ktrain.model.heads import Classifier, LanguageHead
from ktrain.model.lora import Adapters, AdapterSpec, merged
from ktrain.model.module_lora import ModuleAdapters, adapters_of
from ktrain.model.network_parts import has_fast_forward
from ktrain.model.objectives import next_token_loss
from ktrain.model.plain_forward import PlainLanguageModelLoss
from ktrain.model.query_value import FUSED, WHOLE, updated_outputs
from ktrain.model.stacked_lora import StackedAdapters

RELATIVE = 1e-5
VOCABULARY, SCALE = 97, 0.7
ARCHITECTURES = tuple(hf_files.FILES)
MEMBERS = [AdapterSpec("a", 3, 6, 4), AdapterSpec("b", 3, 0, 2), AdapterSpec("c", 4, 9, 0)]
WHOLE_TABLE = [AdapterSpec("d", 3, "full", 4), AdapterSpec("e", 3, "full", 0)]
Batch = Callable[..., tuple[Tensor, Tensor]]


def built(architecture: str, seed: int = 0) -> Any:
    """One of the files as a network whose weights are far enough from zero that every term counts."""
    setting = ModelConfig.model_validate(hf_files.model(architecture))
    network = networks.build_network(setting, VOCABULARY, 32, 0, seed)
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2, generator=drawn)
    return network.eval()


def off(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted).norm() / wanted.norm()).detach())


@torch.no_grad()
def moved(network: Any, members: list[AdapterSpec], modules: str | None) -> ModuleAdapters:
    """Adapters as if trained: every factor is random at its member's own rank."""
    adapters = ModuleAdapters(network, members, SCALE, 0.0, None, modules).eval()
    source = torch.Generator().manual_seed(5)
    for k, member in enumerate(members):
        rank = 0 if member.rank_embedding == "full" else member.rank_embedding
        if adapters.table is not None:
            adapters.table[k].normal_(0.0, 0.3, generator=source)
        if adapters.embedding_a is not None and adapters.embedding_b is not None:
            adapters.embedding_a[k][:, :rank].normal_(0.0, 0.3, generator=source)
            adapters.embedding_b[k][:rank].normal_(0.0, 0.3, generator=source)
        for a, b in zip(adapters.module_a, adapters.module_b, strict=True):
            a[k][: member.rank_qv].normal_(0.0, 0.3, generator=source)
            b[k][:, : member.rank_qv].normal_(0.0, 0.3, generator=source)
    return adapters


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_is_that_of_the_networks_own_logits_with_what_uneven_routing_costs(
    architecture: str, random_batch: Batch
) -> None:
    network = built(architecture)
    assert not has_fast_forward(network) and type(next_token_loss(network)) is PlainLanguageModelLoss
    ids, _ = random_batch(0, rows=3, width=12)
    weights = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network(ids).logits
        wanted = torch.zeros(())
        for row in range(3):
            for place in range(1, 12):
                wanted += weights[row, place] * F.cross_entropy(logits[row, place - 1], ids[row, place])
        if architecture == "mixtral":
            routed = network(ids, labels=ids, output_router_logits=True)
            cost = routed.loss - F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            assert float(cost) == pytest.approx(0.02 * float(routed.aux_loss), rel=1e-3) and cost > 0
            wanted += cost
        assert off(next_token_loss(network)(ids, weights), wanted) <= RELATIVE


def test_eos_is_trained_although_it_pads(random_batch: Batch) -> None:
    """Also in a network that was loaded, whose embedding is told that EOS is padding."""
    network = built("qwen3")
    assert network.get_input_embeddings().weight[0].any() and network.config.pad_token_id == 0
    network.get_input_embeddings().padding_idx = 0
    ids, weights = random_batch(0)
    ids[:, 3] = 0
    next_token_loss(network)(ids, weights).backward()
    assert network.get_input_embeddings().weight.grad[0].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("members", [MEMBERS, WHOLE_TABLE], ids=["low rank", "whole embedding"])
def test_merged_is_adapted(architecture: str, members: list[AdapterSpec], random_batch: Batch) -> None:
    """Logits at places, and the states that a probe reads, against a plain network with the update in its weights."""
    network = built(architecture)
    adapters = moved(network, members, hf_files.MODULES.get(architecture))
    ids, _ = random_batch(9, rows=3, width=20)
    places, count = torch.tensor([[3, 19, 0], [7, 7, 18], [1, 2, 3]]), len(members)
    stacked = StackedAdapters(network, adapters, LanguageHead(network)).train()
    probe = Classifier(members, [5] * count, 32, batch_norm=False)
    probing = StackedAdapters(network, adapters, probe).eval()
    with torch.no_grad():
        logits = stacked.logits(ids.expand(count, -1, -1), places.expand(count, -1, -1))
        classes = probing.logits(ids.expand(count, -1, -1), places.expand(count, -1, -1))
        for k in range(count):
            plain = merged(network, adapters, k).eval()
            assert type(plain) is type(network)
            line = torch.arange(3)[:, None]
            assert off(logits[k], plain(ids).logits[line, places]) <= RELATIVE
            assert off(logits[k], network(ids).logits[line, places]) > 1000 * RELATIVE
            states = plain.base_model(ids).last_hidden_state[line, places]
            assert off(classes[k], probe(states.expand(count, -1, -1, -1))[k]) <= RELATIVE


def test_each_factor_has_the_widths_of_its_module() -> None:
    """Qwen3's query is wider than the network, its value narrower."""
    tensors = moved(built("qwen3"), MEMBERS, None).tensors(0)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if "layers.1" in name}
    assert shapes == {
        "model.layers.1.self_attn.q_proj.a": (4, 32), "model.layers.1.self_attn.q_proj.b": (64, 4),
        "model.layers.1.self_attn.v_proj.a": (4, 32), "model.layers.1.self_attn.v_proj.b": (32, 4),
    }  # fmt: skip
    assert {name for name in moved(built("qwen3"), MEMBERS, None).tensors(2)} == {"embedding_a", "embedding_b"}


def test_parts_of_a_fused_projection_are_those_of_the_fast_forward(
    small: Callable[..., Any], random_batch: Batch
) -> None:
    """GPT-2 of the paper, which both can adapt: the same factors give the same states."""
    network, (ids, _) = small(spread=0.2).eval(), random_batch(0, rows=2)
    fast, plain = Adapters(network, MEMBERS[:1], SCALE, 0.0), ModuleAdapters(network, MEMBERS[:1], SCALE, 0.0)
    assert fast.qv_a is not None and fast.qv_b is not None
    assert type(adapters_of(network, MEMBERS, SCALE, 0.0)) is Adapters
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.normal_(0.0, 0.3, generator=source)
        own = dict(plain.named_parameters())
        for name in ("embedding_a", "embedding_b"):
            own[name].copy_(fast.get_parameter(name))
        for k, update in enumerate(plain.updates):
            layer, which = divmod(k, 2)
            assert update.part == ("query", "value")[which] and f"layers.{layer}." in update.module
            plain.module_a[k].copy_(fast.qv_a[:, layer, which])
            plain.module_b[k].copy_(fast.qv_b[:, layer, which])
        everywhere = torch.arange(ids.shape[1]).expand(ids.shape)[None]
        head = LanguageHead(network)
        wanted = head(hidden_states(network, ids, fast))
        assert off(StackedAdapters(network, plain, head).logits(ids[None], everywhere)[0], wanted) <= RELATIVE
        assert off(merged(network, plain, 0)(ids).logits, wanted) <= RELATIVE


@pytest.mark.parametrize(
    "network",
    [
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=97, n_embd=32, n_layer=1, n_head=2, n_positions=64)),
        lambda: MptForCausalLM(MptConfig(vocab_size=97, d_model=32, n_layers=1, n_heads=2, max_seq_len=64)),
        lambda: Phi3ForCausalLM(
            Phi3Config(
                vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
                intermediate_size=48, pad_token_id=0,
            )
        ),
    ],
    ids=["gpt2", "mpt", "phi3"],
)  # fmt: skip
def test_only_query_and_value_of_a_fused_projection_are_updated(
    network: Callable[[], Any], random_batch: Batch
) -> None:
    """Keys and values that a network keeps of a text say which outputs are which."""
    plain = network().eval()
    ids, (query, value) = random_batch(0, rows=1, width=6)[0], updated_outputs(plain, None)
    before = plain(ids, use_cache=True).past_key_values.layers[0]
    for update, moves in ((query, (False, False)), (value, (False, True))):
        adapters = ModuleAdapters(plain, [AdapterSpec("a", 0, 0, 2)], 1.0, 0.0).eval()
        with torch.no_grad():
            index = [u.part for u in adapters.updates].index(update.part)
            adapters.module_b[index].normal_(0.0, 1.0, generator=torch.Generator().manual_seed(0))
            changed = merged(plain, adapters, 0).eval()
            after = changed(ids, use_cache=True).past_key_values.layers[0]
            assert off(changed(ids).logits, plain(ids).logits) > 1e-3
        pairs = (before.keys, after.keys), (before.values, after.values)
        assert tuple(not torch.allclose(old, new, atol=1e-5) for old, new in pairs) == moves
        if moves[1]:
            assert (before.values - after.values).abs().amax(-1).min() > 1e-3, "of every head"


def test_a_named_module_is_updated_whole_and_a_wrong_one_is_noticed() -> None:
    network = built("mamba2")
    (first, second) = updated_outputs(network, "in_proj")
    assert first.rows is None and (first.inputs, first.outputs) == (
        32,
        network.backbone.layers[0].mixer.in_proj.out_features,
    )
    assert first.module == "backbone.layers.0.mixer.in_proj" and second.module == "backbone.layers.1.mixer.in_proj"
    with pytest.raises(WrongRequest, match="of mamba2 compute query and value is not known; name them, as in readout"):
        updated_outputs(network, None)
    with pytest.raises(
        WrongRequest, match="modules=in_porj: no linear module is called in_porj; there are in_proj, out"
    ):
        updated_outputs(network, "in_porj")


def test_a_module_that_is_not_called_and_one_that_does_not_see_all_tokens_are_noticed(random_batch: Batch) -> None:
    """Planted: the update of another module than the network calls, and of one that sees a part of the tokens."""
    ids, _ = random_batch(0, rows=2, width=8)
    network = built("qwen3")
    network.unused = torch.nn.Linear(32, 32)
    network.seldom = torch.nn.Linear(32, 32)
    adapters = moved(network, MEMBERS[:1], "q_proj")
    places = torch.zeros(1, 2, 1, dtype=torch.int64)
    adapters.updates = (replace(adapters.updates[0], module="unused"), *adapters.updates[1:])
    stacked = StackedAdapters(network, adapters, LanguageHead(network))
    with pytest.raises(WrongRequest, match="computes without calling unused"):
        stacked.logits(ids[None], places)
    adapters.updates = (replace(adapters.updates[0], module="seldom"), *adapters.updates[1:])
    network.model.norm.register_forward_hook(lambda module, args, out: network.seldom(out.flatten(0, 1)).view_as(out))
    with pytest.raises(WrongRequest, match="seldom does not see all tokens of all rows"):
        stacked.logits(ids[None], places)


def test_the_names_are_those_of_peft() -> None:
    constants = pytest.importorskip("peft.utils.constants")
    table = constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    ours = {name: [last] for name, (last, _) in FUSED.items()} | {name: list(lasts) for name, lasts in WHOLE.items()}
    shared = ours.keys() & table.keys()
    assert len(shared) >= 7 and {name: ours[name] for name in shared} == {name: table[name] for name in shared}
    for name in ("qwen3", "gemma3_text", "mixtral", "llama", "mistral"):
        assert table[name] == ["q_proj", "v_proj"]


def test_the_fast_forward_is_taken_where_it_is_right_alone() -> None:
    """A Llama of one's own has it; one whose heads share values has not, nor one with rescaled angles."""
    llama = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    stretched = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    odd = ({"num_key_value_heads": 1}, {"rope_parameters": stretched}, {"head_dim": 32})
    for changes, fast in (({}, True), *((change, False) for change in odd)):
        setting = ModelConfig(family="hf", config=json.dumps(llama | {"intermediate_size": 48} | changes))
        network = networks.build_network(setting, VOCABULARY, 32, 0, 0).eval()
        assert has_fast_forward(network) == fast, changes
        if fast:
            ids = torch.arange(24).view(2, 12)
            with torch.no_grad():
                found = hidden_states(network, ids)
                assert off(found, network.base_model(ids).last_hidden_state) <= RELATIVE
