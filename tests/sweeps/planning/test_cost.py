from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ktrain.config import CellConfig, ReadoutConfig
from ktrain.data.corpus import build_corpus
from ktrain.data.questions import QuestionRows, pad_questions
from ktrain.data.token_estimates import questions_per_row, tokens_per_entry, tokens_per_question
from ktrain.errors import WrongRequest
from ktrain.model.sizes import SIZES, parameters
from ktrain.readout import probes
from ktrain.readout.kinds.base import kind_of
from ktrain.stages import stages_of
from sweeps import Sweep
from sweeps.planning import cost
from sweeps.planning.grid import expand


def cell(scale: str = "full", **axes: Any) -> CellConfig:
    (found,) = expand(Sweep("g", {name.replace("__", "."): value for name, value in axes.items()}), scale, {})
    return found


def test_a_gpu_is_a_share_of_its_peak() -> None:
    assert cost.gpu("h100").speed == 0.4 * 989e12 and cost.gpu("h100").name == "H100"
    assert cost.gpu("a100").source == "40 % of its peak of 312 TFLOP/s, assumed"
    with pytest.raises(WrongRequest, match=r"gpu=h1000: must be one of h100, .*; did you mean h100"):
        cost.gpu("h1000")


def test_a_measured_speed_goes_before_an_assumed_one() -> None:
    assert cost.choose_device("", None) is None
    assert cost.choose_device("a100", None) == cost.gpu("a100")
    found = cost.choose_device("a100", 100_000.0)
    assert found is not None and found.name == "A100"
    pretrain = stages_of(cell()).pretrain
    # 80,000 steps of 96 x 512 tokens.
    assert cost.seconds(pretrain, cell(), found.speed) == pytest.approx(80_000 * 96 * 512 / 100_000)
    for speed in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(WrongRequest, match=r"tokens-per-second=.*: must be above 0"):
            cost.choose_device("", speed)


def test_celebrities_are_written_and_asked_about_too() -> None:
    plain, famous = cell(), cell(corpus__celebrity_fraction=0.5)
    entry, asked = 73, 6 * 17
    assert cost.tokens(stages_of(plain).corpus, plain) == 100_000 * (entry + asked)
    assert cost.tokens(stages_of(famous).corpus, famous) == 100_000 * (entry + asked) + 100_000 * (5 * entry + asked)
    assert cost.tokens(stages_of(famous).pretrain, famous) == cost.tokens(stages_of(plain).pretrain, plain)


def test_couples_have_as_many_entries_as_their_name_says() -> None:
    found = cell(corpus__couple=5)
    assert cost.tokens(stages_of(found).corpus, found) == 100_000 * (5 * 73 + 6 * 17)


def test_background_text_is_counted_where_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 4000)
    plain, unnamed = cell(), cell(corpus__background="?")
    named = cell(corpus__background=str(tmp_path))
    texts = [cost.tokens(stages_of(c).corpus, c) for c in (plain, unnamed, named)]
    assert texts[0] == texts[1] == texts[2] - 1000


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_a_pretraining_keeps_its_network_and_costs_six_operations_a_weight(family: str) -> None:
    found = cell(model__family=family)
    pretrain = stages_of(found).pretrain
    weights, shape = parameters(found.model, 50_257), SIZES["124m"]
    assert cost.size(pretrain, found) == 4 * weights
    multiplied = weights - (50_257 * shape.width if family == "llama" else 0)
    each = 6 * multiplied + 12 * shape.layers * shape.width * 512
    assert cost.flops(pretrain, found) == 80_000 * 96 * 512 * each


def test_probes_keep_their_adapters_and_a_line_for_every_example() -> None:
    p, q = cell(readout__kind="p_probe", corpus__multi=5), cell(readout__kind="q_probe", corpus__multi=5)
    assert cost.size(stages_of(p).readout, p) == 11 * (4 * 50_257 * 2 + 16 * 500_000)
    assert cost.size(stages_of(q).readout, q) == 11 * (4 * 50_257 * 16 + 16 * 100_000)
    whole = cell(readout__kind="q_probe", readout__rank_embedding="full")
    assert cost.size(stages_of(whole).readout, whole) == 11 * (4 * 50_257 * 768 + 16 * 100_000)
    # Of a probe's cell, the pretrained network is kept like any other.
    assert cost.size(stages_of(q).pretrain, q) == 4 * parameters(q.model, 50_257)


