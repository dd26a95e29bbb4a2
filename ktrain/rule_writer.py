"""The rule-based writer of bioR: biographies in a free style, put together from phrases. It is no language model.

Facts come in any order, alone or two to a phrase, phrases alone or two to a sentence, between sentences that tell no
fact; people go by pronouns and parts of their names after the first mention, and values by other accepted forms. All
phrases stand in `data/rule_writer.toml`.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import TypeVar

from ktrain import forms
from ktrain.config import ATTRIBUTES
from ktrain.dates import parsed
from ktrain.mentions import Facts
from ktrain.rewording import OBJECT
from ktrain.templates import POSSESSIVE, SUBJECT

PHRASES = Path(__file__).parent / "data" / "rule_writer.toml"
PAIRS = {"birth": ("birth_date", "birth_city"), "studies": ("university", "major"), "work": ("company", "company_city")}
PHASES = {unit: phase for phase, (pair, both) in enumerate(PAIRS.items()) for unit in (pair, *both)}
PAIRED, JOINED = 0.5, 0.45
"""How often two facts of a pair share a phrase, and two phrases a sentence."""
WORDS = (49, 68)
"""Sentences that tell no fact are added until an entry is as long as a number of words between these: 72 tokens of
GPT-2's, as the paper's entries (section 2.1)."""
_TOKEN = re.compile(r"\{([^{}]*)\}|([\[\]<>/])|([^\[\]<>/{}]+)")
Phrase = Callable[["_Told"], str]
T = TypeVar("T")


def write(facts: Facts, rng: Random) -> str:
    """One biography, beginning with its space; the same for the same facts and state of `rng`."""
    phrases = _phrases()
    units: list[str] = []
    for pair, both in PAIRS.items():
        units += [pair] if rng.random() < PAIRED else list(both)
    _shuffle(units, rng)
    told = _Told(facts, rng)
    sentences: list[str] = []
    while units:
        two = len(units) > 1 and rng.random() < JOINED
        sentences.append(_sentence([units.pop() for _ in range(1 + two)], phrases, told))
    wanted = WORDS[0] + rng.random() * (WORDS[1] - WORDS[0])
    fillers: list[str] = []
    while len(fillers) < 4 and sum(s.count(" ") for s in (*sentences, *fillers)) + 8 < wanted:
        fillers.append(told.whole(_drawn(phrases["filler"]["sentence"], rng)))
    for filler in fillers:
        sentences.insert(1 + int(rng.random() * len(sentences)), filler)
    return "".join(sentences)


class _Told:
    """The state of an entry while it is written: how its person was called last, and how values are spelled."""

    def __init__(self, facts: Facts, rng: Random) -> None:
        self._facts, self.rng = facts, rng
        self.values = {a: _spelled(a, v, rng) for a, v in zip(ATTRIBUTES, facts.values, strict=True)}
        self._named = False
        self.plural = False
        """Whether the subject is they: a name is one person."""
        self._called: str | None = ""

    def begin(self) -> bool:
        """Chooses what the person is called in the next sentence; returns whether that is a name."""
        choice = self.rng.random() if self._named else 1.0
        first, last = self._facts.first, self._facts.last
        self._called = (
            None if choice < 0.58 else first if choice < 0.76 else last if choice < 0.84 else self._facts.name
        )
        self.plural = self._called is None and self._facts.pronoun == 2
        self._named = True
        return self._called is not None

    def slot(self, name: str) -> str:
        """What stands in a slot of a phrase."""
        pronoun = self._facts.pronoun
        match name:
            case "name":
                return self._called or SUBJECT[pronoun]
            case "whom":
                return self._called or OBJECT[pronoun]
            case "name's":
                return f"{self._called}'s" if self._called else POSSESSIVE[pronoun]
            case "he":
                return SUBJECT[pronoun] if pronoun < 2 else self._facts.first
            case "his":
                return POSSESSIVE[pronoun]
        return self.values[name]

    def whole(self, phrase: Phrase) -> str:
        """A sentence of its own."""
        self.begin()
        return _finished(phrase(self))


def _sentence(units: Sequence[str], phrases: dict[str, dict[str, list[Phrase]]], told: _Told) -> str:
    """A sentence about one or two units."""
    rng, (unit, *more) = told.rng, units
    if not more:
        if rng.random() < 0.35:
            return told.whole(_drawn(phrases[unit]["sentence"], rng))
        told.begin()
        return _finished(f"{told.slot('name')} {_drawn(phrases[unit]['predicate'], rng)(told)}")
    named = told.begin()
    style = rng.random()
    if style < 0.45 and PHASES[more[0]] > PHASES[unit]:
        # Nobody is born from an office.
        unit, more = more[0], [unit]
    about, ends = phrases[more[0]], _drawn(phrases[unit]["predicate"], rng)(told)
    if style < 0.45:
        return _finished(f"{_drawn(about['opener'], rng)(told)}, {told.slot('name')} {ends}")
    if style < 0.65 and named:
        return _finished(f"{told.slot('name')}, {_drawn(about['apposition'], rng)(told)}, {ends}")
    return _finished(f"{told.slot('name')} {_drawn(about['predicate'], rng)(told)} and {ends}")


def _finished(text: str) -> str:
    """With a space before, a capital letter and a full stop."""
    return f" {text[0].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def _spelled(attribute: str, value: str, rng: Random) -> str:
    """A value in one of its forms, mostly the one that questions ask for."""
    chance = rng.random()
    if attribute == "birth_date":
        year, _, day = parsed(value)
        name = value.partition(" ")[0]
        if chance < 0.12:
            return f"{name} {_ordinal(day)}, {year}"
        return f"{day} {name} {year}" if chance < 0.16 else value
    if attribute in ("birth_city", "company_city") and chance < 0.25:
        return _drawn(forms.texts("place", value) or [value], rng)
    if attribute == "company" and chance < 0.08 and re.fullmatch(r"[A-Z]\w+", value):
        return f"{value} Inc."
    if attribute == "university":
        if chance < 0.15:
            return _drawn(forms.texts("university", value) or [value], rng)
        return f"the {value}" if value.startswith("University ") and chance < 0.85 else value
    return value.lower() if attribute == "major" and chance < 0.02 and value != "English" else value


def _ordinal(day: int) -> str:
    return f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"


def _drawn(choices: Sequence[T], rng: Random) -> T:
    return choices[int(rng.random() * len(choices))]


def _shuffle(items: list[str], rng: Random) -> None:
    """In place; by `random` alone, whose numbers stay the same in every version of Python."""
    for k in range(len(items) - 1, 0, -1):
        other = int(rng.random() * (k + 1))
        items[k], items[other] = items[other], items[k]


@cache
def _phrases() -> dict[str, dict[str, list[Phrase]]]:
    """All phrases, ready to be told, by unit and place in a sentence."""
    with PHRASES.open("rb") as file:
        read = tomllib.load(file)
    return {
        unit: {place: [_parsed(text) for text in texts] for place, texts in of.items()} for unit, of in read.items()
    }


def _parsed(text: str) -> Phrase:
    """A phrase as a function."""
    tokens = [(m[1] or "", m[2] or "", m[3] or "") for m in _TOKEN.finditer(text)]
    return _all(_sequence(tokens, 0, "")[0])


def _sequence(tokens: Sequence[tuple[str, str, str]], at: int, until: str) -> tuple[list[Phrase], int]:
    """The parts up to one of the signs `until`, which is not taken."""
    parts: list[Phrase] = []
    while at < len(tokens):
        slot, sign, literal = tokens[at]
        if sign and sign in until:
            return parts, at
        if sign == "[":
            inner, at = _sequence(tokens, at + 1, "]")
            parts.append(_perhaps(_all(inner)))
        elif sign == "<":
            choices = []
            while sign != ">":
                inner, at = _sequence(tokens, at + 1, "/>")
                choices.append(_all(inner))
                sign = tokens[at][1]
            parts.append(_one(choices))
        elif sign and sign in "]>":
            raise ValueError(f"{PHRASES.name}: a {sign} closes what nothing has opened")
        elif "|" in slot:
            parts.append(_agreed(*slot.split("|")))
        else:
            parts.append(_filled(slot) if slot else _literal(literal or sign))
        at += 1
    return parts, at


def _all(parts: Sequence[Phrase]) -> Phrase:
    return lambda told: "".join([part(told) for part in parts])


def _perhaps(part: Phrase) -> Phrase:
    return lambda told: part(told) if told.rng.random() < 0.35 else ""


def _one(choices: Sequence[Phrase]) -> Phrase:
    return lambda told: _drawn(choices, told.rng)(told)


def _agreed(one: str, they: str) -> Phrase:
    return lambda told: they if told.plural else one


def _filled(slot: str) -> Phrase:
    return lambda told: told.slot(slot)


def _literal(text: str) -> Phrase:
    return lambda told: text
