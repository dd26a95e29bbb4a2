"""A member of a fleet ends where it would have ended alone, and alone it is plain LoRA.

Tolerance: `RELATIVE` of the norm of each tensor after 50 steps in fp32. A batched product sums in another order than a
single one, which was seen to make a difference of 1e-6; a member that saw another's loss, norm or dropout is off by
more than 1e-2.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ktrain.config import ReadoutConfig
from ktrain.model.hashed_dropout import dropout_seeds
from ktrain.model.heads import Classifier, LanguageHead
from ktrain.model.lora import Adapters, AdapterSpec, merged
from ktrain.model.stacked_lora import StackedAdapters
from ktrain.rng import generator
from ktrain.training.deepspeed_engine import Engine

RELATIVE = 1e-4
VOCABULARY, ROWS, LENGTH, PLACES, STEPS = 97, 6, 14, 3, 50
FAMILIES = ("gpt2", "llama")
Build = Callable[[str], nn.Module]

LOW = [AdapterSpec(f"m{k}", 3, e, r) for k, (e, r) in enumerate([(0, 4), (2, 0), (8, 2), (5, 3)])]
WHOLE = [AdapterSpec("w0", 3, "full", 0), AdapterSpec("w1", 3, "full", 4)]
CLASSES = {member.name: 5 + 3 * k for k, member in enumerate([*LOW, *WHOLE])}


@pytest.fixture(scope="session")
def network(small: Callable[..., nn.Module]) -> Build:
    def make(family: str) -> nn.Module:
        if family == "gpt2":
            return small(spread=0.2)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=32, **shape)
        torch.manual_seed(1)
        llama = LlamaForCausalLM(config)
        with torch.no_grad():
            for parameter in llama.parameters():
                parameter.normal_(0.0, 0.2)
        return llama

    return make


def batch(members: Sequence[AdapterSpec], head: str, step: int) -> tuple[Tensor, ...]:
    """A data stream for each member: a pure function of its name and the step."""
    parts = []
    for member in members:
        drawn = generator(0, member.name, step)
        ids = drawn.integers(VOCABULARY, size=(ROWS, LENGTH))
        places = np.sort(drawn.permuted(np.tile(np.arange(LENGTH), (ROWS, 1)), axis=1)[:, :PLACES], axis=1)
        targets = drawn.integers(VOCABULARY if head == "language" else CLASSES[member.name], size=(ROWS, PLACES))
        weights = drawn.random((ROWS, PLACES), dtype=np.float32)
        if head == "batch":
            places, targets, weights = places[:, :1], targets[:, :1], weights[:, :1]
        parts.append((ids, places, targets, weights / weights.sum()))
    streams = [(m.seed, m.name) for m in members]
    return (*(torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True)), dropout_seeds(streams, step))


def fleet(model: nn.Module, members: Sequence[AdapterSpec], head: str, rate: float) -> StackedAdapters:
    adapters = Adapters(model, members, 0.7, rate)
    if head == "language":
        return StackedAdapters(model, adapters, LanguageHead(model)).train()
    sizes = [CLASSES[m.name] for m in members]
    return StackedAdapters(model, adapters, Classifier(members, sizes, 32, batch_norm=head == "batch")).train()


def trained(
    build: Build, family: str, members: Sequence[AdapterSpec], head: str, rate: float = 0.2
) -> tuple[StackedAdapters, Tensor]:
    """The fleet after 50 steps, and the losses of the last one. Clipping bites: gradients are larger than 0.05."""
    whole = fleet(build(family), members, head, rate)
    setting = ReadoutConfig(learning_rate=1e-2, weight_decay=0.1, clip=0.05, precision="fp32", batch=ROWS)
    engine = Engine(whole, setting, ROWS, compile=False, clip=whole.clip)
    for step in range(STEPS):
        losses = engine.step(*batch(members, head, step), learning_rate=1e-2)
    engine.close()
    return whole, losses


def own(whole: StackedAdapters, index: int, member: AdapterSpec) -> dict[str, Tensor]:
    """The member's tensors at its own sizes, its padding left out."""
    tensors = whole.adapters.tensors(index)
    for name, tensor in whole.head.state_dict().items():
        tensors[name] = tensor[index][..., : CLASSES[member.name]] if name in ("weight", "bias") else tensor[index]
    return tensors


