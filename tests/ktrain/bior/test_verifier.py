"""The verifier on 300 labelled entries, on mutations, and rule by rule."""

import functools
import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ktrain.bior import surface_forms, verifier
from ktrain.bior.entries import facts_of
from ktrain.bior.mentions import Facts
from ktrain.bior.rule_writer import write
from ktrain.bior.sentences import split_sentences
from ktrain.bior.verifier import Verifier
from ktrain.bios import people, pools
from ktrain.bios.templates import POSSESSIVE, SUBJECT
from ktrain.config import ATTRIBUTES

FILE = Path(__file__).parent / "entries.toml"
VAGUE = ("a spring day", "a small town", "a public university", "a demanding subject", "a large firm", "the city")
OBJECT = ("him", "her", "them")


@dataclass(frozen=True)
class Labelled:
    """A text about a person; `wrong` says what is wrong with it, empty where nothing is."""

    text: str
    facts: Facts
    wrong: str


@pytest.fixture(scope="module")
def judge() -> Verifier:
    return Verifier(whole_pools())


def person(told: dict[str, Any]) -> Facts:
    return Facts(*told["names"], told["pronoun"], tuple(told["facts"]))


def filled(text: str, about: Facts, values: tuple[str, ...]) -> str:
    """A free text with its slots filled; they are three people here, so that verbs need not agree."""
    words = {"he": SUBJECT, "his": POSSESSIVE, "him": OBJECT}
    for slot, forms_of in words.items():
        word = forms_of[about.pronoun]
        text = text.replace(f"{{{slot}}}", word).replace(f"{{{slot.capitalize()}}}", word.capitalize())
    text = re.sub(r"\bN\b", about.name, text)
    text = re.sub(r"\bF\b", about.first, re.sub(r"\bL\b", about.last, text))
    text = text.format(**dict(zip(ATTRIBUTES, values, strict=True)))
    return text.replace("the prestigious The ", "the prestigious ").replace(
        "Meet " + about.name + "!", f"Meet {about.name}!"
    )


def labelled() -> list[Labelled]:
    """40 free texts in five or six versions each, and those that were written out."""
    read = tomllib.loads(FILE.read_text(encoding="utf-8"))
    found = []
    for k, text in enumerate(read["free"]):
        about, told = person(read["people"][k % 5]), read["people"][k % 5]
        values = about.values
        found.append(Labelled(filled(text, about, values), about, ""))
        found.append(Labelled(filled(text, about, tuple(told["forms"])), about, ""))
        for changed in {k % 6, (k + 3) % 6} if k < 25 else {k % 6}:
            mixed = [told["other"][a] if a == changed else value for a, value in enumerate(values)]
            found.append(Labelled(filled(text, about, tuple(mixed)), about, f"another {ATTRIBUTES[changed]}"))
        lost = (k + 1) % 6
        vague = [VAGUE[a] if a == lost else value for a, value in enumerate(values)]
        found.append(Labelled(filled(text, about, tuple(vague)), about, f"no {ATTRIBUTES[lost]}"))
        theirs = person(read["people"][(k + 1) % 5])
        mixed = [theirs.values[a] if a == (k + 2) % 6 else value for a, value in enumerate(values)]
        found.append(Labelled(filled(text, about, tuple(mixed)), about, f"the {ATTRIBUTES[(k + 2) % 6]} of another"))
    for label in ("right", "wrong"):
        for case in read[label]:
            *names, pronoun = case["of"][:4]
            about = Facts(*names, int(pronoun), tuple(case["of"][4:]))
            found += [Labelled(text, about, case["why"] if label == "wrong" else "") for text in case["texts"]]
    return found


