"""The paper's other arms from people to published answers: celebrities, couples, Llama, GBERT and background text."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXForCausalLM, LlamaForCausalLM

from ktrain import pipeline
from ktrain.bios.tokenizer import MASK, PAD
from ktrain.config import ATTRIBUTES, CellConfig, RuntimeConfig
from ktrain.data import checks
from ktrain.data import corpus as corpora
from ktrain.model import networks
from ktrain.model.forward import hidden_states
from ktrain.model.heads import EPSILON
from ktrain.model.lora import Adapters, AdapterSpec, merged
from ktrain.model.sizes import SIZES, NetworkSize
from ktrain.readout import evaluation, probe_checks, probes
from ktrain.stages import stages_of
from ktrain.store.open import store_at

VOCABULARY = 400
"""Few enough for names of several lengths."""
FEW = dict.fromkeys(("birth_years", "birth_cities", "universities", "majors", "companies"), 4)
BASE: dict[str, dict[str, Any]] = {
    "corpus": {
        "people": 16,
        "permute": 1,
        "tokenizer": f"bpe-{VOCABULARY}",
        "pools": {"first_names": 20, "middle_names": 20, "last_names": 20, **FEW},
    },
    "model": {"size": "mini"},
    "train": {"steps": 6, "batch": 4, "context": 64, "warmup": 2, "precision": "fp32"},
    "readout": {
        "method": "full",
        "steps": 4,
        "batch": 8,
        "learning_rate": 0.01,
        "precision": "fp32",
        "recall_gate": 0.0,
        "people_per_class": 0,
        "rank_qv": 2,
        "rank_embedding": 4,
    },
}
CEL = {"celebrity_fraction": 0.6, "celebrity": {"multi": 2, "permute": 1}}
LORA, WHOLE = {"method": "lora"}, {"method": "lora", "rank_embedding": "full"}
LONG = {"steps": 320, "batch": 24, "learning_rate": 3e-3}
Report = Callable[..., None]


def cell(**sections: dict[str, Any]) -> CellConfig:
    """A cell of a few steps, with some fields of some sections at other values."""
    told = {name: fields | sections.get(name, {}) for name, fields in BASE.items()}
    if told["corpus"].get("couple"):
        told["corpus"]["permute"] = 0
    return CellConfig.model_validate(told)


def probe(kind: str, **changes: Any) -> dict[str, Any]:
    return {"kind": kind, "rank_qv": 0, "rank_embedding": 2, **changes}


CELEBRITY = {"people": "celebrity"}
FAMOUS = {
    "celebrity": cell(corpus=CEL, readout=CELEBRITY),
    "minority": cell(corpus=CEL),
    "celebrity lora": cell(corpus=CEL, readout={**CELEBRITY, **LORA}),
    "q minority": cell(corpus=CEL, readout=probe("q_probe")),
    "q celebrity": cell(corpus=CEL, readout=probe("q_probe", **CELEBRITY)),
    "p celebrity": cell(corpus=CEL, readout=probe("p_probe", **CELEBRITY)),
}
GBERT = {
    "full": cell(model={"family": "gbert"}, readout=LONG),
    "lora": cell(model={"family": "gbert"}, readout={**LORA, **LONG, "steps": 30}),
    "whole": cell(model={"family": "gbert"}, readout={**WHOLE, **LONG, "steps": 30}),
    "q": cell(model={"family": "gbert"}, readout=probe("q_probe", steps=20, learning_rate=0.05)),
}
LLAMA = {
    "full": cell(model={"family": "llama"}),
    "lora": cell(model={"family": "llama"}, readout=LORA),
    "q": cell(model={"family": "llama"}, readout=probe("q_probe")),
    "p": cell(model={"family": "llama"}, readout=probe("p_probe")),
}
COUPLED = {
    "full": cell(corpus={"couple": 2}),
    "p": cell(corpus={"couple": 2}, readout=probe("p_probe")),
}


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "mini", NetworkSize(2, 2, 64))
        yield


Done = dict[str, Path]


def run(store: Path, cells: dict[str, CellConfig]) -> Done:
    """The folder of each cell's readout, and those of what they share."""
    runtime = RuntimeConfig(store=str(store), compile=False)
    pipeline.run(list(cells.values()), runtime, lambda key, progress: None)
    first = next(iter(cells.values()))
    keys = {"corpus": stages_of(first).corpus.key, "pretrain": stages_of(first).pretrain.key}
    keys |= {name: stages_of(each).readout.key for name, each in cells.items()}
    found = {name: store_at(store).fetch(key) for name, key in keys.items()}
    assert not list((store / "work").iterdir())
    return {name: folder for name, folder in found.items() if folder is not None}


