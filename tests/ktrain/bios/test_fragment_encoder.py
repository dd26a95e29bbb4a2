"""Composed ids against the ids of the whole text: what every number of this project stands on."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ktrain.bios import fragment_encoder
from ktrain.bios.fragment_encoder import FragmentEncoder
from ktrain.bios.pools import Pools, appearance, text_fault
from ktrain.bios.templates import QUESTIONS, fragments, load, name_fault, template_fault
from ktrain.bios.tokenizer import gpt2
from ktrain.config import ATTRIBUTES, AugmentationConfig, CorpusConfig, PoolsConfig
from ktrain.data import corpus as corpora
from ktrain.data.corpus import Corpus

Told = Callable[[Corpus, int], tuple[str, dict[str, int]]]

HOSTILE_TEMPLATES = (
    "{name} had {value}'s honour, '{his}' own.",
    "{name's} file (of {value}): closed.",
    'Is it so? {name} {was|were} of {value}... "so" {his|her} file says.',
    "Indeed, {name} {has been|have been} 2 x happy in {value}; see {his} 'file'.",
    "By law.. {name's} 3rd file of {value}.. is 100% full.",
    "{name}, of {value}-based fame, call{s|} it a day.",
)
"""Punctuation, digits and contractions around the slots."""
OWN_QUESTION = "What about {name}? Answer: {value}."
BUILTIN = load()


def is_pool_value(text: str) -> bool:
    """Whether a pool may hold it."""
    return bool(text) and not text.startswith("#") and text_fault(text) is None


letters = st.characters(codec="utf-8", max_codepoint=0x24F) | st.sampled_from("'.,&0369 日本é€™™🙂\u0301\u200b\u017f—")
words = st.text(letters, min_size=1, max_size=8).map(lambda t: " ".join(t.split())).filter(is_pool_value)
values = words | st.sampled_from(
    ["Acme Inc.", "St. Louis, MO", "AT&T", "O'Neill", "3M", "Université", "Yahoo!", "7-Eleven", "D.C.", "C++",
     "E*TRADE™", "I'll", "'s", "don't", ".", "...", "(x)", "1996", "é"]
)  # fmt: skip


@st.composite
def pools(draw: st.DrawFn) -> Pools:
    def pool(least: int = 1, most: int = 3) -> tuple[str, ...]:
        return tuple(draw(st.lists(values, min_size=least, max_size=most, unique_by=appearance)))

    companies = pool()
    cities = tuple(draw(st.lists(values, min_size=len(companies), max_size=len(companies))))
    years, own = draw(st.integers(1, 200)), draw(st.sampled_from([(), ("hobby",), ("club", "hobby")]))
    owned = {attribute: pool(3, 4) for attribute in own}
    return Pools(pool(2), pool(2), pool(), pool(), pool(), pool(), companies, cities, years, owned)


@st.composite
def templates(draw: st.DrawFn) -> dict[str, list[str]]:
    def some(attribute: str) -> list[str]:
        known = st.sampled_from([*HOSTILE_TEMPLATES, *BUILTIN[attribute]])
        return draw(st.lists(known, min_size=1, max_size=3, unique=True))

    return {attribute: some(attribute) for attribute in ATTRIBUTES}


def bytes_before(tokenizer: Tokenizer, ids: np.ndarray) -> list[int]:
    """How many bytes of text stand before each token, and before the end: a token has a letter for each byte."""
    lengths = [len(tokenizer.id_to_token(int(i)) or "") for i in ids]
    return [0, *itertools.accumulate(lengths)]


def check_span(at: list[int], span: np.ndarray, text: str, begin: int, value: str) -> None:
    """The span starts at the value's leading space and ends with the first token that completes the value."""
    assert text[begin - 1 : begin + len(value)] == f" {value}"
    first, last = map(int, span)
    end = len(text[: begin + len(value)].encode())
    assert at[first] == len(text[: begin - 1].encode())
    assert at[last - 1] < end <= at[last]


def check(corpus: Corpus, told: Told) -> None:
    """Every entry and question of a corpus against its text."""
    entries, questions = corpus.entries, corpus.questions
    assert len(entries) == corpus.setting.entries
    count = len(corpus.attributes)
    assert len(questions) == len(corpus.people) * count
    for composed in (entries, questions):
        assert composed.ids.dtype == np.uint16 and composed.offsets.dtype == np.int64
        assert composed.offsets[0] == 0 and composed.offsets[-1] == len(composed.ids)
        assert (np.diff(composed.offsets) > 1).all()
        # EOS ends every text and stands nowhere else.
        assert np.array_equal(np.flatnonzero(composed.ids == corpus.eos), composed.offsets[1:] - 1)
    for entry in range(len(entries)):
        text, begins = told(corpus, entry)
        ids = entries[entry]
        assert ids.tolist() == [*corpus.tokenizer.encode(text).ids, corpus.eos]
        at = bytes_before(corpus.tokenizer, ids[:-1])
        for attribute, span in zip(corpus.attributes, entries.spans[entry], strict=True):
            value = corpus.people.value(int(corpus.person[entry]), attribute)
            check_span(at, span, text, begins[attribute], value)
    for question in range(len(questions)):
        person, attribute = question // count, corpus.attributes[question % count]
        value = corpus.people.value(person, attribute)
        asked = QUESTIONS.get(attribute, OWN_QUESTION)
        prompt = asked.replace("{name}", corpus.people.name(person)).removesuffix(" {value}.")
        ids = questions[question]
        assert ids.tolist() == [*corpus.tokenizer.encode(f"{prompt} {value}.").ids, corpus.eos]
        at = bytes_before(corpus.tokenizer, ids[:-1])
        check_span(at, questions.spans[question, 0], f"{prompt} {value}.", len(prompt) + 1, value)
        assert corpus.question_text(person, attribute) == (prompt, f" {value}.")