def test_of_300_labelled_entries_no_wrong_one_is_accepted_and_nearly_all_right_ones_are(judge: Verifier) -> None:
    entries = labelled()
    assert len(entries) == 300 and sum(not entry.wrong for entry in entries) == 110
    judged = [(entry, judge.judge(f" {entry.text}", entry.facts)) for entry in entries]
    wrong = [f"{entry.wrong}: {entry.text}" for entry, verdict in judged if entry.wrong and verdict.accepted]
    assert not wrong, "\n".join(wrong)
    lost = [f"{v.explanation}\n   {entry.text}" for entry, v in judged if not entry.wrong and not v.accepted]
    assert len(lost) <= 0.03 * 110, "\n".join(lost)


@functools.cache
def whole_pools() -> pools.Pools:
    """Read once: reading and checking the files takes ten times as long as judging a text. They are frozen."""
    return pools.load()


def drawn(count: int, seed: int = 0) -> list[Facts]:
    return list(facts_of(people.draw_people(whole_pools(), count, seed), range(count)))


def mutations(text: str, about: Facts, spans: tuple[tuple[int, int], ...], rng: random.Random) -> Iterator[str]:
    """The text with one fact in place of which another value of its pool stands, in one of its forms."""
    whole = whole_pools()
    pool = (None, whole.birth_cities, whole.universities, whole.majors, whole.companies, whole.company_cities)
    for attribute, values, (begin, end) in zip(ATTRIBUTES, pool, spans, strict=True):
        mine = about.values[ATTRIBUTES.index(attribute)]
        other = mine
        while other == mine:
            if values is None:
                month, day = rng.choice(pools.MONTHS), rng.randint(1, 28)
                other = rng.choice(
                    [f"{month} {day}, {mine[-4:]}", re.sub(r"\d{4}$", str(rng.randint(1900, 2099)), mine)]
                )
            else:
                other = rng.choice(values)
        written = (
            [other]
            if values is None
            else [other, *surface_forms.alternative_texts(surface_forms.VALUE_KINDS[attribute], other)]
        )
        yield text[:begin] + rng.choice(written) + text[end:]


def test_of_10_000_entries_with_one_fact_changed_none_is_accepted(judge: Verifier) -> None:
    rng, tried = random.Random(0), 0
    for about in drawn(1680):
        text = write(about, rng)
        verdict = judge.judge(text, about)
        for changed in mutations(text, about, verdict.spans, rng) if verdict.accepted else ():
            assert not judge.judge(changed, about).accepted, f"{about.values}\n{changed}"
            tried += 1
    assert tried >= 10_000


def test_a_fact_that_is_left_out_is_missed_by_name(judge: Verifier) -> None:
    """Of every sentence, leaving it out costs the facts that stand nowhere else."""
    rng = random.Random(1)
    for about in drawn(60, seed=1):
        text = write(about, rng)
        spans = judge.judge(text, about).spans
        for begin, end in split_sentences(text):
            lost = {a for a, (b, _) in zip(ATTRIBUTES, spans, strict=True) if begin <= b < end}
            verdict = judge.judge(text[:begin] + text[end + 1 :], about)
            assert set(verdict.reasons) - {"name"} >= lost - set(ATTRIBUTES[1:2]) - set(ATTRIBUTES[5:])
            assert bool(verdict.spans) == verdict.accepted
            assert not lost or not verdict.accepted


MELISSA = Facts(
    "Melissa", "Jade", "Walsh", 1,
    ("October 2, 1996", "Chicago, IL", "Massachusetts Institute of Technology", "Computer Science", "Target",
     "Minneapolis, MN"),
)  # fmt: skip
PLAIN = "Melissa Jade Walsh was born on October 2, 1996, in Chicago, IL. She studied Computer Science at MIT. She works for Target in Minneapolis, MN."  # noqa: E501