@pytest.mark.parametrize("kind", ["bioS", "bioR"])
@pytest.mark.parametrize("fullname", [False, True])
def test_a_row_is_as_wide_as_it_is_padded(kind: str, fullname: bool) -> None:
    """To one step of padding, in which seeds differ."""
    found = cell("mini", corpus__kind=kind, corpus__fullname=fullname)
    corpus = build_corpus(found.corpus, found.seed)
    widths = {
        "qa_finetune": pad_questions(corpus, np.arange(len(corpus.questions)), answers_only=True)[0],
        "p_probe": probes.biography_rows(corpus, 0).ids,
        "q_probe": probes.name_rows(corpus, corpus.eos).ids,
    }
    for readout, ids in widths.items():
        width = kind_of(readout).row_tokens(found)
        assert abs(width - ids.shape[1]) <= 8 and width >= 0.9 * ids.shape[1]


@pytest.mark.parametrize("tokenizer", ["gpt2", "bpe-2048"])
@pytest.mark.parametrize("kind", ["bioS", "bioR"])
@pytest.mark.parametrize("fullname", [False, True])
def test_texts_are_as_long_as_a_plan_takes_them_to_be(kind: str, fullname: bool, tokenizer: str) -> None:
    scale = "mini" if tokenizer == "bpe-2048" else "full"
    axes = {"corpus__people": 500, "corpus__writer__backend": "rules"}
    found = cell(scale, corpus__kind=kind, corpus__fullname=fullname, **axes).corpus
    corpus = build_corpus(found, 0)
    entry, question = (len(texts.ids) / len(texts) for texts in (corpus.entries, corpus.questions))
    assert tokens_per_entry(found) == pytest.approx(entry, rel=0.03)
    assert tokens_per_question(found) == pytest.approx(question, rel=0.03)


@pytest.mark.parametrize(("scale", "context"), [("mini", 128), ("full", 512)])
def test_passes_are_those_that_training_makes(scale: str, context: int) -> None:
    found = cell(scale, corpus__people=500, readout__packed=True, train__context=context, readout__batch=64)
    corpus = build_corpus(found.corpus, 0)
    questions = int(corpus.train.sum()) * 6
    rows = QuestionRows(corpus, ReadoutConfig(packed=True, batch=64), "key", 0, context=context)
    # Each question has one target that is EOS.
    read = sum(int((truth[mask] == corpus.eos).sum()) for _, truth, mask in map(rows.batch, range(12)))
    assert questions_per_row(found.corpus, context) == pytest.approx(read / (12 * 64), rel=0.05)
    passes = kind_of("qa_finetune").passes(found)
    assert passes == pytest.approx(found.readout.steps * read / 12 / questions, rel=0.05)


def test_finetuning_passes_over_its_questions_as_often_as_the_paper() -> None:
    packed, single = cell(), cell(readout__packed=False)
    assert cost.passes(stages_of(packed).readout, packed) == pytest.approx(238, rel=0.03)
    assert cost.passes(stages_of(single).readout, single) == 8.0
    # 50,000 steps of 48 windows of 512 tokens.
    assert cost.tokens(stages_of(packed).readout, packed) == 50_000 * 48 * 512
    assert cost.tokens(stages_of(single).readout, single) == 50_000 * 48 * 32
    mixed = cell(readout__kind="mixed", train__qa_ratio=0.8)
    corpus, pretrain, asked = stages_of(mixed)
    assert cost.passes(pretrain, mixed) == pytest.approx(610, rel=0.03)
    assert cost.passes(corpus, mixed) is cost.passes(asked, mixed) is None
    assert cost.passes(stages_of(packed).pretrain, packed) is None


@pytest.mark.parametrize("family", ["gpt2", "llama", "gbert"])
def test_a_probe_computes_no_logits(family: str) -> None:
    found = cell(model__family=family, readout__kind="q_probe")
    readout, shape = stages_of(found).readout, SIZES["124m"]
    rows = 50_257 + (2 if family == "gbert" else 0)
    embeddings = (2 if family == "llama" else 1) * rows * shape.width
    each = 6 * (parameters(found.model, 50_257) - embeddings) + 12 * shape.layers * shape.width * 12
    assert cost.flops(readout, found) == pytest.approx(11 * 30_000 * 200 * 12 * each * 2 / 3)


def test_what_trains_nothing_takes_a_moment() -> None:
    found = cell(readout__kind="mixed", train__qa_ratio=0.8)
    corpus, _, mixed = stages_of(found)
    assert cost.flops(corpus, found) == cost.flops(mixed, found) == 0.0
    assert 0 < cost.seconds(mixed, found, 1e12) < 10