@pytest.mark.parametrize("head", ["language", "layer", "batch"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("members", [LOW, WHOLE], ids=["low rank", "whole embedding"])
def test_a_member_ends_where_it_ends_alone(network: Build, family: str, members: list[AdapterSpec], head: str) -> None:
    together, losses = trained(network, family, members, head)
    for k, member in enumerate(members):
        alone, loss = trained(network, family, [member], head)
        assert float(losses[k]) == pytest.approx(float(loss[0]), rel=RELATIVE)
        wanted = own(alone, 0, member)
        found = own(together, k, member)
        assert found.keys() == wanted.keys() and wanted
        for name, tensor in wanted.items():
            assert float((found[name] - tensor).norm()) <= RELATIVE * float(tensor.norm()), (member.name, name)
        before = own(fleet(network(family), [member], head, 0.2), 0, member)
        assert all(float((wanted[name] - before[name]).norm()) > 100 * RELATIVE for name in wanted), "it has learned"


def test_padding_stays_zero(network: Build) -> None:
    whole, _ = trained(network, "gpt2", LOW, "layer")
    adapters = whole.adapters
    for k, member in enumerate(LOW):
        assert not adapters.embedding_a[k][:, member.rank_embedding :].any()
        assert not adapters.embedding_b[k][member.rank_embedding :].any()
        assert not adapters.qv_a[k][:, :, member.rank_qv :].any() and not adapters.qv_b[k][..., member.rank_qv :].any()
        assert not whole.head.weight[k][:, CLASSES[member.name] :].any()


def plain_loss(model: nn.Module, family: str, one: StackedAdapters, rows: tuple[Tensor, ...]) -> Tensor:
    """The slow way, without dropout: `transformers`' own forward over a network whose weights hold the update."""
    ids, places, targets, weights, _ = (t[0] for t in rows)
    a = one.adapters
    weights_now = dict(model.named_parameters())
    table = model.get_input_embeddings().weight + a.embedding_a[0] @ a.embedding_b[0] * 0.7
    name = "gpt_neox.embed_in.weight" if family == "gpt2" else "model.embed_tokens.weight"
    changed = {**weights_now, name: table}
    for layer in range(2):
        query, value = a.qv_b[0, layer] @ a.qv_a[0, layer] * 0.7
        if family == "gpt2":
            key = f"gpt_neox.layers.{layer}.attention.query_key_value.weight"
            parts = weights_now[key].view(2, 3, 16, 32)
            parts = torch.stack(
                [parts[:, 0] + query.view(2, 16, 32), parts[:, 1], parts[:, 2] + value.view(2, 16, 32)], 1
            )
            changed[key] = parts.reshape(96, 32)
        else:
            for letter, update in (("q", query), ("v", value)):
                key = f"model.layers.{layer}.self_attn.{letter}_proj.weight"
                changed[key] = weights_now[key] + update
    # The output embedding stays as it was, although it is tied to the one that is replaced.
    body = model.gpt_neox if family == "gpt2" else model.model
    inner = {k.split(".", 1)[1]: v for k, v in changed.items() if k.startswith(("gpt_neox.", "model."))}
    state = torch.func.functional_call(body, inner, kwargs={"input_ids": ids, "use_cache": False}).last_hidden_state
    state = state.gather(1, places[:, :, None].expand(-1, -1, 32))
    logits = one.head(state[None])[0]
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum()


@pytest.mark.parametrize("head", ["language", "layer", "batch"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_of_one_member_are_those_of_the_slow_way(network: Build, family: str, head: str) -> None:
    model = network(family)
    one = fleet(model, [LOW[2]], head, 0.0)
    with torch.no_grad():
        for parameter in one.adapters.parameters():
            parameter.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(5))
    rows = batch([LOW[2]], head, 0)
    learned = [p for p in one.parameters() if p.requires_grad]
    ours = one(*rows).sum()
    wanted = plain_loss(model, family, one, rows)
    assert ours.item() == pytest.approx(float(wanted), rel=1e-5)
    for mine, theirs in zip(torch.autograd.grad(ours, learned), torch.autograd.grad(wanted, learned), strict=True):
        assert float((mine - theirs).norm()) <= 1e-4 * float(theirs.norm())


def test_llama_trains_like_peft(network: Build) -> None:
    """Same weights, data and steps: the losses of 50 steps and the merged weights agree."""
    peft = pytest.importorskip("peft")
    member = AdapterSpec("peft", 3, 8, 4)
    ours, theirs = fleet(network("llama"), [member], "language", 0.0), network("llama")
    config = peft.LoraConfig(
        r=4,
        lora_alpha=0.7 * 4,
        target_modules=["q_proj", "v_proj", "embed_tokens"],
        rank_pattern={"embed_tokens": 8},
        alpha_pattern={"embed_tokens": 0.7 * 8},
    )
    tuned = peft.get_peft_model(theirs, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "embed_tokens" in name and "lora_embedding" in name:
                source = ours.adapters.embedding_a if "_A" in name else ours.adapters.embedding_b
                parameter.copy_(source[0].T)
            elif "lora_" in name:
                layer, which = int(name.split("layers.")[1][0]), 0 if "q_proj" in name else 1
                parameter.copy_((ours.adapters.qv_a if "lora_A" in name else ours.adapters.qv_b)[0, layer, which])
    setting = ReadoutConfig(learning_rate=1e-2, weight_decay=0.1, clip=0.05, precision="fp32", batch=ROWS)
    engine = Engine(ours, setting, ROWS, compile=False, clip=ours.clip)
    learned = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-2, weight_decay=0.1, eps=1e-6)
    for step in range(STEPS):
        rows = batch([member], "language", step)
        ids, places, targets, weights, _ = (t[0] for t in rows)
        logits = tuned(input_ids=ids, use_cache=False).logits
        logits = logits.gather(1, places[:, :, None].expand(-1, -1, VOCABULARY))
        loss = (F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none") * weights.flatten()).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 0.05)
        optimizer.step()
        optimizer.zero_grad()
        assert float(engine.step(*rows, learning_rate=1e-2)[0]) == pytest.approx(float(loss.detach()), rel=RELATIVE)
    engine.close()
    wanted = tuned.merge_and_unload().state_dict()
    found = merged(ours.network, ours.adapters, 0).state_dict()
    moved = [name for name in wanted if not torch.equal(wanted[name], network("llama").state_dict()[name])]
    assert len(moved) == 5
    for name, tensor in wanted.items():
        assert float((found[name] - tensor).norm()) <= RELATIVE * float(tensor.norm()), name


def test_a_member_that_diverges_leaves_the_others_alone(network: Build) -> None:
    members = LOW[:3]
    whole = fleet(network("gpt2"), members, "layer", 0.0)
    with torch.no_grad():
        whole.head.weight[1] = math.nan
    whole(*batch(members, "layer", 0)).sum().backward()
    whole.clip(0.05)
    for parameter in filter(lambda p: p.grad is not None, whole.parameters()):
        assert torch.isfinite(parameter.grad[[0, 2]]).all()


def test_places_read_nothing_that_comes_after_them(network: Build) -> None:
    for family in FAMILIES:
        one = fleet(network(family), [LOW[2]], "layer", 0.0).eval()
        ids, places, *_ = batch([LOW[2]], "layer", 0)
        after = torch.arange(LENGTH) > places.max(-1).values[..., None]
        with torch.no_grad():
            said = one.logits(ids, places)
            assert torch.equal(one.logits(torch.where(after, (ids + 1) % VOCABULARY, ids), places), said)
            assert after.any() and not torch.equal(one.logits((ids + 1) % VOCABULARY, places), said)


def test_norms_are_those_of_torch() -> None:
    state = torch.randn(2, 7, 1, 32, generator=torch.Generator().manual_seed(0)) * 3 + 1
    members = LOW[:2]
    for kind, make in (("batch", nn.BatchNorm1d), ("layer", partial(nn.LayerNorm, eps=1e-5))):
        head = Classifier(members, [4, 6], 32, batch_norm=kind == "batch").train()
        for k, size in enumerate((4, 6)):
            norm = make(32).train()
            for _ in range(3):
                wanted = F.linear(norm(state[k, :, 0]), head.weight[k][:, :size].T, head.bias[k, 0, :size])
            for _ in range(3 if k == 0 else 0):
                said = head(state)
            assert torch.allclose(said[k, :, 0, :size], wanted, atol=1e-5)
            assert (said[k, :, 0, size:] == -math.inf).all()
            if kind == "batch":
                assert torch.allclose(head.running_mean[k, 0, 0], norm.running_mean, atol=1e-6)
                assert torch.allclose(head.running_variance[k, 0, 0], norm.running_var, atol=1e-5)
                norm.eval()
                wanted = F.linear(norm(state[k, :, 0]), head.weight[k][:, :size].T, head.bias[k, 0, :size])
                assert torch.allclose(head.eval()(state)[k, :, 0, :size], wanted, atol=1e-5)
                head.train()
