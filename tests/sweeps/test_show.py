import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ray import tune
from rich.console import Console

from ktrain.config import ATTRIBUTES, CellConfig
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.data.packing import Windows
from ktrain.readout.probes import TASKS, classes
from ktrain.stages import stages_of
from ktrain.store.base import Store
from ktrain.store.open import store_at
from sweeps import Sweep, show
from sweeps.console import COLOURS, format_duration
from sweeps.planning import cost, summary
from sweeps.planning.grid import expand
from sweeps.planning.plan import Plan

Planner = Callable[..., Plan]


@pytest.fixture(scope="module")
def cell(tiny: Callable[..., Sweep]) -> CellConfig:
    return expand(tiny({"corpus.multi": 2, "corpus.permute": 1, "train.qa_ratio": 0.5}), "mini", {})[0]


@pytest.fixture(scope="module")
def corpus(cell: CellConfig) -> Corpus:
    return corpora.build_corpus(cell.corpus, cell.seed)


@pytest.fixture
def printed(
    corpus: Corpus, cell: CellConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What `show` prints, from a corpus that is built once."""
    monkeypatch.setattr(corpora, "build_corpus", lambda *_: corpus)
    monkeypatch.setattr(show, "Screen", lambda **options: Console(**options | {"width": 500}))

    def text(what: str, count: int = 3, step: int = 0) -> str:
        show.show_inputs(what, cell, count, step, store_at("nowhere"))
        return capsys.readouterr().out

    return text


def test_people_are_shown_with_their_attributes_and_half(printed: Callable[..., str], corpus: Corpus) -> None:
    lines = printed("people", 4).splitlines()
    assert len(lines) == 5
    for p, line in enumerate(lines[1:]):
        assert corpus.people.name(p) in line
        assert ("train" if corpus.train[p] else "test") in line.split()
        assert all(corpus.people.value(p, a) in line for a in ATTRIBUTES)


def test_people_to_choose_by_are_shown_as_such(
    printed: Callable[..., str], corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = replace(corpus, setting=corpus.setting.model_copy(update={"validation_share": 0.5}))
    monkeypatch.setattr(corpora, "build_corpus", lambda *_: some)
    count = len(corpus.people)
    groups = ["train" if corpus.train[p] else "validation" if some.validation[p] else "test" for p in range(count)]
    assert some.validation.any()
    for group, line in zip(groups, printed("people", count).splitlines()[1:], strict=True):
        assert group in line.split()
    shown = [line.partition(", ")[2] for line in printed("questions", count).splitlines() if line.startswith("person")]
    assert shown == [group if group == "validation" else f"{group} half" for group in groups]


def test_entries_are_shown_as_they_are_read(printed: Callable[..., str], corpus: Corpus) -> None:
    lines = printed("entries", 5).splitlines()
    assert len(lines) == 5
    for k, line in enumerate(lines):
        text = corpus.tokenizer.decode(corpus.entries[k].tolist())
        assert line == f"entry {k} of person {corpus.person[k]}, {len(corpus.entries[k])} tokens:{text}"


def test_the_attributes_of_an_entry_are_marked(corpus: Corpus) -> None:
    for k, text in enumerate(show._entries(corpus, 5)):
        marked = {
            span.style: text.plain[span.start : span.end] for span in text.spans if "underline" in str(span.style)
        }
        assert len(marked) == 6
        for attribute in ATTRIBUTES:
            value = marked[f"not bold underline {COLOURS[ATTRIBUTES.index(attribute)]}"]
            assert value.strip() == corpus.people.value(int(corpus.person[k]), attribute)


def test_entries_of_rules_say_so_and_rejected_drafts_say_why(
    tiny: Callable[..., Sweep], store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "Screen", lambda **options: Console(**options | {"width": 2000}))
    (cell,) = expand(tiny({"corpus.kind": "bioR", "corpus.multi": 2, "corpus.fullname": True}), "mini", {})
    corpus = corpora.build_corpus(cell.corpus, cell.seed)
    assert corpus.texts is not None
    attempts = corpus.texts.attempts.copy()
    attempts[4] = 3
    doubted = replace(corpus, texts=replace(corpus.texts, attempts=attempts))
    monkeypatch.setattr(corpora, "build_corpus", lambda *_: doubted)
    show.show_inputs("entries", cell, 3, 0, store)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("written by rules, not by a language model; ") and lines[0].endswith("were accepted")
    for entry in range(3):
        assert lines[1 + entry].endswith(f" tokens:{corpus.entry_text(entry)}")
    assert [line.partition(":")[0] for line in lines[4:6]] == ["rejected, of person 2"] * 2


def test_questions_are_shown_with_prompt_and_answer(printed: Callable[..., str], corpus: Corpus) -> None:
    lines = printed("questions", 2).splitlines()
    assert len(lines) == 14
    for p in range(2):
        assert lines[7 * p] == f"person {p}, {'train' if corpus.train[p] else 'test'} half"
        for a, line in zip(ATTRIBUTES, lines[7 * p + 1 : 7 * p + 7], strict=True):
            assert line == "  " + "".join(corpus.question_text(p, a))


def test_classes_are_shown_with_their_people_and_baselines(printed: Callable[..., str], corpus: Corpus) -> None:
    text = printed("classes", 1)
    for task in TASKS:
        found = classes(corpus, task)
        (line,) = [line.split() for line in text.splitlines() if line.startswith(f"{task} ")]
        asked = found.counts(~corpus.train)
        assert int(line[1]) == len(found.names) and line[2] == f"{100 * asked.max() / asked.sum():.1f}"
        assert int(line[3]) == found.counts(corpus.train).min()
    assert f"{len(corpus.entries.ids) / len(corpus.entries):.1f} tokens" in text


@pytest.mark.parametrize("step", [0, 1, 37])
def test_a_window_is_what_the_model_is_fed_at_that_step(
    printed: Callable[..., str], corpus: Corpus, cell: CellConfig, step: int
) -> None:
    out = printed("window", 4, step)
    windows = Windows(corpus, stages_of(cell).corpus.key, cell.train, cell.seed)
    for row, ids in enumerate(windows.rows(step)):
        told = "questions" if (windows.kinds(step)[row] == "question") else "biographies"
        assert f"step {step} row {row}, {told}\n" in out
        assert corpus.tokenizer.decode(ids.tolist(), skip_special_tokens=False) in out
    assert "<|endoftext|>" in out


def test_whole_windows_are_shown_as_they_begin(
    corpus: Corpus, cell: CellConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the start of a text."""
    monkeypatch.setattr(corpora, "build_corpus", lambda *_: corpus)
    monkeypatch.setattr(show, "Screen", lambda **options: Console(**options | {"width": 5000}))
    train = cell.train.model_copy(update={"windows": "whole", "context": 192})
    show.show_inputs("window", cell.model_copy(update={"train": train}), 4, 2, store_at("nowhere"))
    out = capsys.readouterr().out
    starts = [corpus.tokenizer.decode(texts[i][:6].tolist()) for texts in (corpus.entries, corpus.questions)
              for i in range(len(texts))]  # fmt: skip
    lines = [line for line in out.splitlines() if line and not line.startswith("step 2 row ")]
    assert len(lines) == 4 and all(line.startswith(tuple(starts)) for line in lines)


def test_no_more_is_shown_than_there_is(printed: Callable[..., str], corpus: Corpus) -> None:
    assert len(printed("people", 10**6).splitlines()) == 61
    assert printed("window", 10**6).count("step 0 row ") == 4


def test_a_plan_is_shown_with_cells_stages_cost_and_departures(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "Screen", lambda **options: Console(**options | {"width": 500}))
    plan = planned()
    show.plan(plan, list_departures=True)
    out = capsys.readouterr().out
    assert all(cell.key in out for cell in plan.cells) and all(p.stage.key in out for p in plan.stages)
    assert all(line in out for line in summary.departures(plan))
    totals: dict[str, Any] = summary.totals(plan)
    assert "2 cells, 6 distinct stages, 0 done\n" in out
    assert f"to do: 2 pretrainings, {totals['tokens_to_do']:,} tokens, {totals['flops_to_do']:.1e} FLOPs, " in out
    assert "takes about 0 minutes on one core" in out and cost.CORE.source in out and "blocked" not in out
    assert "passes over questions" in out and out.count("  0.9  ") == 2
    ((name, network),) = totals["networks"].items()
    assert f"{name}: {network['parameters']:,} parameters, " in out and "too small" not in out
    assert "train.windows=cut: about 60% of the attribute tokens are read without the name before them" in out
    # The cost comes first; of the axes only the one that varies is a column.
    lines = out.splitlines()
    assert lines[0].startswith("2 cells, 6 distinct stages") and lines[lines.index("") + 1].split() == [
        "cell",
        "multi",
        "state",
    ]
    assert "$" not in out
    show.plan(replace(plan, price_per_hour=2.5))
    out = capsys.readouterr().out
    assert not any(line in out for line in summary.departures(plan))
    departs = sum(not line.startswith("assumed") for line in summary.departures(plan))
    assert f"{departs} departures from the paper, " in out and "--departures lists them" in out
    assert f"costs about ${totals['seconds_to_do'] / 3600 * 2.5:,.2f}" in out


def test_a_plan_says_what_was_drawn_and_what_will_be_reported(
    tiny: Callable[..., Sweep], planned: Planner, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = tiny({"train.learning_rate": tune.loguniform(1e-4, 1e-2), "readout.kind": "qa_finetune"})
    plan = planned(replace(drawn, samples=3, metric="train/loss"))
    show.plan(plan)
    out = capsys.readouterr().out
    line = "3 random samples of train.learning_rate; the best by train/loss (lowest), on what pretraining reads, is "
    line += "reported"
    assert "3 cells, " in out and f"\n{line}\n" in out
    assert all(str(cell.axes["train.learning_rate"]) in out for cell in plan.cells)
    (search,) = summary.as_json(plan)["searches"]
    assert search["axes"] == ("train.learning_rate",) and search["samples"] == 3
    assert "searches" not in summary.as_json(planned())


def test_a_plan_of_many_cells_is_told_by_its_parts(
    planned: Planner, tiny: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(show, "Screen", lambda **options: Console(**options | {"width": 500}))
    model = {"corpus.kind": "bioR", "corpus.writer.backend": "http"}
    parts = tiny(name="plain"), tiny(model, name="other"), tiny({"corpus.multi": 1}, name="again")
    plan = planned(Sweep("whole", parts=parts), readout__steps=[20, 30])
    show.plan(plan)
    assert plan.cells[0].key in capsys.readouterr().out
    monkeypatch.setattr(show, "MANY", 5)
    show.plan(plan)
    out = capsys.readouterr().out
    assert not any(cell.key in out for cell in plan.cells if not cell.blocked)
    lines = [line.split() for line in out.splitlines()]
    lines = lines[lines.index([]) + 1 :]
    assert lines[0] == ["part", "cells", "pretrainings", *show.STATES]
    assert lines[1:4] == [["plain", "4", "2", "4"], ["other", "2", "1", "2"], ["again", "2", "1", "2"]]
    assert lines[4] == ["each", "once", "6", "3", "4", "2"]
    (pretrained,) = [line for line in lines if line[:1] == ["pretrain"]]
    assert pretrained[:4] == ["pretrain", "3", "6", "0"]
    assert "2 cells are blocked: bioR by Qwen/Qwen2.5-7B-Instruct (http) is not written yet" in out
    assert "blocked: 1 pretraining, " in out and "--cells" in out
    show.plan(plan, everything=True)
    out = capsys.readouterr().out
    assert all(cell.key in out for cell in plan.cells) and "--cells" not in out
    assert out.count("is not written yet") == 1, "a reason stands once"


def test_what_two_cells_share_is_counted_once_and_one_is_not_plural(
    planned: Planner, tiny: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    show.plan(planned(tiny({}), readout__steps=[20, 40]))
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("2 cells, 4 distinct stages, 0 done; without sharing there would be 6 stages and 1.")
    assert "to do: 1 pretraining, " in told
    show.plan(planned(tiny({})))
    assert capsys.readouterr().out.startswith("1 cell, 3 distinct stages, 0 done\n")


def test_axes_that_would_read_alike_keep_their_whole_names() -> None:
    axes = ["corpus.permute", "corpus.celebrity.permute", "readout.kind"]
    assert show._headers(axes) == ["corpus.permute", "corpus.celebrity.permute", "kind"]


def test_the_status_is_a_line_for_each_cell(
    planned: Planner, publish: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in planned().cells[0].stages:
        publish(stage)
    show.status(planned())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1:] for line in lines] == [["multi", "state"], ["1", "done"], ["2", "planned"]]


@pytest.mark.parametrize("width", [80, 110, 200])
def test_a_plan_on_a_terminal_breaks_inside_no_number_and_no_key(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    made = planned(readout__method=["lora"], readout__rank_qv=[2, 4], corpus__permute=[1])
    show.plan(made)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    for planned_stage in made.stages:
        row = rows[planned_stage.stage.key]
        assert row[-1] == format_duration(planned_stage.seconds) and "to do" in " ".join(row)
    assert all(rows[cell.key][-1] == "planned" for cell in made.cells)
    words = " ".join(" ".join(lines).split())
    assert all(" ".join(line.split()) in words for line in show._bill(summary.totals(made)))


def test_in_a_pipe_no_sentence_of_a_plan_is_wrapped(planned: Planner, capsys: pytest.CaptureFixture[str]) -> None:
    made = planned()
    show.plan(made, list_departures=True)
    lines = capsys.readouterr().out.splitlines()
    bill = list(show._bill(summary.totals(made)))
    assert lines[: len(bill)] == bill and any(len(line) > 80 for line in bill)
    assert {f"  {line}" for line in summary.departures(made)} <= set(lines)
