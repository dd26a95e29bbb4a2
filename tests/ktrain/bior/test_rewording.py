"""Full names and shuffled sentences, on free text whose mentions the verifier finds."""

import random

import pytest

from ktrain.bior.entries import facts_of
from ktrain.bior.mentions import Facts
from ktrain.bior.rewording import shuffle_sentences, singular, with_full_names
from ktrain.bior.rule_writer import write
from ktrain.bior.sentences import split_sentences
from ktrain.bior.verifier import Verifier
from ktrain.bios import people, pools

VALUES = ("October 2, 1996", "Saint Louis, MO", "Massachusetts Institute of Technology", "Computer Science", "Lowe's",
          "Washington, DC")  # fmt: skip
ANN = Facts("Ann", "Bea", "Lowe", 1, VALUES)
TEXT = (
    "Ann Bea Lowe was born in St. Louis, Missouri. She studied computer science at MIT, where her friends met her. Her "
    "birthday is October 2, 1996. Ms. Lowe works at Lowe's Inc. in Washington, D.C. Ann likes it."
)


@pytest.fixture(scope="module")
def judge() -> Verifier:
    return Verifier(pools.load())


def test_every_pronoun_and_partial_name_becomes_the_full_name(judge: Verifier) -> None:
    found = judge.judge(TEXT, ANN)
    assert found.accepted, found.explanation
    assert with_full_names(TEXT, found.mentions, ANN) == (
        "Ann Bea Lowe was born in St. Louis, Missouri. Ann Bea Lowe studied computer science at MIT, where her friends "
        "met Ann Bea Lowe. Ann Bea Lowe's birthday is October 2, 1996. Ann Bea Lowe works at Lowe's Inc. in "
        "Washington, D.C. Ann Bea Lowe likes it."
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("They were glad. They work hard and are busy. Their day ends.",
         "Ann Bea Lowe was glad. Ann Bea Lowe works hard and is busy. Ann Bea Lowe's day ends."),
        ("He met him at his house, and he left with him.",
         "Ann Bea Lowe met Ann Bea Lowe at his house, and Ann Bea Lowe left with Ann Bea Lowe."),
        ("She knew that they liked her. Their praise was for her work.",
         "Ann Bea Lowe knew that they liked Ann Bea Lowe. Their praise was for Ann Bea Lowe's work."),
        ("Nobody is named.", "Nobody is named."),
        ("Ann B. Lowe and Mr. Lowe, Ann's own name.", "Ann Bea Lowe and Ann Bea Lowe, Ann Bea Lowe's own name."),
        ("They now apply it. They still have it. They usually try. They focus and serve.",
         "Ann Bea Lowe now applies it. Ann Bea Lowe still has it. Ann Bea Lowe usually tries. Ann Bea Lowe focuses and "
         "serves."),
    ],
)  # fmt: skip
def test_pronouns_are_those_of_the_person_and_verbs_agree(judge: Verifier, before: str, after: str) -> None:
    assert with_full_names(before, judge.judge(before, ANN).mentions, ANN) == after


def test_shuffled_sentences_begin_with_the_full_name_and_go_on_with_less(judge: Verifier) -> None:
    mentions = judge.judge(TEXT, ANN).mentions
    assert shuffle_sentences(TEXT, mentions, ANN, [0.5, 0.1, 0.9, 0.3, 0.2]) == (
        "Ann Bea Lowe studied computer science at MIT, where her friends met her. Ann likes it. Ms. Lowe works at "
        "Lowe's Inc. in Washington, D.C. She was born in St. Louis, Missouri. Her birthday is October 2, 1996."
    )
    # In the order that they have, nothing changes.
    assert shuffle_sentences(TEXT, mentions, ANN, [0.1, 0.2, 0.3, 0.4, 0.5]) == TEXT
    assert (
        shuffle_sentences(f" {TEXT}", judge.judge(f" {TEXT}", ANN).mentions, ANN, [0.1, 0.2, 0.3, 0.4, 0.5])
        == f" {TEXT}"
    )


def test_without_he_or_she_the_first_name_stands_in(judge: Verifier) -> None:
    text = "It rains. Ann Bea Lowe was born in St. Louis, MO. They left. Those who met Ann Bea Lowe agree"
    mentions = judge.judge(text, ANN).mentions
    assert shuffle_sentences(text, mentions, ANN, [0.4, 0.3, 0.2, 0.1]) == (
        "Those who met Ann Bea Lowe agree. They left. Ann was born in St. Louis, MO. It rains."
    )


@pytest.mark.parametrize(
    ("plural", "one"),
    [("were", "was"), ("have", "has"), ("work", "works"), ("try", "tries"), ("play", "plays"), ("teach", "teaches"),
     ("studied", "studied"), ("came", "came"), ("can", "can"), ("go", "goes"), ("focus", "focuses")],
)  # fmt: skip
def test_a_verb_for_they_becomes_one_for_a_name(plural: str, one: str) -> None:
    assert singular(plural) == one


def test_what_is_accepted_stays_accepted_in_any_order_and_with_full_names(judge: Verifier) -> None:
    """The verifier looks at one sentence at a time, and a name more tells nothing wrong."""
    rng = random.Random(3)
    for about in facts_of(people.draw_people(pools.load(), 150, 3), range(150)):
        text = write(about, rng)
        found = judge.judge(text, about)
        for _ in range(2 * found.accepted):
            mixed = shuffle_sentences(text, found.mentions, about, [rng.random() for _ in range(16)])
            again = judge.judge(mixed, about)
            assert again.accepted, f"{again.explanation}\n{text}\n{mixed}"
            named = with_full_names(mixed, again.mentions, about)
            last = judge.judge(named, about)
            assert last.accepted, f"{last.explanation}\n{mixed}\n{named}"
            counts = [
                len(split_sentences(t, [(m.begin, m.end) for m in v.mentions]))
                for t, v in ((text, found), (named, last))
            ]
            assert counts[0] == counts[1], f"{text}\n{named}"
            assert all(m.complete for m in last.mentions if m.kind == "name")
