"""bioR as a corpus: verified entries with spans found anew after every change, like bioS in all else."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ktrain.bior import entries
from ktrain.bior.entries import WrittenText
from ktrain.bior.rewording import SUBJECT
from ktrain.bior.sentences import split_sentences
from ktrain.bior.verifier import Verifier
from ktrain.bios import pools
from ktrain.bios.pools import Pools
from ktrain.config import (
    ATTRIBUTES,
    AugmentationConfig,
    CorpusConfig,
    PoolsConfig,
    ReadoutConfig,
    TrainConfig,
    WriterConfig,
)
from ktrain.data import checks
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus
from ktrain.data.packing import Windows
from ktrain.data.questions import QuestionRows
from ktrain.errors import GuardFailure, WrongRequest
from ktrain.readout import probe_checks, probes
from ktrain.readout.probes import TASKS, ProbeTask

Tiny = Callable[..., Corpus]
RULES = WriterConfig(backend="rules")


@pytest.fixture(scope="module")
def free(tiny: Tiny) -> Tiny:
    """`tiny` in bioR."""
    return lambda **changes: tiny(kind="bioR", writer=RULES, **changes)


def inspected(corpus: Corpus) -> dict[str, str]:
    rows = QuestionRows(corpus, ReadoutConfig(), "key", 0)
    windows = Windows(corpus, "key", TrainConfig(steps=4, batch=4, context=128, warmup=0, qa_ratio=0.5), 0)
    return checks.inspect(checks.CellInputs(corpus, rows, windows))


SETTINGS: list[dict[str, object]] = [
    {},
    {"multi": 3},
    {"permute": 5},
    {"multi": 2, "permute": 1, "fullname": True, "tokenizer": "gpt2"},
    {"celebrity_fraction": 0.25, "celebrity": AugmentationConfig(multi=5, permute=0, fullname=True)},
]


@pytest.mark.parametrize("changes", SETTINGS)
def test_every_entry_is_accepted_and_its_spans_are_those_of_the_verifier(
    free: Tiny, changes: dict[str, object]
) -> None:
    corpus = free(**changes)
    judge = Verifier(pools.load())
    people = list(entries.facts_of(corpus.people, range(len(corpus.people))))
    assert len(corpus.entries) == corpus.setting.entries == len(corpus.person)
    for entry in range(len(corpus.entries)):
        ids, text = corpus.entries[entry].tolist(), corpus.entry_text(entry)
        assert text.startswith(" ") and ids == [*corpus.tokenizer.encode(text).ids, corpus.eos]
        verdict = judge.judge(text, people[corpus.person[entry]])
        assert verdict.accepted
        for (begin, end), (b, e) in zip(corpus.entries.spans[entry].tolist(), verdict.spans, strict=True):
            held = corpus.tokenizer.decode(ids[begin:end])
            assert corpus.tokenizer.decode(ids[:begin]) + held == text[: len(corpus.tokenizer.decode(ids[:end]))]
            assert held.strip().startswith(text[b:e]) and len(corpus.tokenizer.decode(ids[: end - 1])) < e
        assert corpus.order[entry].tolist() == np.argsort([b for b, _ in verdict.spans]).tolist()
    assert inspected(corpus) == {}


def test_several_entries_of_a_person_are_written_anew(free: Tiny) -> None:
    corpus = free(multi=3)
    texts = [corpus.entry_text(entry) for entry in range(len(corpus.entries))]
    assert len(set(texts)) == len(texts)
    single = free()
    assert [single.entry_text(p) for p in range(60)] == texts[::3], "the first one is the same, however many there are"


def test_permuted_entries_have_the_same_sentences_in_other_orders(free: Tiny) -> None:
    corpus, plain = free(permute=5), free()
    for person in range(60):
        texts = [corpus.entry_text(5 * person + k) for k in range(5)]
        assert all(_told(corpus, 5 * person + k) == _told(plain, person) for k in range(5)), texts
        assert len(set(texts)) > 1 or len(split_sentences(texts[0])) < 3
        for text in texts:
            told = re.search(rf"\b{corpus.people.name(person).split()[0]}\b", text)
            assert told and text[told.start() :].startswith(corpus.people.name(person))


def _told(corpus: Corpus, entry: int) -> list[list[str]]:
    """Which attributes each sentence tells, whatever their order."""
    text, person = corpus.entry_text(entry), int(corpus.person[entry])
    (about,) = entries.facts_of(corpus.people, range(person, person + 1))
    found = Verifier(corpus.people.pools).judge(text, about)
    named = dict(zip(ATTRIBUTES, found.spans, strict=True))
    bounds = split_sentences(text, [(m.begin, m.end) for m in found.mentions])
    return sorted([a for a, (begin, _) in named.items() if b <= begin < e] for b, e in bounds)


def test_with_full_names_no_pronoun_is_a_subject(free: Tiny) -> None:
    corpus = free(multi=2, fullname=True)
    assert corpus.entries.offsets[-1] > free(multi=2).entries.offsets[-1]
    for entry in range(len(corpus.entries)):
        text, name = corpus.entry_text(entry), corpus.people.name(int(corpus.person[entry]))
        first, _, last = name.split()
        assert not re.search(rf"\b(?:{'|'.join(SUBJECT)})\b", text, re.I), text
        assert not re.search(rf"\b(?:{first}|{last})\b", text.replace(name, "")), text


def test_saving_and_loading_gives_the_texts_back(free: Tiny, tmp_path: Path) -> None:
    corpus = free(multi=2, permute=1)
    corpus.save(tmp_path)
    loaded = corpora.load_corpus(tmp_path, corpus.setting, corpus.seed)
    assert [loaded.entry_text(e) for e in range(120)] == [corpus.entry_text(e) for e in range(120)]
    assert loaded.texts is not None and corpus.texts is not None and loaded.texts.acceptance == corpus.texts.acceptance
    assert np.array_equal(loaded.entries.ids, corpus.entries.ids) and np.array_equal(loaded.order, corpus.order)
    assert inspected(loaded) == {}


def test_the_same_people_have_the_same_tokenizer_whoever_writes(free: Tiny, tiny: Tiny) -> None:
    assert free().tokenizer.to_str() == tiny().tokenizer.to_str()
    assert np.array_equal(free().questions.ids, tiny().questions.ids)


def test_hostile_values_are_told(
    hostile: Pools, write_pools: Callable[[Path, Pools], PoolsConfig], tmp_path: Path
) -> None:
    sizes = write_pools(tmp_path, hostile)
    told = CorpusConfig(
        kind="bioR", writer=RULES, people=40, tokenizer="bpe-600", pools=sizes, pools_folder=str(tmp_path)
    )
    corpus = corpora.build_corpus(told, 0)
    assert inspected(corpus) == {}
    shown = "".join(corpus.entry_text(entry) for entry in range(40))
    assert "C++" in shown and 'Toys "R" Us' in shown and "São Paulo (SP)" in shown and "日本郵政" in shown


def test_somebody_of_whom_nothing_clear_can_be_written_is_named(
    hostile: Pools, write_pools: Callable[[Path, Pools], PoolsConfig], tmp_path: Path
) -> None:
    sizes = write_pools(tmp_path, replace(hostile, birth_cities=("Lincoln",), majors=("Lincoln",)))
    told = CorpusConfig(
        kind="bioR", writer=RULES, people=30, tokenizer="bpe-600", pools=sizes, pools_folder=str(tmp_path)
    )
    with pytest.raises(
        WrongRequest, match=r"^corpus\.writer\.backend=rules: cannot write clearly of .*: major: missing"
    ):
        corpora.build_corpus(told, 0)


def test_drafts_of_a_model_are_taken_as_they_are_and_judged_again(tiny: Tiny) -> None:
    by_rules = tiny(kind="bioR", writer=RULES, multi=2)
    given = [[by_rules.entry_text(2 * p + m) for p in range(60)] for m in range(2)]
    setting = by_rules.setting.model_copy(update={"writer": WriterConfig(backend="http", model="m"), "fullname": True})
    asked: list[tuple[str, int]] = []

    def drafts(group: str, m: int) -> list[WrittenText]:
        asked.append((group, m))
        return [WrittenText(text, 3) for text in given[m]]

    corpus = corpora.build_corpus(setting, by_rules.seed, drafts)
    assert asked == [("minority", 0), ("minority", 1)]
    assert np.array_equal(corpus.entries.ids, tiny(kind="bioR", writer=RULES, multi=2, fullname=True).entries.ids)
    assert corpus.texts is not None and corpus.texts.acceptance == 1 / 3
    given[1][7] = given[1][7].replace(by_rules.people.value(7, "major"), "Palmistry")
    with pytest.raises(GuardFailure, match=r"biographies: .* was accepted once, but not any more: major: missing"):
        corpora.build_corpus(setting, by_rules.seed, drafts)
    with pytest.raises(WrongRequest, match=r"^bioR by m \(http\) is not written yet"):
        corpora.build_corpus(setting, by_rules.seed)


def test_drafts_that_were_thrown_away_can_be_seen(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> None:
    corpus = tiny(kind="bioR", writer=RULES, seed=1)
    assert corpus.texts is not None
    attempts = corpus.texts.attempts.copy()
    attempts[[4, 9]] = (2, 3)
    texts = replace(corpus.texts, attempts=attempts)
    seen = list(entries.rejected_drafts(corpus.setting, 1, corpus.people, pools.load(), texts))
    assert [person for person, *_ in seen] == [4, 9, 9]
    assert texts.acceptance == 60 / (60 + 3 + (corpus.texts.attempts.sum() - 60))


def test_a_span_off_by_one_is_found_by_the_guards(free: Tiny) -> None:
    corpus = free(multi=2)
    for attribute in range(6):
        for end, by in ((0, -1), (0, 1), (1, -1), (1, 1)):
            spans = corpus.entries.spans.copy()
            spans[17, attribute, end] += by
            off = replace(corpus, entries=replace(corpus.entries, spans=spans))
            found = inspected(off)
            assert list(found) == ["spans_decode"] and f"entry 17: {ATTRIBUTES[attribute]} is" in found["spans_decode"]


def test_a_probe_is_asked_where_the_entry_begins_like_the_answer(free: Tiny) -> None:
    """`MIT` does not begin like `Massachusetts`, nor `2 October` like `October 2`: these rows are not asked for it."""
    corpus = free(multi=5, people=60)
    rows = probes.biography_rows(corpus, 0)
    assert 0.8 < rows.stated.mean() < 1
    left_out = 0
    for row in range(len(rows)):
        for column, attribute in enumerate(ATTRIBUTES):
            entry, person = int(rows.entry[row]), int(rows.person[row])
            begin = int(corpus.entries.spans[entry, column, 0])
            value = f" {corpus.people.value(person, attribute)}"
            rest = corpus.tokenizer.decode(corpus.entries[entry][begin : begin + 40].tolist())
            assert corpus.match_attribute(entry, attribute, rest) > 0
            if rest.startswith(value):
                assert rows.stated[row, column]
            asked = rows.valid(ProbeTask("first", attribute))[row]
            assert asked.sum() == (rows.sentence[row, column] + 1) * rows.stated[row, column]
            if not rows.stated[row, column]:
                left_out += 1
                assert (
                    corpus.entries.ids[corpus.entries.offsets[entry] + begin] != corpus.tokenizer.encode(value).ids[0]
                )
    assert left_out
    learned, tested = corpus.people_split("minority")
    classes = {task: probes.classes(corpus, task) for task in TASKS}
    streams = {task: probes.Stream(rows, classes[task], learned, 50, 0, str(task)) for task in TASKS}
    seen = probe_checks.ProbeInputs(corpus, tested, rows, streams, classes)
    assert {name: guard(seen) for name, guard in probe_checks.PROBE_GUARDS.items() if guard(seen)} == {}