@pytest.mark.parametrize(
    ("old", "new", "about", "reason"),
    [
        ("", "", "", ""),
        ("October 2, 1996", "a Tuesday", "birth_date", "missing"),
        ("October 2, 1996", "October 2", "birth_date", "only in part"),
        ("October 2, 1996", "10/2/1996", "birth_date", "ambiguous"),
        ("October 2, 1996", "10/22/1996", "birth_date", "wrong value: 10/22/1996"),
        ("Chicago, IL", "Chicago", "birth_city", "only in part"),
        ("Chicago, IL", "Oakland", "birth_city", "wrong value: Oakland"),
        ("Chicago, IL", "Springfield, IL", "birth_city", "wrong value: Springfield"),
        ("Chicago, IL", "Cicero, IL", "birth_city", "wrong value: IL"),
        ("MIT", "Yale University", "university", "wrong value: Yale University"),
        ("MIT", "mit", "university", "missing"),
        ("Computer Science", "dance", "major", "wrong value: dance"),
        ("Target", "Apple Inc.", "company", "wrong value: Apple"),
        ("in Minneapolis, MN", "in Chicago, IL", "company_city", "missing"),
        ("Melissa Jade Walsh", "Melissa Walsh", "name", "name missing"),
        ("She works", "Roger Kim works", "name", "another person: Roger Kim"),
        ("Melissa Jade", "Kelly Melissa Jade", "name", "another person: Kelly Melissa Jade Walsh"),
        ("Walsh was", "Walsh Smith was", "name", "another person: Melissa Jade Walsh Smith"),
        ("at MIT", "at MIT with UMass", "university", "wrong value: UMass"),
        ("She works", "She never works", "company", "ambiguous"),
        ("She works", "<|endoftext|>She works", "text", "holds the end token"),
    ],
)
def test_a_rejection_says_what_is_wrong_with_which_attribute(
    judge: Verifier, old: str, new: str, about: str, reason: str
) -> None:
    verdict = judge.judge(PLAIN.replace(old, new, 1) if old else PLAIN, MELISSA)
    assert verdict.reasons.get(about, "") == reason and verdict.accepted == (not reason)
    kind = reason.partition(":")[0]
    assert not reason or (kind in verifier.REASONS and f"{about}: {reason}" in verdict.explanation)


def test_spans_are_first_mentions_whole_or_not(judge: Verifier) -> None:
    text = (
        "A Chicago native, Melissa Jade Walsh was born in Chicago, IL on October 2nd, 1996. The Massachusetts "
        "Institute of Technology (MIT) taught her computer science. Target's office in Minneapolis, "
        "Minnesota employs her."
    )
    spans = judge.judge(text, MELISSA).spans
    assert [text[begin:end] for begin, end in spans] == [
        "October 2nd, 1996", "Chicago", "Massachusetts Institute of Technology", "computer science", "Target",
        "Minneapolis, Minnesota",
    ]  # fmt: skip


def test_an_entry_that_repeats_its_prompt_is_a_copy(judge: Verifier) -> None:
    words = PLAIN.split()
    for shared, copied in ((verifier.COPIED, False), (verifier.COPIED + 1, True)):
        prompt = "Write about this: " + " ".join(words[3 : 3 + shared])
        assert judge.judge(PLAIN, MELISSA, prompt).accepted is not copied
        assert (judge.judge(PLAIN, MELISSA, prompt).reasons.get("text") == verifier.COPY) is copied


def test_what_a_smaller_corpus_leaves_out_is_wrong_too() -> None:
    """A verifier knows all values of the pools, and people from them all."""
    known = Verifier(pools.load())
    assert not known.judge(PLAIN.replace("Target", "Datadog"), replace(MELISSA)).accepted
    assert known.judge("", MELISSA).reasons.keys() == {"name", *ATTRIBUTES}


def test_reasons_begin_with_their_kind(judge: Verifier) -> None:
    texts = [PLAIN.replace("Target", company) for company in ("Apple", "Nike", "someone", "Target")]
    reasons = [dict(judge.judge(text, MELISSA).reasons) for text in texts]
    kinds = [{subject: reason.partition(":")[0] for subject, reason in each.items()} for each in reasons]
    assert kinds == [{"company": "wrong value"}, {"company": "wrong value"}, {"company": "missing"}, {}]
