from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXForCausalLM, LlamaForCausalLM
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding, apply_rotary_pos_emb

from ktrain.config import ModelConfig
from ktrain.model import networks
from ktrain.model.forward import LanguageModelLoss
from ktrain.model.network_parts import train_padding

GPT2 = 50_257
FAMILIES = ("gpt2", "llama", "gbert")
MINI = ModelConfig(size="mini")


def numel(network: torch.nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(p.numel() for p in network.parameters())


def small(seed: int = 0, **changes: object) -> GPTNeoXForCausalLM:
    return networks.build_network(
        ModelConfig(**{"size": "mini"} | changes), vocabulary=600, context=64, eos=0, seed=seed
    ).eval()


def ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(600, (rows, length), generator=torch.Generator().manual_seed(0))


def test_there_are_three_families_of_the_paper_and_all_others() -> None:
    assert get_args(ModelConfig.model_fields["family"].annotation) == (*FAMILIES, "hf")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("vocabulary", [600, GPT2])
def test_the_formula_counts_what_is_built(vocabulary: int, family: str) -> None:
    setting = ModelConfig(size="mini", family=family)
    built = networks.build_network(setting, vocabulary, context=512, eos=0, seed=0)
    assert numel(built) == networks.parameters(setting, vocabulary)
    # Positions are rotary: neither the context nor anything else adds a parameter.
    assert numel(built) == numel(networks.build_network(setting, vocabulary, context=32, eos=0, seed=0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", list(networks.SIZES))
def test_the_formula_counts_what_transformers_would_build_for_every_size(size: str, family: str) -> None:
    setting = ModelConfig(size=size, family=family)
    network = LlamaForCausalLM if family == "llama" else GPTNeoXForCausalLM
    with torch.device("meta"):
        built = network(networks.configuration(setting, GPT2, 512, GPT2 - 1))
    assert numel(built) == networks.parameters(setting, GPT2)


def test_gbert_is_gpt2_with_two_more_tokens() -> None:
    for size in networks.SIZES:
        more = 2 * networks.SIZES[size].width
        gpt2, gbert = (networks.parameters(ModelConfig(size=size, family=family), GPT2) for family in ("gpt2", "gbert"))
        assert gbert == gpt2 + more
    assert networks.parameters(ModelConfig(size="124m", family="gbert"), GPT2) == 123_654_912


def test_llama_has_the_layers_heads_and_width_of_gpt2_and_as_large_a_feed_forward() -> None:
    """Its three matrices of two thirds cost what GPT-2's two cost; its embeddings are not tied."""
    for size, shape in networks.SIZES.items():
        config = networks.configuration(ModelConfig(size=size, family="llama"), GPT2, 512, GPT2 - 1)
        assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_size) == (
            shape.layers, shape.heads, shape.width,
        )  # fmt: skip
        assert config.num_key_value_heads == shape.heads and not config.tie_word_embeddings
        assert config.intermediate_size % 8 == 0
        assert 3 * config.intermediate_size == pytest.approx(8 * shape.width, abs=24)
    body = {f: networks.parameters(ModelConfig(size="124m", family=f), GPT2) for f in ("gpt2", "llama")}
    assert body["llama"] - 2 * GPT2 * 768 == pytest.approx(body["gpt2"] - GPT2 * 768, rel=0.002)


def test_124m_is_gpt2_small_without_its_learned_positions() -> None:
    assert networks.parameters(ModelConfig(size="124m"), GPT2) == 123_653_376 == 124_439_808 - 1024 * 768


def test_302m_is_the_papers_302_million_within_one_percent() -> None:
    assert networks.parameters(ModelConfig(size="302m"), GPT2) == pytest.approx(302e6, rel=0.01)


def test_682m_of_the_paper_does_not_follow_from_its_12_layers_of_width_2048_which_give_707_million() -> None:
    """682 M is the paper's own number; its shape 12-32-2048 with GPT-2's vocabulary, tied, has 707 M parameters."""
    assert networks.SIZES["682m"] == networks.NetworkSize(layers=12, heads=32, width=2048)
    assert networks.parameters(ModelConfig(size="682m"), GPT2) == 707_229_696


def test_shapes_are_those_of_the_paper() -> None:
    shapes = {size: (s.layers, s.heads, s.width) for size, s in networks.SIZES.items() if size != "mini"}
    assert shapes == {"124m": (12, 12, 768), "302m": (12, 20, 1280), "682m": (12, 32, 2048)}
    assert all(s.width // s.heads == 64 for size, s in networks.SIZES.items() if size != "mini")


def test_a_token_costs_six_operations_a_parameter_and_attention_besides() -> None:
    cost = networks.flops_per_token(ModelConfig(size="124m"), GPT2, context=512)
    assert cost == 6 * 123_653_376 + 12 * 12 * 768 * 512
    assert cost == pytest.approx(0.80e9, rel=0.01)


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = small(seed=3).state_dict()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = small(seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = small(seed=4).state_dict()
    assert all(not torch.equal(first[name], other[name]) for name in first if first[name].std() > 0)


def test_initial_weights_are_gpt2s() -> None:
    for name, weight in small().named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif "norm" in name:
            assert (weight == 1).all(), name
        else:
            assert weight.std().item() == pytest.approx(0.02, rel=0.03) and abs(weight.mean().item()) < 0.001, name


def test_embeddings_are_tied() -> None:
    network = small()
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_what_is_saved_is_loaded_by_transformers_alone(tmp_path: Path, dropout: float) -> None:
    network = small(dropout=dropout)
    network.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is GPTNeoXForCausalLM and loaded.dtype == torch.float32
    place = {"architectures": None, "_name_or_path": None}
    assert loaded.config.to_dict() | place == network.config.to_dict() | place
    assert loaded.config.hidden_dropout == loaded.config.attention_dropout == dropout
    assert loaded.config.eos_token_id == 0 and not loaded.config.use_parallel_residual
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    with torch.no_grad():
        assert torch.equal(network(ids(2, 20)).logits, loaded(ids(2, 20)).logits)
    assert numel(loaded) == numel(network)


@pytest.mark.parametrize(("size", "turned"), [("mini", 8), ("124m", 16), ("302m", 16), ("682m", 16)])
def test_positions_turn_a_quarter_of_each_head_with_base_10000(size: str, turned: int) -> None:
    configuration = networks.configuration(ModelConfig(size=size), GPT2, 512, GPT2 - 1)
    shape = networks.SIZES[size]
    head = shape.width // shape.heads
    assert turned == head // 4
    rotary = GPTNeoXRotaryEmbedding(configuration)
    expected = [10_000 ** (-2 * i / turned) for i in range(turned // 2)]
    assert rotary.inv_freq.tolist() == pytest.approx(expected)
    vector = torch.ones(1, 1, 6, head)
    moved, _ = apply_rotary_pos_emb(vector, vector, *rotary(vector, torch.arange(6)[None]))
    changed = (moved != vector).any(dim=(0, 1, 2))
    assert changed.tolist() == [True] * turned + [False] * (head - turned)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_token_sees_those_before_it_and_their_order_and_nothing_after(family: str) -> None:
    network = small(family=family)
    text = ids(1, 24)
    later, swapped = text.clone(), text.clone()
    later[0, 20] = (text[0, 20] + 1) % 600
    swapped[0, [3, 9]] = text[0, [9, 3]]
    with torch.no_grad():
        logits, after, other = (network(t).logits[0] for t in (text, later, swapped))
    assert torch.allclose(logits[:20], after[:20], atol=1e-6) and not torch.allclose(logits[20:], after[20:], atol=1e-4)
    # Without positions the last token would see the same set of tokens and say the same.
    assert not torch.allclose(logits[23], other[23], atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "a mask of ones"])
def test_a_token_of_gbert_sees_those_after_it(attention: str, masked: bool) -> None:
    """Each of them, from each place; and their order."""
    network = small(family="gbert")
    network.set_attn_implementation(attention)
    text = ids(1, 12)
    told = {"attention_mask": torch.ones_like(text)} if masked else {}
    with torch.no_grad():
        logits = network(text, **told).logits[0]
        for place in range(12):
            other = text.clone()
            other[0, place] = (text[0, place] + 1) % 600
            moved = (network(other, **told).logits[0] - logits).abs().amax(dim=-1)
            assert (moved > 1e-5).all(), "every token sees every other one"
        swapped = text[:, [*range(6), 8, 7, 6, *range(9, 12)]]
        assert not torch.allclose(network(swapped, **told).logits[0, 0], logits[0], atol=1e-5)


def test_gbert_does_not_see_padding() -> None:
    network = small(family="gbert")
    text = ids(2, 12)
    padded = torch.cat([text, torch.full((2, 5), network.config.pad_token_id)], dim=1)
    with torch.no_grad():
        alone = network(text).logits
        together = network(padded, attention_mask=(padded != network.config.pad_token_id).long()).logits[:, :12]
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gbert"])
def test_other_families_are_loaded_by_transformers_alone(tmp_path: Path, family: str) -> None:
    network = small(family=family)
    network.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(network) and numel(loaded) == numel(network)
    text = ids(1, 12)
    later = text.clone()
    later[0, -1] = (text[0, -1] + 1) % 600
    with torch.no_grad():
        logits = loaded(text).logits
        assert torch.equal(network(text).logits, logits)
        seen = not torch.allclose(loaded(later).logits[0, 0], logits[0, 0], atol=1e-5)
    assert seen == (family == "gbert"), "what it sees is saved with it"
    if family == "gbert":
        assert (loaded.config.mask_token_id, loaded.config.pad_token_id, loaded.config.vocab_size) == (600, 601, 602)
        assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    else:
        assert loaded.get_output_embeddings().weight is not loaded.get_input_embeddings().weight


def test_dropout_acts_in_training_only_and_only_where_asked() -> None:
    text = ids(1, 24)
    for dropout, differs in ((0.0, False), (0.3, True)):
        network = small(dropout=dropout)
        with torch.no_grad():
            assert torch.equal(network(text).logits, network(text).logits)
            network.train()
            assert torch.equal(network(text).logits, network(text).logits) is not differs


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_trains_with_the_dropout_that_is_set(family: str) -> None:
    """As one that was built with it, in its configuration too."""
    rows, losses = ids(2, 12), {}
    for built, rate in ((0.0, 0.3), (0.3, 0.0), (0.3, 0.3), (0.0, 0.0)):
        network = small(family=family, dropout=built).train()
        networks.set_dropout(network, rate)
        assert network.config.to_dict() == small(family=family, dropout=rate).config.to_dict()
        torch.manual_seed(0)
        losses[built, rate] = LanguageModelLoss(network)(rows, torch.ones(rows.shape)).item()
    assert losses[0.0, 0.3] == losses[0.3, 0.3] != losses[0.0, 0.0] == losses[0.3, 0.0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_embedding_of_eos_starts_and_trains_like_any_other(family: str, tmp_path: Path) -> None:
    network = small(family=family)
    network.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    train_padding(loaded)
    for each in (network, loaded):
        table = each.get_input_embeddings().weight
        assert float(table[0].std().detach()) == pytest.approx(0.02, rel=0.3)
        each.zero_grad()
        LanguageModelLoss(each)(torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8)).backward()
        assert table.grad is not None and table.grad[0].abs().max() > 0
    assert loaded.config.pad_token_id == network.config.pad_token_id
