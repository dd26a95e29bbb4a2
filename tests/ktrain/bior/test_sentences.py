from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktrain.bior.sentences import continues, fold, split_sentences, split_words


def split(text: str, *whole: str) -> list[str]:
    spans = [(text.index(piece), text.index(piece) + len(piece)) for piece in whole]
    return [text[begin:end] for begin, end in split_sentences(text, spans)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("He was born in St. Louis, MO. He left.", 2),
        ("He works in Washington, D.C. He left.", 2),
        ("He works in Washington, D.C. for Acme Inc. in Ft. Worth, Tex. and likes it.", 1),
        ("Mr. Kim met Dr. Ann B. Cole. They talked.", 2),
        ("She joined Apple Inc. Now she codes.", 2),
        ("She joined Apple Inc. California knows her.", 1),
        ("She left Jackson, MS. Ms. Kim stayed.", 2),
        ("Born on Oct. 2, 1996, she left! Why? Nobody knows... Not even she.", 4),
        ("“She left.” Then “He stayed.” (He did.) And so on.", 4),
        ("A 3.5 average at the U.S. office. 42 people came.", 2),
        ("one. two. three", 1),
        ("", 0),
        ("   ", 0),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, count: int) -> None:
    assert len(split(text)) == count
    assert " ".join(split(text)) == text.strip()


def test_no_sentence_ends_inside_a_value_and_one_ends_before_a_value_behind_an_abbreviation() -> None:
    text = "He works at Warner! Bros. Studios in Wayne, N.J. Acme Corp. Target hired him."
    assert len(split(text)) == 2
    whole = ("Warner! Bros. Studios", "Wayne, N.J.", "Acme Corp.", "Target")
    assert split(text, *whole) == [
        "He works at Warner! Bros. Studios in Wayne, N.J.",
        "Acme Corp.",
        "Target hired him.",
    ]


@given(st.text("Ab. ,!?'\n\u201d", max_size=60))
def test_sentences_are_apart_and_lose_nothing_but_spaces(text: str) -> None:
    bounds = split_sentences(text)
    assert all(b < e and not text[b].isspace() and not text[e - 1].isspace() for b, e in bounds)
    assert all(e <= b and text[e:b].isspace() for (_, e), (b, _) in pairwise(bounds))
    assert "".join(text.split()) == "".join("".join(text[b:e].split()) for b, e in bounds)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("J.P. Morgan", "jpmorgan"),
        ("McDonald\u2019s", "mcdonalds"),
        ("Est\u00e9e Lauder", "esteelauder"),
        ("Johnson & Johnson", "johnsonandjohnson"),
        ("Winston\u2013Salem, N.C.", "winstonsalemnc"),
        ("3M", "3m"),
        ("$%!", ""),
    ],
)
def test_folding_keeps_what_tells_values_apart(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_a_word_knows_its_place_and_what_it_is_without_its_possessive() -> None:
    text = "Nike's CEO, O'Neill's."
    assert [(text[w.begin : w.end], w.folded, w.stem) for w in split_words(text)] == [
        ("Nike's", "nikes", "nike"), ("CEO", "ceo", "ceo"), ("O'Neill's", "oneills", "oneill"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "goes"),
    [("Ann Arbor", True), ("Portland, OR", True), ("St. Louis", True), ("D.C", True), ("Warner Bros. Discovery", True),
     ("Portland. Oregon", False), ("one - and then", True), ("one; two", False), ("a..... b", False)],
)  # fmt: skip
def test_a_value_does_not_go_on_behind_a_full_stop(text: str, goes: bool) -> None:
    before, after = split_words(text)[-2:]
    assert continues(text, before, after) is goes