@settings(max_examples=80, deadline=None)
@given(
    drawn=pools(),
    sentences=templates(),
    people=st.integers(4, 6),
    multi=st.integers(1, 3),
    permute=st.integers(0, 3),
    fullname=st.booleans(),
    tokenizer=st.sampled_from(["gpt2", "bpe-600"]),
    seed=st.integers(0, 2**31 - 1),
)
def test_composed_ids_are_those_of_the_whole_text(
    told: Told,
    write_pools: Callable[[Path, Pools], PoolsConfig],
    drawn: Pools,
    sentences: dict[str, list[str]],
    people: int,
    multi: int,
    permute: int,
    fullname: bool,
    tokenizer: str,
    seed: int,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = write_pools(folder / "pools", drawn)
        (folder / "templates").mkdir()
        (folder / "questions").mkdir()
        for attribute, lines in (sentences | {own: sentences["major"] for own in drawn.own}).items():
            (folder / "templates" / f"{attribute}.txt").write_text("\n".join(lines), encoding="utf-8")
        for attribute in drawn.own:
            (folder / "questions" / f"{attribute}.txt").write_text(OWN_QUESTION)
        setting = CorpusConfig(
            people=min(people, drawn.name_count),
            multi=multi,
            permute=permute,
            fullname=fullname,
            tokenizer=tokenizer,
            pools=sizes,
            pools_folder=str(folder / "pools"),
            templates_folder=str(folder / "templates"),
            questions_folder=str(folder / "questions") if drawn.own else None,
        )
        corpus = corpora.build_corpus(setting, seed)
    check(corpus, told)
    last = len(corpus.entries) - 1
    assert corpus.entry_text(last) == told(corpus, last)[0]


def test_the_hostile_templates_have_no_fault() -> None:
    assert [template_fault(t) or name_fault(t) for t in HOSTILE_TEMPLATES] == [None] * len(HOSTILE_TEMPLATES)


@pytest.mark.parametrize("tokenizer", ["gpt2", "bpe-600", "bpe-2048"])
@pytest.mark.parametrize(("multi", "permute", "fullname"), [(1, 0, False), (5, 1, False), (1, 5, True)])
def test_built_in_templates_and_small_pools_compose_to_the_ids_of_the_text(
    tiny: Callable[..., Corpus], told: Told, tokenizer: str, multi: int, permute: int, fullname: bool
) -> None:
    check(tiny(tokenizer=tokenizer, multi=multi, permute=permute, fullname=fullname), told)


@pytest.mark.parametrize("fullname", [False, True])
def test_celebrities_and_couples_compose_to_the_ids_of_the_text(
    tiny: Callable[..., Corpus], told: Told, fullname: bool
) -> None:
    """Each group with full names where the other has pronouns."""
    celebrity = AugmentationConfig(multi=2, permute=1, fullname=not fullname)
    check(tiny(people=30, couple=2, fullname=fullname, celebrity_fraction=0.4, celebrity=celebrity), told)


def test_every_built_in_template_with_every_hostile_value_composes_to_the_ids_of_the_text(hostile: Pools) -> None:
    """Each sentence alone, named and not, for people who together have every value of every pool."""
    programs = [
        fragments(t, a, hostile, named=named) for a in ATTRIBUTES for t in BUILTIN[a] for named in (True, False)
    ]
    composer = FragmentEncoder(gpt2(), programs)
    rng = np.random.default_rng(0)
    sizes = [1, 4, 3, 4, 3, 2, 12, 28, 200, 4, 4, 4, 8]
    columns = rng.integers(sizes, size=(24, len(sizes))).astype(np.int32)
    assert all(len(set(column)) == min(size, 24) for column, size in zip(columns.T, sizes, strict=True) if size <= 4)
    chosen = np.repeat(np.arange(len(programs)), len(columns))[:, None]
    people = np.tile(np.arange(len(columns)), len(programs))
    composed = composer.encode(chosen, columns, people)
    texts = [composer.text(p, columns[person]) for p, person in zip(chosen, people, strict=True)]
    for i, encoding in enumerate(gpt2().encode_batch(texts)):
        assert composed[i].tolist() == [*encoding.ids, 50_256], texts[i]


@pytest.mark.parametrize("chunk", [1, 7, 299, 300, 301])
def test_chunks_join_without_a_seam(tiny: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    whole = tiny(multi=5, permute=1)
    assert len(whole.entries) == 300
    monkeypatch.setattr(fragment_encoder, "CHUNK", chunk)
    parts = corpora.build_corpus(whole.setting, whole.seed)
    for name in ("entries", "questions"):
        for field, value in vars(getattr(whole, name)).items():
            found = getattr(getattr(parts, name), field)
            assert found.dtype == value.dtype and np.array_equal(found, value), (name, field)