@pytest.fixture(scope="module")
def famous(tmp_path_factory: pytest.TempPathFactory, narrow: None) -> Done:
    return run(tmp_path_factory.mktemp("famous"), FAMOUS)


@pytest.fixture(scope="module")
def gbert(tmp_path_factory: pytest.TempPathFactory, narrow: None) -> Done:
    return run(tmp_path_factory.mktemp("gbert"), GBERT)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, narrow: None) -> Done:
    return run(tmp_path_factory.mktemp("llama"), LLAMA)


@pytest.fixture(scope="module")
def coupled(tmp_path_factory: pytest.TempPathFactory, narrow: None) -> Done:
    return run(tmp_path_factory.mktemp("coupled"), COUPLED)


def metrics(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "metrics.json").read_text())
    return found


def said(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


# Celebrities.


def test_finetuning_on_celebrities_asks_everyone_under_test(famous: Done) -> None:
    assert FAMOUS["celebrity"].corpus.celebrities == 24
    for name in ("celebrity", "celebrity lora"):
        asked = said(famous[name])
        assert set(asked.person[asked.split == "test"]) == set(range(16))
        assert set(asked.person[asked.split == "train"]) == set(range(16, 40))
        assert len(asked) == 40 * 6 and not asked.duplicated(["person", "attribute"]).any()
        counts = json.loads((famous[name] / "counts.json").read_text())["n"]
        assert counts["qa/exact_match/test/mean"] == 16 and counts["qa/exact_match/train/mean"] == 24


def test_finetuning_on_half_of_the_minority_leaves_celebrities_out(famous: Done) -> None:
    asked = said(famous["minority"])
    corpus = corpora.load_corpus(famous["corpus"], FAMOUS["minority"].corpus, 0)
    assert set(asked.person) == set(range(16)) and len(asked) == 16 * 6
    assert ((asked.split == "train") == corpus.train[asked.person]).all()
    assert (asked.split == "test").sum() == 8 * 6


@pytest.mark.parametrize(("name", "tested"), [("celebrity", 16), ("minority", 8)])
def test_the_baseline_is_of_those_who_are_asked(famous: Done, name: str, tested: int) -> None:
    asked, found = said(famous[name]), metrics(famous[name])
    for attribute in ATTRIBUTES:
        mine = asked[(asked.split == "test") & (asked.attribute == attribute)]
        assert len(mine) == tested
        assert found[f"baseline/test/{attribute}"] == mine.expected.value_counts().max() / tested
        assert found[f"qa/exact_match/test/{attribute}"] == mine.exact.mean()


@pytest.mark.parametrize(
    ("name", "entries"), [("q minority", 1), ("q celebrity", 1), ("p celebrity", 1)], ids=lambda x: str(x)
)
def test_probes_are_asked_about_people_under_test(famous: Done, name: str, entries: int) -> None:
    corpus = corpora.load_corpus(famous["corpus"], FAMOUS[name].corpus, 0)
    asked, found = said(famous[name]), metrics(famous[name])
    tested = corpus.people_split(FAMOUS[name].readout.people)[1]
    assert set(asked.person) == set(np.flatnonzero(tested).tolist())
    for task, examples in asked.groupby("task"):
        measure, attribute = str(task).split("/")
        if name.startswith("q"):
            assert len(examples) == tested.sum()
            assert found[f"q_probe/{task}"] == (examples.expected == examples.predicted).mean()
        values = corpus.people.class_ids(attribute)[tested]
        if measure == "whole":
            assert found[f"baseline/whole/{attribute}"] == np.bincount(values).max() / tested.sum()


def test_recall_is_told_for_each_group(famous: Done) -> None:
    found = metrics(famous["pretrain"])
    assert {name for name in found if name.startswith("recall/")} == {
        "recall/attribute_tokens", "recall/minority", "recall/celebrity",
    }  # fmt: skip
    network = AutoModelForCausalLM.from_pretrained(famous["pretrain"] / "model")
    corpus = corpora.load_corpus(famous["corpus"], FAMOUS["minority"].corpus, 0)
    again = evaluation.recall(network, corpus)
    assert found["recall/minority"] == again.share(~corpus.celebrity)
    assert found["recall/celebrity"] == again.share(corpus.celebrity)


@pytest.mark.parametrize("forgotten", ["minority", "celebrity"])
def test_a_model_that_recalls_one_group_only_is_not_read_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    """The mean over all would be above the gate, or nearly."""
    recall = evaluation.recall

    def partly(network: Any, corpus: corpora.Corpus) -> evaluation.Recalled:
        found = recall(network, corpus)
        right = np.where((corpus.celebrity == (forgotten == "celebrity"))[:, None], 0, found.tokens)
        return evaluation.Recalled(found.person, found.tokens, right, found.first)

    monkeypatch.setattr(evaluation, "recall", partly)
    gated = cell(corpus=CEL, readout={**CELEBRITY, "recall_gate": 0.35})
    done = run(tmp_path, {"celebrity": gated})
    assert "celebrity" not in done and metrics(done["pretrain"])["recall/attribute_tokens"] > 0.35
    assert metrics(done["pretrain"])[f"recall/{forgotten}"] == 0.0


def test_guards_are_passed_and_named(famous: Done) -> None:
    for name in ("pretrain", "q celebrity", "p celebrity"):
        of = checks.GUARDS if name == "pretrain" else probe_checks.PROBE_GUARDS
        assert json.loads((famous[name] / "guards.json").read_text()) == dict.fromkeys(of, "passed")


# GBERT.


def test_a_saved_gbert_is_loaded_by_transformers_alone_and_sees_later_tokens(gbert: Done) -> None:
    corpus = corpora.load_corpus(gbert["corpus"], GBERT["full"].corpus, 0)
    assert corpus.tokenizer.get_vocab_size() == VOCABULARY, "saving a model adds nothing to the tokenizer of the corpus"
    for name in ("pretrain", "full", "lora", "whole"):
        network, tokenizer = (
            loader.from_pretrained(gbert[name] / "model") for loader in (AutoModelForCausalLM, AutoTokenizer)
        )
        assert type(network) is GPTNeoXForCausalLM and network.config.vocab_size == len(tokenizer) == VOCABULARY + 2
        assert (tokenizer.mask_token, tokenizer.pad_token) == (MASK, PAD)
        assert (tokenizer.mask_token_id, tokenizer.pad_token_id) == (VOCABULARY, VOCABULARY + 1)
        assert (network.config.mask_token_id, network.config.pad_token_id) == (VOCABULARY, VOCABULARY + 1)
        assert tokenizer.eos_token_id == network.config.eos_token_id == corpus.eos
        ids = torch.from_numpy(corpus.questions[3].astype(np.int64))[None]
        later = ids.clone()
        later[0, -2] = (ids[0, -2] + 1) % VOCABULARY
        with torch.no_grad():
            moved = network(ids).logits[0, 0] - network(later).logits[0, 0]
        assert moved.abs().max() > 1e-4
        assert tokenizer(corpus.entry_text(0))["input_ids"] == corpus.entries[0][:-1].tolist()


@pytest.mark.parametrize("name", ["full", "lora", "whole"])
def test_a_user_who_fills_in_finds_the_published_answers(gbert: Done, name: str) -> None:
    """With nothing but transformers: as many masks as the answer has tokens, all right or wrong."""
    network, tokenizer = (
        loader.from_pretrained(gbert[name] / "model") for loader in (AutoModelForCausalLM, AutoTokenizer)
    )
    asked = said(gbert[name])
    exact, first = [], []
    for row in asked.itertuples():
        answer = tokenizer(row.expected)["input_ids"]
        ids = [*tokenizer(row.prompt)["input_ids"], *[tokenizer.mask_token_id] * len(answer), tokenizer.eos_token_id]
        with torch.no_grad():
            guess = network(torch.tensor([ids])).logits[0, -len(answer) - 1 : -1].argmax(-1).tolist()
        exact.append(guess == answer)
        first.append(guess[0] == answer[0])
        assert tokenizer.decode(guess, skip_special_tokens=True) == row.predicted
    assert asked.exact.tolist() == exact and asked.first_token.tolist() == first
    if name == "full":
        assert np.mean(exact) < np.mean(first) < 1
        learned = asked[asked.split == "train"].exact.mean()
        assert learned > 0.3 and learned > asked[asked.split == "test"].exact.mean(), "it has learned what it answers"


def test_adapters_of_a_gbert_are_its_merged_network(gbert: Done) -> None:
    """Two more tokens than the tokenizer has, and padding that is not read."""
    network = AutoModelForCausalLM.from_pretrained(gbert["pretrain"] / "model")
    corpus = corpora.load_corpus(gbert["corpus"], GBERT["lora"].corpus, 0)
    for name, rank in (("lora", 4), ("whole", "full")):
        adapters = Adapters(network, [AdapterSpec("qa", 0, rank, 2)], 1.0, 0.0).eval()
        saved = load_file(gbert[name] / "adapters.safetensors")
        assert saved["table" if rank == "full" else "embedding_a"].shape[0] == VOCABULARY + 2
        adapters.load_state_dict({n: tensor[None] for n, tensor in saved.items()})
        plain = AutoModelForCausalLM.from_pretrained(gbert[name] / "model")
        assert not plain.config.is_causal
        again = merged(network, adapters, 0).state_dict()
        assert all(torch.equal(tensor, again[n]) for n, tensor in plain.state_dict().items())
        rows = [corpus.questions[q].astype(np.int64) for q in (0, 3, 5)]
        ids = torch.full((3, max(map(len, rows)) + 4), VOCABULARY + 1)
        for row, text in zip(ids, rows, strict=True):
            row[: len(text)] = torch.from_numpy(text)
        with torch.no_grad():
            wanted = plain(input_ids=ids, attention_mask=(ids != VOCABULARY + 1).long()).logits
            found = network.get_output_embeddings()(hidden_states(network, ids, adapters))
        read = ids != VOCABULARY + 1
        assert torch.allclose(found[read], wanted[read], atol=1e-4)


def test_a_probe_of_a_gbert_reads_a_name_and_no_padding(gbert: Done) -> None:
    """By hand, name by name, with nothing behind it; through transformers' own forward."""
    corpus = corpora.load_corpus(gbert["corpus"], GBERT["q"].corpus, 0)
    network = AutoModelForCausalLM.from_pretrained(gbert["pretrain"] / "model").eval()
    saved, asked = load_file(gbert["q"] / "adapters.safetensors"), said(gbert["q"])
    lengths = set()
    for task in (probes.TASKS[1], probes.TASKS[3], probes.TASKS[8]):
        part = {n.removeprefix(f"{task}/"): t for n, t in saved.items() if n.startswith(f"{task}/")}
        names = probes.classes(corpus, task).names
        for row in asked[asked.task == str(task)].itertuples():
            name = corpus.tokenizer.encode(f" {corpus.people.name(row.person)}").ids
            lengths.add(len(name))
            ids = torch.tensor([[corpus.eos, *name, corpus.eos]])
            with torch.no_grad():
                table = network.get_input_embeddings()(ids)
                update = part["embedding_a"][ids] @ part["embedding_b"] * GBERT["q"].readout.lora_scale
                state = network.gpt_neox(inputs_embeds=table + update, use_cache=False).last_hidden_state[0, -1]
            normed = (state - part["head/running_mean"].flatten()) * torch.rsqrt(
                part["head/running_variance"].flatten() + EPSILON
            )
            normed = normed * part["head/gain"].flatten() + part["head/shift"].flatten()
            logits = normed @ part["head/weight"] + part["head/bias"].flatten()
            assert row.predicted == names[int(logits.argmax())]
    assert len(lengths) > 1, "names of several lengths, so some are padded"


@pytest.mark.parametrize("ratio", [0.5])
def test_a_gbert_is_trained_with_questions_mixed_in(tmp_path: Path, ratio: float) -> None:
    mixed = cell(model={"family": "gbert"}, train={"qa_ratio": ratio}, readout={"kind": "mixed"})
    done = run(tmp_path, {"mixed": mixed})
    found = metrics(done["mixed"])
    assert {"mixed/exact_match/test/mean", "mixed/first_token/train/major"} <= found.keys()
    curve = json.loads((done["pretrain"] / "learning.json").read_text())["curve"]
    assert [point["step"] for point in curve] == list(range(1, 7))
    assert curve[-1]["mixed/exact_match/test/mean"] == found["mixed/exact_match/test/mean"]
    losses = [line["loss"] for line in json.loads((done["pretrain"] / "curve.json").read_text())]
    assert losses[0] == pytest.approx(np.log(VOCABULARY + 2), rel=0.03) and losses[-1] < losses[0]


# Llama and couples.


def test_a_llama_goes_through_the_whole_chain(llama: Done) -> None:
    assert set(llama) == {"corpus", "pretrain", *LLAMA}
    corpus = corpora.load_corpus(llama["corpus"], LLAMA["full"].corpus, 0)
    for name in ("pretrain", "full", "lora"):
        network = AutoModelForCausalLM.from_pretrained(llama[name] / "model")
        assert type(network) is LlamaForCausalLM
        assert sum(p.numel() for p in network.parameters()) == networks.parameters(LLAMA["full"].model, VOCABULARY)
        if name != "pretrain":
            again, asked = evaluation.answer(network, corpus), said(llama[name])
            assert again.exact.tolist() == asked.exact.tolist()
            assert again.first_token.tolist() == asked.first_token.tolist()
    losses = [line["loss"] for line in json.loads((llama["pretrain"] / "curve.json").read_text())]
    assert losses[0] == pytest.approx(np.log(VOCABULARY), rel=0.03) and losses[-1] < losses[0]
    assert {"q_probe/first/major", "q_probe/whole/mean"} <= metrics(llama["q"]).keys()
    assert {"p_probe/first/0/major", "p_probe/whole/own/mean"} <= metrics(llama["p"]).keys()


def test_probes_of_couples_are_told_by_what_was_seen(coupled: Done) -> None:
    """The partner was read before the second of a pair, right before it; and elsewhere only with all of its pair."""
    asked, found = said(coupled["p"]), metrics(coupled["p"])
    pairs = {"birth_city": "birth_date", "major": "university", "company_city": "company"}
    own = asked.loc[asked.groupby(["task", "entry"]).position.idxmax()]
    for second, partner in pairs.items():
        mine = own[own.task == f"first/{second}"]
        assert len(mine) == 16 and mine.seen.str.split("-").map(lambda read, p=partner: p in read).all()
        for read, examples in asked[asked.task == f"first/{second}"].groupby("seen"):
            right = (examples.expected == examples.predicted).mean()
            assert found[f"p_probe/seen/first/{read}/{second}"] == right
    assert not any("/seen/" in n and "birth_city" in n.split("/")[3] and "birth_date" not in n for n in found)


# Background text.


def test_background_text_is_read_and_changes_what_is_learned(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("Bread needs flour, water, salt and time. " * 40)
    told = {"background": str(tmp_path / "text"), "background_share": 0.5}
    done = run(tmp_path / "with", {"full": cell(corpus=told, readout={"steps": 1})})
    plain = run(tmp_path / "without", {"full": cell(readout={"steps": 1})})
    one, two = (load_file(d["pretrain"] / "model" / "model.safetensors") for d in (done, plain))
    assert not torch.equal(one["gpt_neox.embed_in.weight"], two["gpt_neox.embed_in.weight"])
    corpus = corpora.load_corpus(done["corpus"], cell(corpus=told).corpus, 0)
    assert corpus.background is not None and corpus.tokenizer.decode(corpus.background[0].tolist()).startswith("Bread")
    assert metrics(done["full"]).keys() == metrics(plain["full"]).keys()
